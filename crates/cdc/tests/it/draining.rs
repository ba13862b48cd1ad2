//! Draining and trimming of an application's database beside the application.
#![expect(
    clippy::disallowed_methods,
    reason = "the applications that write beside the engine are not its tasks"
)]

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cdc::{
    AttachOptions, AuditSettings, CaptureSettings, Cdc, Clock, Env, Error, Object, ObjectId, Settings,
    Tables, Tokio, Trim,
};
use cdc_model::Entropy;
use cdc_net::{FolderWatch, Watch};
use rusqlite::Connection;
use tempfile::TempDir;

use crate::failures::{Stop, until};

/// An application's database with an empty table, not attached yet.
fn app(folder: &Path) -> (PathBuf, Connection) {
    let database = folder.join("app.db");
    let app = Connection::open(&database).unwrap();
    app.execute_batch("PRAGMA journal_mode = wal; CREATE TABLE t(id INTEGER PRIMARY KEY)").unwrap();
    app.busy_timeout(Duration::from_secs(5)).unwrap();
    (database, app)
}

/// Attaches and opens it as an object without a parent.
async fn attach<E: Env>(cdc: &Cdc<E>, database: PathBuf) -> Object<E> {
    let id: ObjectId = "https://local/app".parse().unwrap();
    let options = AttachOptions { database, id: id.clone(), context: None, tables: Tables::All };
    cdc.project().attach(&options, &Clock::system()).unwrap();
    cdc.object(id.as_str()).open().await.unwrap()
}

fn insert(app: &Connection, rows: u32) {
    let sql = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < ?1) INSERT INTO t SELECT NULL FROM n";
    app.execute(sql, [rows]).unwrap();
}

fn captured(app: &Connection) -> i64 {
    app.query_row("SELECT count(*) FROM _cdc_capture", [], |row| row.get(0)).unwrap()
}

/// The production environment, in which an application commits between a trim and the next look at the files.
#[derive(Clone)]
struct CommitsAfterTrim {
    tokio: Tokio,
    app: Arc<Mutex<Application>>,
}

/// Commits once its captured rows have become fewer.
struct Application {
    conn: Connection,
    captured: i64,
    has_committed: bool,
}

impl Application {
    fn commit_after_trim(&mut self) {
        if self.captured > 0 && !self.has_committed && captured(&self.conn) < self.captured {
            insert(&self.conn, 1);
            self.has_committed = true;
        }
    }
}

struct WatchAfterTrim {
    files: FolderWatch,
    app: Arc<Mutex<Application>>,
}

impl Watch for WatchAfterTrim {
    type State = <FolderWatch as Watch>::State;

    fn state(&mut self) -> Self::State {
        self.app.lock().unwrap().commit_after_trim();
        self.files.state()
    }

    fn changed(&mut self) -> impl Future<Output = ()> + Send {
        self.files.changed()
    }
}

impl Env for CommitsAfterTrim {
    type Conn = <Tokio as Env>::Conn;
    type Listener = <Tokio as Env>::Listener;
    type Watch = WatchAfterTrim;

    fn now(&self) -> Duration {
        self.tokio.now()
    }

    fn clock(&self) -> Clock {
        self.tokio.clock()
    }

