//! What must go on, wait or be told when something breaks.
#![expect(
    clippy::disallowed_methods,
    reason = "the applications that write beside the engine are not its tasks"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cdc::{
    Aggregate, AttachOptions, Cdc, Clock, Deadline, Env as _, Error, Filter, FilterStage, Object, Operation,
    Project, Settings, Tables, Tokio,
};
use rusqlite::Connection;

use crate::{CUSTOMERS, everything, family, open};

async fn insert(object: &Object, ids: std::ops::Range<i64>) {
    object
        .write(move |tx| {
            for id in ids {
                tx.execute("INSERT INTO customers VALUES (?1, 'Ada', 'free')", [id])?;
            }
            Ok(())
        })
        .await
        .unwrap();
}

/// An application's database below the root `https://startups.studio`, attached.
async fn attached(cdc: &Cdc, folder: &Path) -> (Object, AttachOptions, Connection) {
    let root = cdc.object("https://startups.studio").open().await.unwrap();
    let database = folder.join("app.db");
    let app = Connection::open(&database).unwrap();
    app.execute_batch("PRAGMA journal_mode = wal; CREATE TABLE customers(id INTEGER PRIMARY KEY, name TEXT)")
        .unwrap();
    let options = AttachOptions {
        database,
        id: "https://startups.studio/app".parse().unwrap(),
        context: Some(root.id().clone()),
        tables: Tables::All,
    };
    cdc.project().attach(&options, &Clock::system()).unwrap();
    cdc.open_all().await.unwrap();
    (root, options, app)
}

