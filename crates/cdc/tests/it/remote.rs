//! Parents in other processes: two engines over real sockets, children in the one and their root in the other.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use cdc::{
    ArchiveSettings, Cdc, Deadline, Env as _, Error, HttpError, LinkOptions, Object, ObjectId, Project,
    Record, Remedy, Settings, Tokio,
};

use cdc_net::{Call, Request, Transport, TransportError};
use tokio::sync::watch;

use crate::{CUSTOMERS, everything};

const ROOT: &str = "https://crm.headless.ly";

fn root_id() -> ObjectId {
    ROOT.parse().unwrap()
}

/// Short pauses, so that a test does not wait for what a person would.
fn link() -> LinkOptions {
    LinkOptions {
        backoff_base_ms: 10,
        backoff_max_ms: 100,
        breaker_pause_ms: 100,
        answer_timeout_ms: 5_000,
        ..LinkOptions::default()
    }
}

/// An address at which nobody listens.
async fn free_port() -> SocketAddr {
    let (listener, address) = Tokio::current().listen((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap();
    drop(listener);
    address
}

/// The process of the root, which archives.
async fn upper(folder: &Path, address: SocketAddr) -> (Cdc, Object) {
    let archive = ArchiveSettings { interval_ms: 50, ..ArchiveSettings::new("file:./warehouse") };
    let settings = Settings { link: link(), archive: Some(archive), ..Settings::default() };
    let cdc = Cdc::builder(folder).settings(settings).open().await.unwrap();
    let root = cdc.object(ROOT).open().await.unwrap();
    assert_eq!(cdc.listen(address).await.unwrap(), address);
    (cdc, root)
}

fn lower_settings(address: SocketAddr) -> Settings {
    Settings { link: link(), remotes: [(root_id(), address)].into(), ..Settings::default() }
}

/// The process of two children.
async fn lower(folder: &Path, address: SocketAddr) -> (Cdc, Vec<Object>) {
    let cdc = Cdc::builder(folder).settings(lower_settings(address)).open().await.unwrap();
    let mut children = Vec::new();
    for name in ["acme", "globex"] {
        let child = cdc.object(format!("{ROOT}/{name}")).context(&root_id());
        children.push(child.migrate(CUSTOMERS).capture(["customers"]).open().await.unwrap());
    }
    (cdc, children)
}

async fn insert(object: &Object, ids: std::ops::Range<i64>) {
    let write = object.write(move |tx| {
        for id in ids {
            tx.execute("INSERT INTO customers VALUES (?1, 'Ada', 'free')", [id])?;
        }
        Ok(())
    });
    write.await.unwrap();
}

/// The root holds exactly what its children say happened, in their order.
async fn check_root(root: &Object, children: &[Object]) {
    let held = everything(root).await;
    let place = |record: &Record| (record.origin_sequence, record.id(), record.body.clone());
    for child in children {
        let theirs: Vec<_> = held.iter().filter(|r| r.origin.source() == child.id()).map(place).collect();
        let own: Vec<_> = everything(child).await.iter().map(place).collect();
        assert_eq!(theirs, own, "{}", child.id());
    }
}

/// Why links wait, each reason once.
fn waiting(cdc: &Cdc) -> Vec<String> {
    let mut reasons: Vec<_> = cdc
        .troubles()
        .into_iter()
        .map(|(_, trouble)| {
            assert_eq!((trouble.what, trouble.remedy), ("link", Remedy::Retry), "{}", trouble.reason);
            trouble.reason
        })
        .collect();
    reasons.dedup();
    reasons
}

async fn until(mut holds: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if holds() {
            return;
        }
        Tokio::current().sleep(Duration::from_millis(10)).await;
    }
    panic!("it did not come true within 10 s");
}

async fn differences(folder: &Path, settings: Settings) -> Vec<(String, Option<String>, u64)> {
    let project = Project::open(folder, settings).unwrap();
    let verified = project.verify(&Tokio::current(), None, true).await.unwrap();
    verified.into_iter().map(|(id, done)| (id.short().to_owned(), done.difference, done.under_way)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn events_reach_a_root_in_another_process_once_and_in_order_through_its_restarts() {
    let (above, below) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let address = free_port().await;
    let (mut parent, mut root) = upper(above.path(), address).await;
    let (cdc, children) = lower(below.path(), address).await;
    for round in 0..3_i64 {
        for child in &children {
            insert(child, round * 1000..round * 1000 + 300).await;
        }
        // It goes away in the middle of that, and comes back at the same address.
        parent.stop().await;
        drop((parent, root));
        for child in &children {
            insert(child, round * 1000 + 300..round * 1000 + 400).await;
        }
        let settling = futures_util::future::join_all(children.iter().map(Object::settle));
        let back = async {
            until(|| waiting(&cdc).len() == 1).await;
            upper(above.path(), address).await
        };
        let (settled, back) = tokio::join!(settling, back);
        (parent, root) = back;
        settled.into_iter().collect::<Result<Vec<()>, _>>().unwrap();
        let archived = root.reader().await.unwrap().archive_status().await.unwrap().unwrap();
        assert_eq!(archived.watermark.unwrap().sequence, root.cursor().await.unwrap().sequence);
        for child in &children {
            assert_eq!(child.settled(), child.cursor().await.unwrap().sequence);
        }
        check_root(&root, &children).await;
        assert!(waiting(&cdc).is_empty());
    }
    let ids: Vec<_> = children.iter().map(|child| child.id().short().to_owned()).collect();
    drop(children);
    cdc.shutdown(Deadline::secs(10)).await.unwrap();
    parent.shutdown(Deadline::secs(10)).await.unwrap();
    let nothing = |id: &String| (id.clone(), None, 0);
    assert_eq!(
        differences(below.path(), lower_settings(address)).await,
        ids.iter().map(nothing).collect::<Vec<_>>()
    );
    let archived =
        Settings { archive: Some(ArchiveSettings::new("file:./warehouse")), ..Settings::default() };
    assert_eq!(differences(above.path(), archived).await, [("crm.headless.ly".to_owned(), None, 0)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_writes_on_while_its_parents_process_is_not_there_and_catches_up() {
    let (above, below) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let address = free_port().await;
    let (cdc, children) = lower(below.path(), address).await;
    insert(&children[0], 0..50).await;
    until(|| !waiting(&cdc).is_empty()).await;
    let reason = waiting(&cdc).remove(0);
    assert!(reason.starts_with(&format!("{ROOT} is not reachable: {address}: ")), "{reason}");
    // Whoever asks for an end is told at once; whoever waits goes on waiting.
    let refused = cdc.quiet().await.unwrap_err();
    assert!(matches!(&refused, Error::Waiting { what: "link", .. }), "{refused}");
    assert_eq!(refused.remedy(), Remedy::Retry);
    let env = Tokio::current();
    let late = tokio::select! {
        biased;
        settled = children[0].settle() => Some(settled),
        () = env.sleep(Duration::from_millis(300)) => None,
    };
    assert!(late.is_none(), "{late:?}");
    insert(&children[0], 50..100).await;
    let found = differences(below.path(), lower_settings(address)).await;
    assert_eq!(found[0], ("crm.headless.ly/acme".to_owned(), None, 101));
    drop(children);
    let left = cdc.shutdown(Deadline::secs(10)).await.unwrap_err();
    assert!(matches!(&left, Error::Waiting { .. }), "{left}");

    let (cdc, children) = lower(below.path(), address).await;
    let (parent, root) = upper(above.path(), address).await;
    children[0].settle().await.unwrap();
    cdc.quiet().await.unwrap();
    assert!(waiting(&cdc).is_empty());
    check_root(&root, &children).await;
    drop((root, children));
    cdc.shutdown(Deadline::secs(10)).await.unwrap();
    parent.shutdown(Deadline::secs(10)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_does_not_serve_the_parent_yet_is_asked_again() {
    let (above, below) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let other = Cdc::builder(above.path()).settings(Settings { link: link(), ..Settings::default() });
    let other = other.open().await.unwrap();
    other.object("https://startups.studio").open().await.unwrap();
    let address = other.listen((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap();
    let (cdc, children) = lower(below.path(), address).await;
    insert(&children[0], 0..5).await;
    let expected = format!("{ROOT} is not reachable: {address} does not serve it, or not yet");
    until(|| waiting(&cdc) == [expected.as_str()]).await;
    let root = other.object(ROOT).open().await.unwrap();
    children[0].flush().await.unwrap();
    until(|| waiting(&cdc).is_empty()).await;
    check_root(&root, &children[..1]).await;
    cdc.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_a_parent_at_all_is_told_in_words_and_asked_again() {
    let below = tempfile::tempdir().unwrap();
    let env = Tokio::current();
    let (mut listener, address) = env.listen((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap();
    let (calls, mut called) = tokio::sync::mpsc::unbounded_channel();
    let ours = env.clone();
    env.spawn(async move {
        // Takes connections and ends them.
        while ours.accept(&mut listener).await.is_ok() && calls.send(()).is_ok() {}
    });
    let (cdc, children) = lower(below.path(), address).await;
    insert(&children[0], 0..5).await;
    until(|| !waiting(&cdc).is_empty()).await;
    for _ in 0..4 {
        called.recv().await.unwrap();
    }
    assert!(!waiting(&cdc).is_empty());
    cdc.stop().await;
}

/// Answers every request with the same failure, and counts them.
#[derive(Debug)]
struct Refusing(watch::Sender<u32>);

impl Transport for Refusing {
    fn call(&self, to: &ObjectId, _request: Request) -> Call {
        self.0.send_modify(|calls| *calls += 1);
        let refused =
            TransportError::Refused { object: to.clone(), reason: "more than 10000 records".to_owned() };
        Box::pin(async { Err(refused) })
    }
}

/// Counts the warnings about one object, of the whole process: what one thread alone listens to, others can switch off.
#[derive(Clone, Debug)]
struct Warnings {
    object: String,
    count: Arc<AtomicU32>,
}

impl tracing::field::Visit for Warnings {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        if field.name() == "object" && format!("{value:?}") == self.object {
            self.count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl tracing::Subscriber for Warnings {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::WARN
    }

    fn new_span(&self, _span: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _span: &tracing::span::Id, _values: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _span: &tracing::span::Id, _follows: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut self.clone());
    }

    fn enter(&self, _span: &tracing::span::Id) {}

    fn exit(&self, _span: &tracing::span::Id) {}
}

#[tokio::test]
async fn why_a_request_is_not_taken_is_told_once_and_not_at_every_try() {
    let below = tempfile::tempdir().unwrap();
    let (calls, mut called) = watch::channel(0);
    let builder = Cdc::builder(below.path()).settings(lower_settings("127.0.0.1:1".parse().unwrap()));
    let cdc = builder.transport(Arc::new(Refusing(calls))).open().await.unwrap();
    let object = format!("{ROOT}/refused");
    let warnings = Warnings { object: object.clone(), count: Arc::default() };
    tracing::subscriber::set_global_default(warnings.clone()).unwrap();
    cdc.object(object).context(&root_id()).open().await.unwrap();
    called.wait_for(|calls| *calls >= 5).await.unwrap();
    assert_eq!(waiting(&cdc), [format!("the request to {ROOT} was not taken: more than 10000 records")]);
    assert_eq!(warnings.count.load(Ordering::Relaxed), 1);
    cdc.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_other_machines_reach_is_refused_and_so_is_one_that_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let settings = lower_settings("192.0.2.1:7410".parse().unwrap());
    let refused = Cdc::builder(folder.path()).settings(settings).open().await.unwrap_err();
    assert!(matches!(refused, Error::Http(HttpError::NotLoopback { .. })), "{refused}");

    let cdc = Cdc::builder(folder.path()).open().await.unwrap();
    let refused = cdc.listen("0.0.0.0:0".parse().unwrap()).await.unwrap_err();
    assert!(matches!(refused, Error::Http(HttpError::NotLoopback { .. })), "{refused}");
    let address = cdc.listen((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap();
    let taken = cdc.listen(address).await.unwrap_err();
    assert!(matches!(taken, Error::Http(HttpError::Listen { .. })), "{taken}");
    cdc.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_of_another_process_is_not_made_or_opened_here() {
    let folder = tempfile::tempdir().unwrap();
    let cdc = Cdc::builder(folder.path()).open().await.unwrap();
    cdc.object(ROOT).open().await.unwrap();
    cdc.stop().await;
    drop(cdc);
    let address = free_port().await;
    // It was here before it moved there.
    let (cdc, _children) = lower(folder.path(), address).await;
    for id in [ROOT.to_owned(), format!("{ROOT}/acme")] {
        let is_elsewhere = matches!(cdc.object(&id).open().await, Err(Error::Elsewhere { .. }));
        assert_eq!(is_elsewhere, id == ROOT, "{id}");
    }
    let fresh = tempfile::tempdir().unwrap();
    let project = Project::open(fresh.path(), lower_settings(address)).unwrap();
    assert!(matches!(project.create(&root_id(), None), Err(Error::Elsewhere { .. })));
    assert!(project.create(&format!("{ROOT}/acme").parse().unwrap(), Some(&root_id())).unwrap());
    cdc.stop().await;
}
