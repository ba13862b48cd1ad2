//! Hot rows go behind everybody, and whoever comes too late is told.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cdc::{
    ArchiveSettings, Cdc, Cursor, Deadline, Env as _, Error, Holder, LogError, Object, Project, Remover,
    ReplayError, Retention, RetentionSettings, Sequence, Settings, Tokio,
};
use futures_util::TryStreamExt as _;

use crate::{CUSTOMERS, everything, family};

fn keeping(most: u64, sweep_ms: u64) -> RetentionSettings {
    RetentionSettings { max_events: Some(most), sweep_ms, ..RetentionSettings::default() }
}

/// So long that nothing is pruned but on request.
const NEVER_MS: u64 = 1 << 30;

fn settings(retention: RetentionSettings) -> Settings {
    Settings { archive: Some(ArchiveSettings::new("file:./warehouse")), retention, ..Settings::default() }
}

async fn open(folder: &Path, settings: Settings) -> Cdc {
    Cdc::builder(folder).settings(settings).open().await.unwrap()
}

async fn insert(object: &Object, ids: std::ops::Range<i64>) {
    for id in ids {
        object
            .write(move |tx| {
                tx.execute("INSERT INTO customers VALUES (?1, 'Ada', 'free')", [id])?;
                Ok(())
            })
            .await
            .unwrap();
    }
}

async fn floor(object: &Object) -> u64 {
    object.reader().await.unwrap().status().await.unwrap().floor.get()
}

async fn until_floor(object: &Object, least: u64) {
    for _ in 0..1_000 {
        if floor(object).await >= least {
            return;
        }
        Tokio::current().sleep(Duration::from_millis(20)).await;
    }
    panic!("{} keeps its rows from {}", object.id(), floor(object).await);
}