/// Ends a writer when it goes, also when the test fails.
#[derive(Default)]
pub(crate) struct Stop(pub(crate) Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

pub(crate) async fn until(mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..500 {
        if holds().await {
            return;
        }
        Tokio::current().sleep(Duration::from_millis(20)).await;
    }
    panic!("it did not come true within 10 s");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_a_write_is_its_callers_error_and_the_object_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let cdc = open(folder.path()).await;
    let (root, tenants) = family(&cdc).await;
    let panicked = tenants[0]
        .write(|tx| {
            tx.execute("INSERT INTO customers VALUES (1, 'Ada', 'free')", [])?;
            panic!("on purpose");
            #[expect(unreachable_code, reason = "gives the closure its type")]
            Ok(())
        })
        .await;
    assert!(matches!(panicked, Err(Error::Panicked { message }) if message == "on purpose"));
    insert(&tenants[0], 2..3).await;
    tenants[0].flush().await.unwrap();
    let customers = everything(&root).await.into_iter().filter(|record| !record.body.is_schema());
    assert_eq!(customers.count(), 1);
    cdc.shutdown(Deadline::secs(10)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_of_more_rows_than_one_drain_takes_goes_up_whole_also_when_it_was_cut_short() {
    let folder = tempfile::tempdir().unwrap();
    let cdc = open(folder.path()).await;
    let (root, tenants) = family(&cdc).await;
    insert(&tenants[0], 0..25_000).await;
    tenants[0].flush().await.unwrap();
    let of = |records: Vec<cdc::Record>| records.iter().filter(|record| !record.body.is_schema()).count();
    assert_eq!(of(everything(&root).await), 25_000);
    cdc.shutdown(Deadline::secs(10)).await.unwrap();
    // As a crash between the first chunk and the rest leaves it.
    let clock = Clock::system();
    let file = folder.path().join(cdc::object_folder(tenants[1].id())).join("object.db");
    let mut log = cdc_log::Log::open(&file, tenants[1].id(), &clock).unwrap();
    log.write(|tx| {
        (0..25_000)
            .try_for_each(|id| tx.execute("INSERT INTO customers VALUES (?1, 'Ada', 'free')", [id]).map(drop))
    })
    .unwrap();
    assert!(log.tail().sequence.get() < 25_000);
    drop(log);
    let cdc = open(folder.path()).await;
    cdc.open_all().await.unwrap();
    let root = cdc.object("https://startups.studio").open().await.unwrap();
    until(async || of(everything(&root).await) == 50_000).await;
    cdc.shutdown(Deadline::secs(10)).await.unwrap();
}

fn stages() -> Vec<Box<dyn cdc::Stage>> {
    let count = Aggregate::count().of("customers").operation(Operation::Insert).stage("inserts").unwrap();
    vec![Box::new(count), Box::new(FilterStage::new("customers-only", Filter::collection("customers")))]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_in_while_stages_are_missing_waits_for_them_and_is_counted_once() {
    let folder = tempfile::tempdir().unwrap();
    let cdc = open(folder.path()).await;
    let (_, tenants) = family(&cdc).await;
    let saas = cdc.object("https://crm.headless.ly").stages(stages()).open().await.unwrap();
    insert(&tenants[0], 0..10).await;
    tenants[0].flush().await.unwrap();
    cdc.shutdown(Deadline::secs(10)).await.unwrap();

    let cdc = open(folder.path()).await;
    let (root, tenants) = family(&cdc).await;
    insert(&tenants[0], 10..15).await;
    let secret = |tx: &cdc::Tx<'_>| tx.emit(&cdc::Change::insert("secrets", "s", &1)?).map_err(Into::into);
    tenants[0].write(secret).await.unwrap();
    let waiting = tenants[0].flush().await.unwrap_err();
    assert!(matches!(&waiting, Error::Stopped { what: "stages", id, .. } if id == saas.id()), "{waiting}");
    let saas = cdc.object("https://crm.headless.ly").stages(stages()).open().await.unwrap();
    insert(&tenants[1], 0..3).await;
    tenants[0].flush().await.unwrap();
    tenants[1].flush().await.unwrap();
    let records = everything(&root).await;
    assert!(records.iter().all(|record| !record.body.as_str().contains("\"secrets\"")));
    let newest = records.iter().rev().find(|record| record.origin.source() == saas.id()).unwrap();
    assert_eq!(newest.event::<serde_json::Value>().unwrap().unwrap().change.after().unwrap()["count"], 18);
    assert!(cdc.troubles().is_empty());
    cdc.shutdown(Deadline::secs(10)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn stages_that_are_set_again_go_on_where_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let cdc = open(folder.path()).await;
    let (root, tenants) = family(&cdc).await;
    for round in 1..=3 {
        let saas = cdc.object("https://crm.headless.ly").stages(stages()).open().await.unwrap();
        insert(&tenants[0], (round - 1) * 10..round * 10).await;
        tenants[0].flush().await.unwrap();
        let records = everything(&root).await;
        let newest = records.iter().rev().find(|record| record.origin.source() == saas.id()).unwrap();
        let newest = newest.event::<serde_json::Value>().unwrap().unwrap();
        assert_eq!(newest.change.after().unwrap()["count"], round * 10);
    }
    cdc.shutdown(Deadline::secs(10)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_that_recovers_does_not_hide_an_archive_that_has_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let cdc = open(folder.path()).await;
    let database = folder.path().join("app.db");
    let app = Connection::open(&database).unwrap();
    app.execute_batch("CREATE TABLE customers(id INTEGER PRIMARY KEY, name TEXT)").unwrap();
    let id: cdc::ObjectId = "https://startups.studio/app".parse().unwrap();
    let options =
        AttachOptions { database: database.clone(), id: id.clone(), context: None, tables: Tables::All };
    cdc.project().attach(&options, &Clock::system()).unwrap();
    cdc.open_all().await.unwrap();
    cdc.quiet().await.unwrap();
    // Its data folder is a file: whoever waits hears of it, although it breaks only now.
    let table = folder.path().join("warehouse/tables").join(id.file_name());
    std::fs::remove_dir_all(table.join("data")).unwrap();
    std::fs::write(table.join("data"), "in the way").unwrap();
    app.execute("INSERT INTO customers VALUES (1, 'Ada')", []).unwrap();
    assert!(matches!(cdc.quiet().await, Err(Error::Stopped { what: "archive", .. })));
    drop(app);
    let away = folder.path().join("away.db");
    std::fs::rename(&database, &away).unwrap();
    let has = |what| cdc.troubles().iter().any(|(_, trouble)| trouble.what == what);
    until(async || has("drain")).await;
    std::fs::rename(&away, &database).unwrap();
    until(async || !has("drain")).await;
    assert!(has("archive"));
    cdc.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_finds_no_difference_beside_a_running_engine_and_a_writing_application() {
    let folder = tempfile::tempdir().unwrap();
    let cdc = open(folder.path()).await;
    let (_, options, app) = attached(&cdc, folder.path()).await;
    let stop = Stop::default();
    let stopped = Arc::clone(&stop.0);
    let writer = tokio::task::spawn_blocking(move || {
        let mut id = 0_i64;
        while !stopped.load(Ordering::Relaxed) {
            app.execute("INSERT INTO customers VALUES (?1, 'Ada')", [id]).unwrap();
            app.execute("UPDATE customers SET name = name || '!' WHERE id = ?1", [id / 2]).unwrap();
            id += 1;
            // Leaves moments at which everything is drained, so that live rows can be compared, too.
            if id % 50 == 0 {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        id
    });
    let project = Project::open(folder.path(), cdc.project().settings().clone()).unwrap();
    for round in 0..40 {
        for (id, verified) in project.verify(&Tokio::current(), None, round % 10 == 0).await.unwrap() {
            assert_eq!(verified.difference, None, "{id}");
        }
    }
    drop(stop);
    assert!(writer.await.unwrap() > 0);
    cdc.quiet().await.unwrap();
    let verified = project.verify(&Tokio::current(), Some(&options.id), true).await.unwrap();
    assert!(verified.iter().all(|(_, verified)| verified.rows_compared && verified.difference.is_none()));
    cdc.shutdown(Deadline::secs(10)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_detach_loses_nothing_of_what_was_captured_until_it_took_effect() {
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..3 {
        let folder = tempfile::tempdir_in(folder.path()).unwrap();
        let cdc = open(folder.path()).await;
        let (_, options, app) = attached(&cdc, folder.path()).await;
        cdc.shutdown(Deadline::secs(10)).await.unwrap();
        // Marks each row that is written while there is capture.
        app.execute_batch(
            "CREATE TABLE captured(id INTEGER PRIMARY KEY);
             CREATE TRIGGER mark AFTER INSERT ON customers
             WHEN EXISTS (SELECT 1 FROM sqlite_master WHERE name = '_cdc_capture')
             BEGIN INSERT INTO captured VALUES (NEW.id); END",
        )
        .unwrap();
        app.busy_timeout(Duration::from_secs(10)).unwrap();
        let stop = Stop::default();
        let stopped = Arc::clone(&stop.0);
        let writer = tokio::task::spawn_blocking(move || {
            for id in 0_i64.. {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                app.execute("INSERT INTO customers VALUES (?1, 'Ada')", [id]).unwrap();
            }
            app.query_row("SELECT count(*) FROM captured", [], |row| row.get::<_, i64>(0)).unwrap()
        });
        Tokio::current().sleep(Duration::from_millis(50)).await;
        let project = Project::open(folder.path(), Settings::default()).unwrap();
        let id = options.id.clone();
        let file = folder.path().join(cdc::object_folder(&id)).join("log.db");
        tokio::task::spawn_blocking(move || project.detach(&id, &Clock::system()).unwrap()).await.unwrap();
        drop(stop);
        let captured = writer.await.unwrap();
        let log = Connection::open(file).unwrap();
        let inserts = "SELECT count(*) FROM _cdc_log WHERE body LIKE '{\"operation\":\"INSERT\",\"collection\":\"customers\"%'";
        let logged: i64 = log.query_row(inserts, [], |row| row.get(0)).unwrap();
        assert!(captured > 0);
        assert_eq!(logged, captured);
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name())).unwrap();
        match path.is_dir() {
            true => copy(&path, &to.join(name)),
            // SQLite's files of a moment may be gone again.
            false => match std::fs::copy(&path, to.join(name)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{error}"),
                _ => {}
            },
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parent_that_comes_back_with_less_is_found_out_although_the_child_was_killed() {
    let folder = tempfile::tempdir().unwrap();
    let live = folder.path().join("live");
    let hot = || async { Cdc::builder(&live).open().await.unwrap() };
    let object =
        |folder: &Path, id: &str| -> PathBuf { folder.join(cdc::object_folder(&id.parse().unwrap())) };
    let (parent, child) = ("https://startups.studio", "https://startups.studio/a");
    let older = folder.path().join("older");
    let open_both = async |cdc: &Cdc| {
        let root = cdc.object(parent).open().await.unwrap();
        let child = cdc.object(child).context(root.id()).migrate(CUSTOMERS).capture(["customers"]);
        child.open().await.unwrap()
    };
    let cdc = hot().await;
    insert(&open_both(&cdc).await, 0..5).await;
    cdc.shutdown(Deadline::secs(10)).await.unwrap();
    copy(&object(&live, parent), &older);
    let cdc = hot().await;
    let a = open_both(&cdc).await;
    insert(&a, 5..9).await;
    a.flush().await.unwrap();
    let acked = a.cursor().await.unwrap().sequence.to_string();
    let log = Connection::open(object(&live, child).join("object.db")).unwrap();
    let stored = || -> String {
        log.query_row("SELECT value FROM _cdc_stage WHERE stage = '@uplink'", [], |row| row.get(0)).unwrap()
    };
    until(async || stored().contains(&format!("\"sequence\":{acked}"))).await;
    // As it is at a kill; then the parent's backup is put in its place.
    let killed = folder.path().join("killed");
    copy(&live, &killed);
    std::fs::remove_file(killed.join(".cdc/home")).unwrap();
    drop(log);
    cdc.stop().await;
    std::fs::remove_dir_all(object(&killed, parent)).unwrap();
    copy(&older, &object(&killed, parent));
    let cdc = Cdc::builder(&killed).open().await.unwrap();
    let a = open_both(&cdc).await;
    insert(&a, 20..21).await;
    let stopped = a.flush().await.unwrap_err();
    assert!(matches!(stopped, Error::Stopped { what: "link", .. }), "{stopped}");
    cdc.stop().await;
}
