//! More objects than may have their files open, and objects in trouble beside objects that are not.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use cdc::{
    AttachOptions, Cdc, Clock, Damage, Deadline, Env as _, Error, HandleSettings, Object, ObjectId, Project,
    Remedy, Settings, Tables, Tokio,
};
use rusqlite::{Connection, OpenFlags};

use crate::failures::until;
use crate::{CUSTOMERS, everything};

const ROOT: &str = "https://crm.headless.ly";

/// What an object in trouble may cost others: far less than the trouble lasts.
const SOON: Duration = Duration::from_secs(2);

async fn engine(folder: &Path, handles: HandleSettings) -> Cdc {
    let settings = Settings { handles, ..Settings::default() };
    Cdc::builder(folder).settings(settings).open().await.unwrap()
}

fn few(open_max: usize) -> HandleSettings {
    HandleSettings { open_max: Some(open_max), ..HandleSettings::default() }
}

async fn tenants(cdc: &Cdc, count: usize) -> (Object, Vec<Object>) {
    let root = cdc.object(ROOT).open().await.unwrap();
    let mut tenants = Vec::new();
    for n in 0..count {
        let tenant = cdc.object(format!("{ROOT}/{n}")).context(root.id());
        tenants.push(tenant.migrate(CUSTOMERS).capture(["customers"]).open().await.unwrap());
    }
    (root, tenants)
}

async fn insert(object: &Object, id: i64) -> cdc::Result<()> {
    let sql = "INSERT INTO customers VALUES (?1, 'Ada', 'free')";
    object.write(move |tx| Ok(tx.execute(sql, [id]).map(drop)?)).await
}

fn database(folder: &Path, id: &ObjectId) -> PathBuf {
    folder.join(cdc::object_folder(id)).join("object.db")
}

fn wal(database: &Path) -> PathBuf {
    let mut wal = database.as_os_str().to_owned();
    wal.push("-wal");
    wal.into()
}

