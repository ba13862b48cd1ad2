//! A disk that runs full under an engine: nothing new is taken, and what empties the disk goes on.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use cdc::{
    ArchiveSettings, Cdc, Change, Deadline, DiskSettings, Env as _, Error, Object, RetentionSettings,
    Settings, Tokio,
};

use crate::small_disk::SmallDisk;

const ROOT: &str = "https://crm.headless.ly";

const DISK_BYTES: usize = 32 << 20;

const BALLAST_BYTES: u64 = 8 << 20;

/// Bytes of one document.
const DOCUMENT_BYTES: usize = 8_000;

/// Far longer than it takes.
const PATIENCE: Duration = Duration::from_secs(180);

/// Archives elsewhere, and prunes on its own only when the disk is full.
async fn engine(folder: &Path, warehouse: &Path, interval_ms: u64) -> cdc::Result<Cdc> {
    let archive = ArchiveSettings { interval_ms, ..ArchiveSettings::new(warehouse.to_str().unwrap()) };
    let retention =
        RetentionSettings { max_events: Some(50), sweep_ms: 1 << 30, ..RetentionSettings::default() };
    let disk = DiskSettings { ballast_bytes: BALLAST_BYTES, ..DiskSettings::default() };
    let settings = Settings { archive: Some(archive), retention, disk, ..Settings::default() };
    Cdc::builder(folder).settings(settings).open().await
}

async fn emit(object: &Object, n: u64) -> cdc::Result<()> {
    let text = format!("{n:0>DOCUMENT_BYTES$}");
    object.write(move |tx| Ok(tx.emit(&Change::insert("notes", &n.to_string(), &text)?)?)).await
}

/// Whether a write was refused because of the disk, which will have room again.
fn is_for_want_of_room(error: &Error) -> bool {
    let is_refused = matches!(error, Error::Log(error) if error.is_full_disk());
    is_refused || matches!(error, Error::DiskFull { .. })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_emptied_by_what_others_have_and_writes_are_taken_again() {
    let Some(disk) = SmallDisk::mount(DISK_BYTES) else { return };
    let warehouse = tempfile::tempdir().unwrap();
    let folder = disk.path().join("project");
    std::fs::create_dir(&folder).unwrap();
    let cdc = engine(&folder, warehouse.path(), 100).await.unwrap();
    assert_eq!(std::fs::metadata(folder.join(".cdc/ballast")).unwrap().len(), BALLAST_BYTES);
    let root = cdc.object(ROOT).open().await.unwrap();
    let tenant = cdc.object(format!("{ROOT}/acme")).context(root.id()).open().await.unwrap();
    // Every event lies here twice, in the tenant's log and in the root's.
    let writes = u64::try_from(DISK_BYTES * 5 / 4 / DOCUMENT_BYTES).unwrap();
    let env = Tokio::current();
    let (begun, mut refused, mut told) = (env.now(), 0_u32, 0_u32);
    for n in 0..writes {
        while let Err(error) = emit(&tenant, n).await {
            assert!(is_for_want_of_room(&error), "{error:?}");
            told += u32::from(matches!(error, Error::DiskFull { .. }));
            refused += 1;
            let troubles = cdc.troubles();
            assert!(env.now() - begun < PATIENCE, "write {n} is refused for ever: {error}; {troubles:?}");
            env.sleep(Duration::from_millis(20)).await;
        }
    }
    assert!(refused > 0 && told > 0, "the disk never ran full: {refused} refused, {told} told");
    tenant.settle().await.unwrap();
    let archived = cdc.project().object(root.id()).unwrap();
    assert!(archived.attached.is_none());
    assert_eq!(root.cursor().await.unwrap().sequence.get(), writes, "each once");
    cdc.shutdown(Deadline::secs(30)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_begins_on_a_full_disk_empties_it() {
    let Some(disk) = SmallDisk::mount(DISK_BYTES) else { return };
    let warehouse = tempfile::tempdir().unwrap();
    let folder = disk.path().join("project");
    std::fs::create_dir(&folder).unwrap();
    let env = Tokio::current();
    // Nothing is archived, so that nothing goes.
    let cdc = engine(&folder, warehouse.path(), 1 << 30).await.unwrap();
    let root = cdc.object(ROOT).open().await.unwrap();
    let mut written = 0;
    while emit(&root, written).await.is_ok() {
        written += 1;
    }
    drop((root, cdc));
    // Others take the rest, but for less than the ballast is.
    let mut others = std::fs::File::create(disk.path().join("others")).unwrap();
    for _ in 0..4 {
        drop(others.write_all(&vec![7; 1 << 20]));
    }
    let begun = env.now();
    // The one before ends when its drivers have.
    let cdc = loop {
        match engine(&folder, warehouse.path(), 100).await {
            Err(Error::InUse { .. }) if env.now() - begun < PATIENCE => {}
            opened => break opened.unwrap(),
        }
        env.sleep(Duration::from_millis(20)).await;
    };
    let in_time = |error: &Error| {
        assert!(is_for_want_of_room(error), "{error:?}");
        assert!(env.now() - begun < PATIENCE, "refused for ever: {error}; {:?}", cdc.troubles());
    };
    let root = loop {
        match cdc.object(ROOT).open().await {
            Ok(root) => break root,
            Err(error) => in_time(&error),
        }
        env.sleep(Duration::from_millis(100)).await;
    };
    while let Err(error) = emit(&root, written).await {
        in_time(&error);
        env.sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(root.cursor().await.unwrap().sequence.get(), written + 1, "each once");
    cdc.shutdown(Deadline::secs(30)).await.unwrap();
}
