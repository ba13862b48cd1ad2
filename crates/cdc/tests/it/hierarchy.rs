use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use cdc::{Aggregate, Cdc, Deadline, Error, Filter, FilterStage, Operation, Sequence, Tokio};

use crate::{everything, family, open};

#[tokio::test(flavor = "multi_thread")]
async fn every_ancestor_gets_every_event_once_in_its_origins_order_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..3_i64 {
        let cdc = open(folder.path()).await;
        let (root, tenants) = family(&cdc).await;
        for n in 0..250_i64 {
            for tenant in &tenants {
                let id = round * 1000 + n;
                tenant
                    .write(move |tx| {
                        tx.execute("INSERT INTO customers VALUES (?1, 'Ada', 'free')", [id])?;
                        tx.execute("UPDATE customers SET tier = 'pro' WHERE id = ?1", [id])?;
                        Ok(())
                    })
                    .await
                    .unwrap();
            }
        }
        for tenant in &tenants {
            tenant.settle().await.unwrap();
            assert_eq!(tenant.settled(), tenant.cursor().await.unwrap().sequence);
        }
        let records = everything(&root).await;
        for tenant in &tenants {
            let theirs = records.iter().filter(|record| record.origin.source() == tenant.id());
            let own = everything(tenant).await;
            let place = |record: &cdc::Record| (record.origin_sequence, record.id(), record.body.clone());
            assert_eq!(
                theirs.clone().map(place).collect::<Vec<_>>(),
                own.iter().map(place).collect::<Vec<_>>()
            );
            let route: Vec<_> =
                theirs.clone().next_back().unwrap().origin.route().iter().map(|id| id.short()).collect();
            assert_eq!(route, [tenant.id().short(), "crm.headless.ly", "headless.ly"]);
        }
        cdc.shutdown(Deadline::secs(20)).await.unwrap();
        let verified = cdc::Project::open(folder.path(), settings())
            .unwrap()
            .verify(&Tokio::current(), None, true)
            .await;
        for (id, verified) in verified.unwrap() {
            assert_eq!((verified.difference, verified.under_way), (None, 0), "{id}");
        }
    }
}