#[tokio::test(flavor = "multi_thread")]
async fn more_objects_than_may_be_open_write_and_send_as_if_all_were() {
    let folder = tempfile::tempdir().unwrap();
    let cdc = engine(folder.path(), few(3)).await;
    let (root, tenants) = tenants(&cdc, 12).await;
    for round in 0..5 {
        let written = tenants.iter().map(|tenant| insert(tenant, round));
        for written in futures_util::future::join_all(written).await {
            written.unwrap();
        }
        // Sixteen jobs run side by side at most.
        assert!(cdc.open_files() <= 3 + 16, "{}", cdc.open_files());
    }
    cdc.quiet().await.unwrap();
    let customers = everything(&root).await.into_iter().filter(|record| !record.body.is_schema()).count();
    assert_eq!(customers, 12 * 5);
    // Another opening brings what is found to disk; opening again does not.
    cdc.shutdown(Deadline::secs(10)).await.unwrap();
    for tenant in &tenants {
        let log = Connection::open(database(folder.path(), tenant.id())).unwrap();
        let openings = "SELECT value FROM _cdc_counter WHERE name = 'openings'";
        assert_eq!(log.query_row(openings, [], |row| row.get::<_, u32>(0)).unwrap(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_object_after_the_other_keeps_the_limit() {
    let folder = tempfile::tempdir().unwrap();
    let cdc = engine(folder.path(), few(2)).await;
    let mut objects = Vec::new();
    for n in 0..6 {
        objects.push(cdc.object(format!("https://a.b/{n}")).migrate(CUSTOMERS).open().await.unwrap());
    }
    for object in objects.iter().chain(&objects) {
        object.cursor().await.unwrap();
        // Those before may have told their result and not be done with their turn.
        assert!(cdc.open_files() <= 4, "{}", cdc.open_files());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_nobody_uses_leaves_no_wal_and_is_there_when_it_is_used() {
    let folder = tempfile::tempdir().unwrap();
    let cdc = engine(folder.path(), HandleSettings { idle_ms: 100, ..HandleSettings::default() }).await;
    let object = cdc.object("https://a.b").migrate(CUSTOMERS).capture(["customers"]).open().await.unwrap();
    insert(&object, 1).await.unwrap();
    let wal = wal(&database(folder.path(), object.id()));
    until(async || cdc.open_files() == 0).await;
    assert!(!wal.exists());
    insert(&object, 2).await.unwrap();
    assert!(wal.exists());
    assert_eq!(object.cursor().await.unwrap().sequence.get(), 3, "a schema and two rows");
}

fn customers_in(database: &Path) -> rusqlite::Result<i64> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    Connection::open_with_flags(database, flags)?
        .query_row("SELECT count(*) FROM customers", [], |row| row.get(0))
}

/// An engine in which many objects have one row each and two may be open, and the databases of the objects.
async fn mostly_closed(folder: &Path) -> (Cdc, Vec<PathBuf>) {
    let cdc = engine(folder, few(2)).await;
    let mut databases = Vec::new();
    for n in 0..40 {
        let object = cdc.object(format!("https://a.b/{n}")).migrate(CUSTOMERS).capture(["customers"]);
        let object = object.open().await.unwrap();
        insert(&object, 1).await.unwrap();
        databases.push(database(folder, object.id()));
    }
    (cdc, databases)
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_shutdown_a_copy_of_a_database_file_has_all_rows_also_of_objects_closed_for_others() {
    let folder = tempfile::tempdir().unwrap();
    let (cdc, databases) = mostly_closed(folder.path()).await;
    assert!(databases.iter().filter(|database| wal(database).exists()).count() > 30);
    cdc.shutdown(Deadline::secs(60)).await.unwrap();
    for database in &databases {
        assert!(!wal(database).exists(), "{}", database.display());
        let copy = folder.path().join("copy.db");
        std::fs::copy(database, &copy).unwrap();
        assert_eq!(customers_in(&copy), Ok(1), "{}", database.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_without_time_leaves_write_ahead_logs_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (cdc, databases) = mostly_closed(folder.path()).await;
    cdc.shutdown(Deadline::millis(0)).await.unwrap();
    assert!(databases.iter().any(|database| wal(database).exists()));
    for database in &databases {
        assert_eq!(customers_in(database), Ok(1), "{}", database.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_put_in_the_place_of_a_closed_object_is_told_and_others_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let cdc = engine(folder.path(), HandleSettings { idle_ms: 100, ..HandleSettings::default() }).await;
    let object =
        async |id: &str| cdc.object(id).migrate(CUSTOMERS).capture(["customers"]).open().await.unwrap();
    let (older, removed, corrupt, sound) = (
        object("https://a.b/older").await,
        object("https://a.b/removed").await,
        object("https://a.b/corrupt").await,
        object("https://a.b/sound").await,
    );
    let path = |object: &Object| database(folder.path(), object.id());
    until(async || cdc.open_files() == 0).await;
    let copy = std::fs::read(path(&older)).unwrap();
    insert(&older, 1).await.unwrap();
    until(async || cdc.open_files() == 0).await;
    std::fs::write(path(&older), copy).unwrap();
    std::fs::remove_file(path(&removed)).unwrap();
    std::fs::write(path(&corrupt), [7; 8192]).unwrap();
    for (n, (object, why)) in (10..).zip([
        (&older, "it ends at 1 of epoch"),
        (&removed, "it was removed while it was closed"),
        (&corrupt, "is not a SQLite database"),
    ]) {
        let refused = insert(object, 2).await.unwrap_err();
        let (remedy, mut text) = (refused.remedy(), refused.to_string());
        if let Some(source) = std::error::Error::source(&refused) {
            text.push_str(&source.to_string());
        }
        assert!(text.contains(why), "{text}");
        assert_eq!(remedy, Remedy::Restore, "{text}");
        insert(&sound, n).await.unwrap();
    }
    assert!(!path(&removed).exists(), "nothing was made in its place");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_description_that_cannot_be_read_fails_alone_when_all_objects_are_opened() {
    let folder = tempfile::tempdir().unwrap();
    let cdc = engine(folder.path(), HandleSettings::default()).await;
    let (_, tenants) = tenants(&cdc, 5).await;
    let torn = folder.path().join(cdc::object_folder(tenants[3].id())).join("object.json");
    cdc.shutdown(Deadline::secs(10)).await.unwrap();
    std::fs::write(&torn, "{").unwrap();
    let cdc = engine(folder.path(), HandleSettings::default()).await;
    let cdc::Opening { opened, failed, unreadable } = cdc.open_all().await.unwrap();
    assert_eq!((opened, failed.len()), (5, 0), "the root and four tenants");
    assert!(matches!(&unreadable[..], [Error::Damaged { path, .. }] if *path == torn));
    assert!(matches!(cdc.project().verify(&Tokio::current(), None, false).await, Err(Error::Damaged { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corrupt_log_fails_alone_when_all_objects_are_opened() {
    let folder = tempfile::tempdir().unwrap();
    let cdc = engine(folder.path(), HandleSettings::default()).await;
    let (_, tenants) = tenants(&cdc, 5).await;
    let corrupt = tenants[3].id().clone();
    cdc.shutdown(Deadline::secs(10)).await.unwrap();
    std::fs::write(database(folder.path(), &corrupt), [7; 8192]).unwrap();
    let cdc = engine(folder.path(), HandleSettings::default()).await;
    let cdc::Opening { opened, failed, .. } = cdc.open_all().await.unwrap();
    assert_eq!(opened, 5, "the root and four tenants");
    assert_eq!(failed.len(), 1);
    assert!(
        matches!(&failed[0], (id, error) if *id == corrupt && error.remedy() == Remedy::Restore && error.damage() == Some(Damage::Log))
    );
}

fn attach(cdc: &Cdc, folder: &Path, name: &str) -> PathBuf {
    let database = folder.join(format!("{name}.db"));
    Connection::open(&database).unwrap().execute_batch(CUSTOMERS).unwrap();
    let options = AttachOptions {
        database: database.clone(),
        id: format!("{ROOT}/{name}").parse().unwrap(),
        context: Some(ROOT.parse().unwrap()),
        tables: Tables::All,
    };
    cdc.project().attach(&options, &Clock::system()).unwrap();
    database
}

/// Every write of the sound objects is done soon; gives the longest.
async fn assert_others_go_on(objects: &[Object], from: i64) {
    let env = Tokio::current();
    for (id, object) in (from..).zip(objects.iter().cycle().take(objects.len() * 5)) {
        let begun = env.now();
        insert(object, id).await.unwrap();
        object.flush().await.unwrap();
        let took = env.now().saturating_sub(begun);
        assert!(took < SOON, "a write beside an object in trouble took {took:?}");
    }
}

/// More databases than there are threads for blocking work are locked, one of them by another process.
#[tokio::test(flavor = "multi_thread")]
async fn long_transactions_of_applications_stall_their_own_objects_only() {
    const LOCKED: usize = 20;
    let folder = tempfile::tempdir().unwrap();
    let cdc = engine(folder.path(), HandleSettings::default()).await;
    let (root, tenants) = tenants(&cdc, 3).await;
    let mut databases = Vec::new();
    for n in 0..LOCKED {
        databases.push(attach(&cdc, folder.path(), &format!("locked-{n}")));
    }
    cdc.open_all().await.unwrap();
    cdc.quiet().await.unwrap();
    let lock = "BEGIN EXCLUSIVE; INSERT INTO customers VALUES (1, 'Ada', 'free')";
    let mut shell = Command::new("sqlite3").arg(&databases[0]).stdin(Stdio::piped()).spawn().unwrap();
    writeln!(shell.stdin.as_mut().unwrap(), ".timeout 5000\n{lock};").unwrap();
    let locked = |database: &PathBuf| {
        let read = Connection::open(database).unwrap().query_row("SELECT 1 FROM customers", [], |_| Ok(()));
        matches!(read, Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy))
    };
    until(async || locked(&databases[0])).await;
    let applications: Vec<_> =
        databases[1..].iter().map(|database| Connection::open(database).unwrap()).collect();
    for application in &applications {
        application.busy_timeout(Duration::from_secs(5)).unwrap();
        application.execute_batch(lock).unwrap();
    }
    assert_others_go_on(&tenants, 0).await;
    writeln!(shell.stdin.as_mut().unwrap(), "COMMIT;").unwrap();
    drop(shell.stdin.take());
    assert!(shell.wait().unwrap().success());
    applications.iter().for_each(|application| application.execute_batch("COMMIT").unwrap());
    let of_locked = async || {
        let records = everything(&root).await;
        let of_locked = |record: &&cdc::Record| record.origin.source().as_str().contains("/locked-");
        records.iter().filter(of_locked).filter(|record| !record.body.is_schema()).count()
    };
    until(async || of_locked().await == LOCKED).await;
    cdc.shutdown(Deadline::secs(10)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corrupt_user_database_is_named_and_left_alone_and_others_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let cdc = engine(folder.path(), HandleSettings::default()).await;
    let (_, tenants) = tenants(&cdc, 3).await;
    let database = attach(&cdc, folder.path(), "corrupt");
    let mut bytes = std::fs::read(&database).unwrap();
    let rotten = bytes.len() - bytes.len() / 2;
    bytes[100..rotten].fill(0xa5);
    std::fs::write(&database, &bytes).unwrap();
    let cdc::Opening { failed, .. } = cdc.open_all().await.unwrap();
    assert_others_go_on(&tenants, 0).await;
    let troubles = cdc.troubles();
    let is_it = |id: &ObjectId, damage| id.as_str().ends_with("/corrupt") && damage == Some(Damage::Database);
    let named = troubles.iter().any(|(id, trouble)| is_it(id, trouble.damage) && trouble.what == "drain")
        || failed.iter().any(|(id, error)| is_it(id, error.damage()));
    assert!(named, "{troubles:?} {failed:?}");
    assert_eq!(std::fs::read(&database).unwrap(), bytes, "nothing of ours was written to it");
    drop(cdc);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_captured_leaves_also_when_its_database_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let cdc = engine(folder.path(), HandleSettings::default()).await;
    let (root, _) = tenants(&cdc, 0).await;
    let database = attach(&cdc, folder.path(), "gone");
    Connection::open(&database)
        .unwrap()
        .execute("INSERT INTO customers VALUES (1, 'Ada', 'free')", [])
        .unwrap();
    drop(root);
    cdc.shutdown(Deadline::secs(10)).await.unwrap();
    // It is drained, and nobody has sent it so far.
    let id: ObjectId = format!("{ROOT}/gone").parse().unwrap();
    let project = Project::open(folder.path(), Settings::default()).unwrap();
    let mut backfill = project.backfill(&id, &Clock::system()).unwrap();
    while backfill.step().unwrap().is_some() {}
    drop(backfill);
    std::fs::remove_file(&database).unwrap();

    let cdc = engine(folder.path(), HandleSettings::default()).await;
    let root = cdc.object(ROOT).open().await.unwrap();
    let cdc::Opening { failed, .. } = cdc.open_all().await.unwrap();
    assert!(failed.is_empty(), "{failed:?}");
    until(async || everything(&root).await.iter().any(|record| record.origin.source() == &id)).await;
    until(async || cdc.troubles().iter().any(|(at, trouble)| *at == id && trouble.what == "drain")).await;
    assert!(!database.exists(), "nothing was made in its place");
    let told = cdc.shutdown(Deadline::secs(10)).await;
    assert!(matches!(&told, Err(Error::Stopped { id: at, what: "drain", .. }) if *at == id), "{told:?}");
}