    fn entropy(&self) -> Entropy {
        self.tokio.entropy()
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send {
        self.tokio.sleep(duration)
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tokio.spawn(task);
    }

    fn blocking(&self, job: impl FnOnce() + Send + 'static) {
        self.tokio.blocking(job);
    }

    async fn listen(&self, address: SocketAddr) -> io::Result<(Self::Listener, SocketAddr)> {
        self.tokio.listen(address).await
    }

    async fn accept(&self, listener: &mut Self::Listener) -> io::Result<(Self::Conn, SocketAddr)> {
        self.tokio.accept(listener).await
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<Self::Conn> {
        self.tokio.connect(address).await
    }

    fn watch(&self, database: &Path) -> WatchAfterTrim {
        WatchAfterTrim { files: self.tokio.watch(database), app: Arc::clone(&self.app) }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_committed_during_a_trim_is_drained_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let (database, conn) = app(folder.path());
    let app = Arc::new(Mutex::new(Application { conn, captured: 0, has_committed: false }));
    let env = CommitsAfterTrim { tokio: Tokio::current(), app: Arc::clone(&app) };
    // An audit would drain it, too.
    let audit = AuditSettings { interval_ms: 0, ..AuditSettings::default() };
    let settings = Settings { audit, ..Settings::default() };
    let cdc = Cdc::builder_in(folder.path(), env).settings(settings).open().await.unwrap();
    let object = attach(&cdc, database).await;
    {
        let mut app = app.lock().unwrap();
        insert(&app.conn, 600);
        app.captured = captured(&app.conn);
    }
    until(async || app.lock().unwrap().has_committed).await;
    // The shape of the table, 600 rows, and one more.
    until(async || object.cursor().await.unwrap().sequence.get() == 602).await;
    cdc.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_is_held_for_long_is_told_and_nobody_waits_for_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let (database, app) = app(folder.path());
    app.execute_batch("PRAGMA journal_mode = delete").unwrap();
    let cdc = Cdc::builder(folder.path()).open().await.unwrap();
    let object = attach(&cdc, database).await;
    cdc.quiet().await.unwrap();
    app.execute_batch("PRAGMA locking_mode = exclusive").unwrap();
    insert(&app, 1);
    let late = Tokio::current();
    let quiet =
        tokio::select! { quiet = cdc.quiet() => quiet, () = late.sleep(Duration::from_secs(20)) => Ok(()) };
    let told = quiet.unwrap_err();
    assert!(matches!(&told, Error::Waiting { what: "drain", .. }), "{told}");
    assert!(told.to_string().contains("app.db has been locked for more than 5 s"), "{told}");
    app.execute_batch("PRAGMA locking_mode = normal; SELECT count(*) FROM t").unwrap();
    until(async || cdc.troubles().is_empty()).await;
    // The shape of the table, and its row.
    assert_eq!(object.cursor().await.unwrap().sequence.get(), 2);
    cdc.stop().await;
}

fn trimming(trim: Trim) -> Settings {
    Settings { capture: CaptureSettings { trim }, ..Settings::default() }
}

/// An engine beside an application that commits all the time, with a busy timeout.
struct Steady {
    cdc: Cdc,
    /// Looks into the application's database.
    reader: Connection,
    stop: Stop,
    writer: tokio::task::JoinHandle<u32>,
    _folder: TempDir,
}

impl Steady {
    async fn begin(trim: Trim) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (database, app) = app(folder.path());
        let cdc = Cdc::builder(folder.path()).settings(trimming(trim)).open().await.unwrap();
        attach(&cdc, database.clone()).await;
        let (stop, reader) = (Stop::default(), Connection::open(database).unwrap());
        let stopped = Arc::clone(&stop.0);
        let writer = tokio::task::spawn_blocking(move || {
            let mut commits = 0;
            while !stopped.load(Ordering::Relaxed) {
                insert(&app, 50);
                commits += 1;
                std::thread::sleep(Duration::from_millis(2));
            }
            commits
        });
        Self { cdc, reader, stop, writer, _folder: folder }
    }

    /// How many rows were captured so far, and how many of them are there.
    fn rows(&self) -> (i64, i64) {
        let sql = "SELECT max(seq), count(*) FROM _cdc_capture";
        self.reader.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
    }

    async fn end(self) {
        drop(self.stop);
        assert!(self.writer.await.unwrap() > 0);
        self.cdc.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn drained_rows_go_beside_a_steady_writer_who_sees_no_error_if_they_are_to_and_else_stay() {
    let always = Steady::begin(Trim::Always).await;
    let never = Steady::begin(Trim::Never).await;
    until(async || {
        let (captured, there) = always.rows();
        captured > 10_000 && there < captured / 2
    })
    .await;
    until(async || never.rows().0 > 5000).await;
    let (captured, there) = never.rows();
    assert_eq!(there, captured);
    always.end().await;
    never.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_drained_rows_that_wait_for_the_application_to_rest_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let (database, app) = app(folder.path());
    let cdc = Cdc::builder(folder.path()).open().await.unwrap();
    attach(&cdc, database).await;
    insert(&app, 300);
    cdc.quiet().await.unwrap();
    // Counts for as many rows as positions.
    app.execute("INSERT INTO _cdc_capture(seq, ts, op, tbl, nonce) VALUES (2000000, 0, 'B', 0, 7)", [])
        .unwrap();
    let told = async || {
        let mut told = cdc.troubles().into_iter().map(|(_, trouble)| trouble);
        told.find(|trouble| trouble.what == "trim")
    };
    until(async || told().await.is_some_and(|trouble| trouble.reason.contains("trim = \"always\""))).await;
    until(async || captured(&app) == 1 && told().await.is_none()).await;
    cdc.stop().await;
}
