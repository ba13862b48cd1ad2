//! Writes that are acknowledged before they are on disk: who hears of them when.

use std::path::Path;
use std::time::Duration;

use cdc::{
    Cdc, Change, Deadline, DiskSettings, Durability, Env as _, HandleSettings, Object, Settings, Tokio,
};

use crate::everything;

const ROOT: &str = "https://crm.headless.ly";

/// So long that nothing is synced but on request.
const NEVER_MS: u64 = 1 << 30;

async fn engine(folder: &Path, sync_ms: u64, open_max: Option<usize>) -> Cdc {
    let disk = DiskSettings { sync_ms, ..DiskSettings::default() };
    let handles = HandleSettings { open_max, ..HandleSettings::default() };
    let settings = Settings { handles, disk, ..Settings::default() };
    Cdc::builder(folder).settings(settings).open().await.unwrap()
}

async fn object(cdc: &Cdc, id: &str) -> Object {
    cdc.object(id).durability(Durability::Normal).open().await.unwrap()
}

async fn emit(object: &Object, id: &str) {
    let change = Change::insert("notes", id, &1).unwrap();
    object.write(move |tx| Ok(tx.emit(&change)?)).await.unwrap();
}

/// What somebody reads of the log who asks nothing of the engine, and what is in the file.
async fn shown(object: &Object) -> (u64, u64) {
    let reader = object.reader().await.unwrap();
    let rows = "SELECT coalesce(max(sequence), 0) FROM _cdc_log";
    let written = object.query(move |db| Ok(db.query_row(rows, [], |row| row.get(0))?)).await.unwrap();
    (reader.status().await.unwrap().tail.sequence.get(), written)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_is_shown_once_it_is_on_disk_and_that_is_soon() {
    let folder = tempfile::tempdir().unwrap();
    let cdc = engine(folder.path(), NEVER_MS, None).await;
    let root = object(&cdc, ROOT).await;
    emit(&root, "first").await;
    emit(&root, "second").await;
    assert_eq!(shown(&root).await, (0, 2));
    // Whoever asks the engine how far the log is may tell others.
    assert_eq!(root.cursor().await.unwrap().sequence.get(), 2);
    assert_eq!(shown(&root).await, (2, 2));
    // What is opened again keeps its setting, unless told.
    let again = cdc.object(ROOT).open().await.unwrap();
    emit(&again, "third").await;
    assert_eq!(shown(&root).await, (2, 3));
    cdc.shutdown(Deadline::secs(30)).await.unwrap();
    let cdc = engine(folder.path(), 10, None).await;
    let root = object(&cdc, ROOT).await;
    assert_eq!(shown(&root).await, (3, 3));
    emit(&root, "fourth").await;
    for _ in 0..500 {
        if shown(&root).await == (4, 4) {
            return cdc.shutdown(Deadline::secs(30)).await.unwrap();
        }
        Tokio::current().sleep(Duration::from_millis(10)).await;
    }
    panic!("never synced: {:?}", shown(&root).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_or_closed_is_on_disk_first() {
    let folder = tempfile::tempdir().unwrap();
    let cdc = engine(folder.path(), NEVER_MS, Some(1)).await;
    let root = object(&cdc, ROOT).await;
    let mut tenants = Vec::new();
    for n in 0..4 {
        let id = format!("{ROOT}/{n}");
        let tenant = cdc.object(id).context(root.id()).durability(Durability::Normal);
        tenants.push(tenant.open().await.unwrap());
    }
    for tenant in &tenants {
        emit(tenant, "first").await;
    }
    for tenant in &tenants {
        tenant.flush().await.unwrap();
    }
    assert_eq!(everything(&root).await.len(), tenants.len());
    cdc.shutdown(Deadline::secs(30)).await.unwrap();
    let cdc = engine(folder.path(), 10, None).await;
    let root = object(&cdc, ROOT).await;
    assert_eq!(everything(&root).await.len(), tenants.len());
    cdc.shutdown(Deadline::secs(30)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_childs_batch_takes_what_was_written_before_it_to_disk() {
    let folder = tempfile::tempdir().unwrap();
    let cdc = engine(folder.path(), NEVER_MS, None).await;
    let root = object(&cdc, ROOT).await;
    let tenant = cdc.object(format!("{ROOT}/acme")).context(root.id()).open().await.unwrap();
    emit(&root, "own").await;
    emit(&tenant, "first").await;
    tenant.flush().await.unwrap();
    assert_eq!(shown(&root).await, (2, 2));
    cdc.shutdown(Deadline::secs(30)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_on_disk_after_a_shutdown_without_time() {
    let folder = tempfile::tempdir().unwrap();
    let cdc = engine(folder.path(), NEVER_MS, None).await;
    let root = object(&cdc, ROOT).await;
    emit(&root, "own").await;
    // Whether there was time to sync it before is not known.
    drop(cdc.shutdown(Deadline::secs(0)).await);
    let cdc = engine(folder.path(), NEVER_MS, None).await;
    assert_eq!(shown(&object(&cdc, ROOT).await).await, (1, 1), "closed in order, and on disk");
    cdc.shutdown(Deadline::secs(30)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_behind_a_long_one_is_shown_soon_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let cdc = engine(folder.path(), 10, None).await;
    let root = object(&cdc, ROOT).await;
    emit(&root, "first").await;
    root.cursor().await.unwrap();
    // The object is busy for far longer than its syncs wait.
    let (_open, never) = std::sync::mpsc::channel::<()>();
    let long = root.query(move |_| {
        let waited = never.recv_timeout(Duration::from_millis(300));
        assert!(waited.is_err());
        Ok(())
    });
    let behind = async {
        Tokio::current().sleep(Duration::from_millis(50)).await;
        emit(&root, "second").await;
    };
    let (busy, ()) = tokio::join!(long, behind);
    busy.unwrap();
    let reader = root.reader().await.unwrap();
    for _ in 0..200 {
        if reader.status().await.unwrap().tail.sequence.get() == 2 {
            return cdc.shutdown(Deadline::secs(30)).await.unwrap();
        }
        Tokio::current().sleep(Duration::from_millis(10)).await;
    }
    panic!("never synced: {:?}", reader.status().await.unwrap());
}