async fn verify(folder: &Path, settings: Settings) {
    let project = Project::open(folder, settings).unwrap();
    for (id, verified) in project.verify(&Tokio::current(), None, false).await.unwrap() {
        assert_eq!((verified.difference, verified.under_way), (None, 0), "{id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_go_by_themselves_once_they_are_settled_and_no_history_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(keeping(10, 50));
    for round in 0..2 {
        let cdc = open(folder.path(), settings.clone()).await;
        let (root, tenants) = family(&cdc).await;
        for tenant in &tenants {
            insert(tenant, round * 1000..round * 1000 + 60).await;
        }
        for tenant in &tenants {
            tenant.settle().await.unwrap();
        }
        let per_tenant = u64::try_from(round + 1).unwrap() * 60 + 1;
        let saas = cdc.object("https://crm.headless.ly").open().await.unwrap();
        for (object, rows) in [
            (&root, 2 * per_tenant),
            (&saas, 2 * per_tenant),
            (&tenants[0], per_tenant),
            (&tenants[1], per_tenant),
        ] {
            until_floor(object, rows - 9).await;
            assert_eq!(floor(object).await, rows - 9, "{}", object.id());
        }
        let records = everything(&root).await;
        assert!(records.iter().zip(1..).all(|(record, at)| record.sequence.get() == at));
        assert_eq!(u64::try_from(records.len()).unwrap(), 2 * per_tenant);
        let lost = tenants[0].reader().await.unwrap().replay().stream().try_collect::<Vec<_>>().await;
        assert!(
            matches!(&lost, Err(Error::Replay(ReplayError::BelowFloor { floor, .. })) if floor.get() > 1),
            "{lost:?}"
        );
        cdc.shutdown(Deadline::secs(20)).await.unwrap();
        verify(folder.path(), settings.clone()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_holds_back_what_it_has_not_taken() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings {
        retention: RetentionSettings {
            objects: [("https://a.b".parse().unwrap(), Retention { max_events: Some(5), ..Retention::ALL })]
                .into(),
            sweep_ms: NEVER_MS,
            ..RetentionSettings::default()
        },
        ..settings(RetentionSettings::default())
    };
    let cdc = open(folder.path(), settings).await;
    let root = cdc.object("https://a.b").migrate(CUSTOMERS).capture(["customers"]).open().await.unwrap();
    insert(&root, 0..50).await;
    root.checkpoint("billing").save(Cursor::after(Sequence::new(20))).await.unwrap();
    let reader = root.reader().await.unwrap();
    let held = reader.prune().await.unwrap();
    assert_eq!((held.records, held.floor.get()), (0, 1), "nothing is archived: {held:?}");
    root.settle().await.unwrap();
    let reader = root.reader().await.unwrap();
    let pruned = reader.prune().await.unwrap();
    assert_eq!((pruned.records, pruned.floor.get()), (20, 21));
    let holders: Vec<_> = pruned.held.into_iter().map(|loss| (loss.holder, loss.records)).collect();
    assert_eq!(holders, [(Holder::Subscriber("billing".to_owned()), 26)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_begins_at_the_floor_when_told_to_and_its_checkpoint_goes_with_its_token() {
    let folder = tempfile::tempdir().unwrap();
    let cdc = open(folder.path(), settings(keeping(5, NEVER_MS))).await;
    let root = cdc.object("https://a.b").migrate(CUSTOMERS).capture(["customers"]).open().await.unwrap();
    insert(&root, 0..30).await;
    root.settle().await.unwrap();
    let floor = root.reader().await.unwrap().prune_through(Sequence::new(20)).await.unwrap().floor;
    let taken = Arc::new(Mutex::new(Vec::new()));
    let token = root.checkpoint("late").take_over().await.unwrap();
    let consumer = || {
        let taken = Arc::clone(&taken);
        let consumer = root.consume("late", move |_, records| {
            taken.lock().unwrap().extend(records.iter().map(|record| record.sequence));
            Ok(())
        });
        consumer.token(token)
    };
    let refused = consumer().run().await.unwrap_err();
    assert!(matches!(refused, Error::Log(LogError::BelowFloor { .. })), "{refused:?}");
    assert_eq!(consumer().from_floor().run().await.unwrap().sequence, Sequence::new(31));
    assert_eq!(taken.lock().unwrap().first(), Some(&floor));
    let checkpoint = root.checkpoint("late");
    let refused = checkpoint.remove().await.unwrap_err();
    assert!(matches!(refused, Error::Log(LogError::CheckpointFenced { .. })), "{refused:?}");
    assert!(checkpoint.remove_as(Remover::Holder(token)).await.unwrap());
    assert_eq!(checkpoint.get().await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_archives_only_an_explicit_floor_drops_anything() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { archive: None, ..settings(keeping(5, NEVER_MS)) };
    let cdc = open(folder.path(), settings.clone()).await;
    let (root, tenants) = family(&cdc).await;
    insert(&tenants[0], 0..30).await;
    tenants[0].settle().await.unwrap();
    let reader = root.reader().await.unwrap();
    let pruned = reader.prune().await.unwrap();
    assert_eq!(pruned.records, 0);
    assert_eq!(pruned.held.first().unwrap().holder, Holder::LastCopy);
    let told = reader.losses(Sequence::new(20)).await.unwrap();
    assert_eq!((told.records, told.losses.len()), (20, 1));
    assert_eq!(reader.prune_through(told.through).await.unwrap().floor, Sequence::new(21));
    let lost = reader.replay().stream().try_collect::<Vec<_>>().await.unwrap_err();
    assert!(
        matches!(&lost, Error::Replay(error) if error.go_on_after() == Some(Sequence::new(20))),
        "{lost:?}"
    );
    insert(&tenants[0], 30..40).await;
    tenants[0].settle().await.unwrap();
    cdc.shutdown(Deadline::secs(20)).await.unwrap();
    verify(folder.path(), settings).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_whose_rows_were_dropped_stops_and_names_the_floor() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere: SocketAddr = ([127, 0, 0, 1], 1).into();
    let parent = "https://a.b".parse().unwrap();
    let away = Settings { remotes: [(parent, nowhere)].into(), ..Settings::default() };
    let cdc = open(folder.path(), away).await;
    let child = cdc.object("https://a.b/c").context(&"https://a.b".parse().unwrap());
    let child = child.migrate(CUSTOMERS).capture(["customers"]).open().await.unwrap();
    insert(&child, 0..30).await;
    let reader = child.reader().await.unwrap();
    let told = reader.losses(Sequence::new(12)).await.unwrap();
    let lost: Vec<_> = told.losses.iter().map(|loss| loss.records).collect();
    assert_eq!(lost, [12, 12], "{told:?}");
    reader.prune_through(told.through).await.unwrap();
    cdc.stop().await;
    let cdc = open(folder.path(), Settings::default()).await;
    cdc.object("https://a.b").open().await.unwrap();
    let child = cdc.object("https://a.b/c").open().await.unwrap();
    let stopped = child.flush().await.unwrap_err();
    assert!(
        matches!(&stopped, Error::Stopped { what: "link", reason, .. } if reason.contains("readable from 13")),
        "{stopped:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_whose_rows_were_dropped_stops_and_names_the_floor() {
    let folder = tempfile::tempdir().unwrap();
    let cdc = open(folder.path(), settings(keeping(5, NEVER_MS))).await;
    let root = cdc.object("https://a.b").migrate(CUSTOMERS).capture(["customers"]).open().await.unwrap();
    insert(&root, 0..30).await;
    root.reader().await.unwrap().prune_through(Sequence::new(12)).await.unwrap();
    let stopped = cdc.quiet().await.unwrap_err();
    assert!(
        matches!(&stopped, Error::Stopped { what: "archive", reason, .. } if reason.contains("below the floor 13")),
        "{stopped:?}"
    );
}