fn settings() -> cdc::Settings {
    cdc::Settings { archive: Some(cdc::ArchiveSettings::new("file:./warehouse")), ..cdc::Settings::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_fails_leaves_nothing_and_gives_the_callers_own_error() {
    let folder = tempfile::tempdir().unwrap();
    let cdc = open(folder.path()).await;
    let (_, tenants) = family(&cdc).await;
    let before = tenants[0].cursor().await.unwrap();
    let failed = tenants[0]
        .write(|tx| {
            tx.execute("INSERT INTO customers VALUES (1, 'Ada', 'free')", [])?;
            Err::<(), _>(Error::NoArchive { id: "https://a.b".parse()? })
        })
        .await;
    assert!(matches!(failed, Err(Error::NoArchive { .. })));
    assert_eq!(tenants[0].cursor().await.unwrap(), before);
    let count = tenants[0]
        .query(|db| Ok(db.query_row("SELECT count(*) FROM customers", [], |row| row.get::<_, i64>(0))?));
    assert_eq!(count.await.unwrap(), 0);
    let refused = tenants[0].query(|db| Ok(db.execute("DELETE FROM customers", [])?)).await;
    assert!(matches!(refused, Err(Error::Sqlite(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_said_of_a_transaction_is_read_back_from_the_roots_archive() {
    let folder = tempfile::tempdir().unwrap();
    let cdc = open(folder.path()).await;
    let (root, tenants) = family(&cdc).await;
    let said = serde_json::json!({ "user": "ada" });
    let ours = said.clone();
    let write = tenants[0].write(move |tx| {
        tx.correlate("request-1")?;
        tx.metadata(&ours)?;
        tx.execute("INSERT INTO customers VALUES (1, 'Ada', 'free')", [])?;
        Ok(tx.emit(&cdc::Change::insert("notes", "n", &1)?)?)
    });
    write.await.unwrap();
    tenants[0].settle().await.unwrap();
    let archived = root.reader().await.unwrap().archive_status().await.unwrap().unwrap();
    let watermark = archived.watermark.unwrap().sequence;
    let mut records = everything(&root).await;
    records.retain(|record| record.sequence <= watermark);
    let events = records.iter().filter_map(|record| record.event::<serde_json::Value>().unwrap());
    let told: Vec<_> =
        events.map(|event| (event.correlation_id.unwrap(), event.transaction.unwrap())).collect();
    assert_eq!(told.len(), 2);
    for ((correlation, transaction), index) in told.into_iter().zip(0..) {
        assert_eq!(correlation, "request-1");
        assert_eq!(
            (transaction.index, transaction.count, transaction.metadata),
            (index, 2, Some(said.clone()))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stages_filter_and_count_what_children_do_exactly_through_restarts() {
    let folder = tempfile::tempdir().unwrap();
    for round in 1..=3_u32 {
        let cdc = open(folder.path()).await;
        let (root, tenants) = family(&cdc).await;
        let saas = cdc.object("https://crm.headless.ly").open().await.unwrap();
        let count = Aggregate::count().of("customers").operation(Operation::Update).stage("updates").unwrap();
        let only_customers = FilterStage::new("customers-only", Filter::collection("customers"));
        saas.stages(vec![Box::new(count), Box::new(only_customers)]).await.unwrap();
        for tenant in &tenants {
            tenant
                .write(move |tx| {
                    for n in 0..10 {
                        tx.execute("INSERT OR IGNORE INTO customers VALUES (?1, 'Ada', 'free')", [n])?;
                        tx.execute("UPDATE customers SET tier = tier || 'x' WHERE id = ?1", [n])?;
                    }
                    tx.emit(&cdc::Change::insert("secrets", "s", &round)?).map_err(Into::into)
                })
                .await
                .unwrap();
            tenant.flush().await.unwrap();
        }
        let records = everything(&root).await;
        let of = |collection: &str| records.iter().filter(|r| r.body.as_str().contains(collection)).count();
        assert_eq!(of("\"secrets\""), 0);
        let newest = records.iter().rev().find(|record| record.origin.source() == saas.id()).unwrap();
        let event = newest.event::<serde_json::Value>().unwrap().unwrap();
        assert_eq!(event.collection, "updates");
        assert_eq!(event.change.after().unwrap()["count"], 20 * round);
        cdc.shutdown(Deadline::secs(20)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_takes_each_record_once_although_its_work_fails_in_between() {
    let folder = tempfile::tempdir().unwrap();
    let cdc = open(folder.path()).await;
    let (root, tenants) = family(&cdc).await;
    root.write(|tx| Ok(tx.execute_batch("CREATE TABLE totals(n); INSERT INTO totals VALUES (0)")?))
        .await
        .unwrap();
    for n in 0..50 {
        tenants[0]
            .write(move |tx| {
                Ok(tx.execute("INSERT INTO customers VALUES (?1, 'Ada', 'free')", [n]).map(drop)?)
            })
            .await
            .unwrap();
    }
    tenants[0].flush().await.unwrap();
    let calls = Arc::new(AtomicU32::new(0));
    loop {
        let calls = Arc::clone(&calls);
        let done = root
            .consume("totals", move |tx, records| {
                tx.execute("UPDATE totals SET n = n + ?1", [records.len()])?;
                match calls.fetch_add(1, Ordering::Relaxed) % 3 {
                    2 => Err(Error::ShutDown),
                    _ => Ok(()),
                }
            })
            .filter(Filter::operation(Operation::Insert))
            .batch_size(7)
            .run()
            .await;
        match done {
            Ok(cursor) => {
                assert_eq!(cursor.sequence, root.cursor().await.unwrap().sequence);
                break;
            }
            Err(error) => assert!(matches!(error, Error::ShutDown)),
        }
    }
    let total = root
        .query(|db| Ok(db.query_row("SELECT n FROM totals", [], |row| row.get::<_, i64>(0))?))
        .await
        .unwrap();
    let inserts = everything(&root).await.iter().filter(|record| !record.body.is_schema()).count();
    assert_eq!(inserts, 50);
    assert_eq!(total, i64::try_from(inserts).unwrap());
    assert!(calls.load(Ordering::Relaxed) > 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_with_a_batch_size_of_none_reaches_the_end_of_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let cdc = open(folder.path()).await;
    let root =
        cdc.object("https://a.b").migrate(crate::CUSTOMERS).capture(["customers"]).open().await.unwrap();
    let rows = "INSERT INTO customers VALUES (1, 'Ada', 'free'), (2, 'Bob', 'free')";
    root.write(|tx| Ok(tx.execute(rows, []).map(drop)?)).await.unwrap();
    let cursor = root.consume("all", |_, _| Ok(())).batch_size(0).run().await.unwrap();
    assert_eq!(cursor.sequence, root.cursor().await.unwrap().sequence);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_circle_an_unknown_parent_and_a_second_engine_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let cdc = open(folder.path()).await;
    let root = cdc.object("https://a.b").open().await.unwrap();
    let child = cdc.object("https://a.b/c").context(root.id()).open().await.unwrap();
    assert!(matches!(
        cdc.object("https://a.b").context(child.id()).open().await,
        Err(Error::OtherParent { .. })
    ));
    let unknown = "https://x.y".parse().unwrap();
    assert!(matches!(
        cdc.object("https://a.b/d").context(&unknown).open().await,
        Err(Error::UnknownParent { .. })
    ));
    assert!(matches!(cdc.object("not a url").open().await, Err(Error::Value(_))));
    assert!(matches!(Cdc::builder(folder.path()).open().await, Err(Error::InUse { .. })));
    drop((root, child));
    cdc.shutdown(Deadline::secs(5)).await.unwrap();
    Cdc::builder(folder.path()).open().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn replay_over_archive_and_log_gives_exactly_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let cdc = open(folder.path()).await;
    let (root, tenants) = family(&cdc).await;
    let write = |from: i64| {
        let tenant = tenants[0].clone();
        async move {
            tenant
                .write(move |tx| {
                    (from..from + 300).try_for_each(|n| {
                        tx.execute("INSERT INTO customers VALUES (?1, 'Ada', 'free')", [n]).map(drop)
                    })?;
                    Ok(())
                })
                .await
                .unwrap();
        }
    };
    write(0).await;
    tenants[0].settle().await.unwrap();
    write(1000).await;
    tenants[0].flush().await.unwrap();
    let reader = root.reader().await.unwrap();
    let archived = reader.archive_status().await.unwrap().unwrap();
    let hot = reader.after(Sequence::ZERO, cdc::Limit { records: 10_000, bytes: usize::MAX }).await.unwrap();
    assert!(archived.rows > 0 && archived.rows < u64::try_from(hot.len()).unwrap());
    assert_eq!(everything(&root).await, hot);
}
