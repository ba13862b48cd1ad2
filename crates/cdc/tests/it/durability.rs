//! Writes that are acknowledged before they are on disk: who hears of them when.

use std::path::Path;
use std::time::Duration;

use cdc::{Cdc, Change, Deadline, Durability, Env as _, HandleSettings, Object, Settings, Tokio};

use crate::everything;

const ROOT: &str = "https://crm.headless.ly";

/// So long that nothing is synced but on request.
const NEVER_MS: u64 = 1 << 30;

async fn engine(folder: &Path, handles: HandleSettings) -> Cdc {
    let settings = Settings { handles, ..Settings::default() };
    Cdc::builder(folder).settings(settings).open().await.unwrap()
}

fn syncing_after(sync_ms: u64) -> HandleSettings {
    HandleSettings { sync_ms, ..HandleSettings::default() }
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
    let cdc = engine(folder.path(), syncing_after(NEVER_MS)).await;
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
    let cdc = engine(folder.path(), syncing_after(10)).await;
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
    let handles = HandleSettings { open_max: Some(1), ..syncing_after(NEVER_MS) };
    let cdc = engine(folder.path(), handles).await;
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
    // Beside a batch of a child's, which is on disk when it is acknowledged, so is what shares its transaction.
    emit(&tenants[0], "second").await;
    let (wrote, flushed) = tokio::join!(emit(&root, "own"), tenants[0].flush());
    flushed.unwrap();
    assert_eq!(((), everything(&root).await.len() >= tenants.len() + 1), (wrote, true));
    cdc.shutdown(Deadline::secs(30)).await.unwrap();
    let cdc = engine(folder.path(), syncing_after(10)).await;
    let root = object(&cdc, ROOT).await;
    assert_eq!(everything(&root).await.len(), tenants.len() + 2);
    cdc.shutdown(Deadline::secs(30)).await.unwrap();
}
