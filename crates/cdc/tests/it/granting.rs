//! A parent grants the epoch of a restored child, asked from another process.

use std::net::Ipv4Addr;
use std::path::Path;

use cdc::{Cdc, Deadline, Error, ObjectId, Tokio};
use cdc_log::Log;
use cdc_model::{Answer, Clock, Epoch, Mark, Position, Refusal, Sequence};
use cdc_net::{Http, HttpOptions, Reach, Request, Transport as _};
use cdc_relay::GrantRequest;

use crate::CUSTOMERS;

const ROOT: &str = "https://a.b";
const CHILD: &str = "https://a.b/c";

fn id(text: &str) -> ObjectId {
    text.parse().unwrap()
}

fn log(folder: &Path, object: &str) -> Log {
    let file = folder.join(cdc::object_folder(&id(object))).join("object.db");
    Log::open(file, &id(object), &Clock::system()).unwrap()
}

/// Asks the root over a socket.
async fn ask(cdc: &Cdc, request: &GrantRequest) -> Answer {
    let address = cdc.listen((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap();
    let http = Http::new(Tokio::current(), Reach::Loopback, HttpOptions::default());
    http.set_endpoint(id(ROOT), address).unwrap();
    http.call(&id(ROOT), Request::Grant(request.clone())).await.unwrap()
}

/// Writes five rows at the child, up to the root's disk.
async fn begin(folder: &Path) {
    let cdc = Cdc::builder(folder).open().await.unwrap();
    let root = cdc.object(ROOT).open().await.unwrap();
    let child = cdc.object(CHILD).context(root.id()).migrate(CUSTOMERS).capture(["customers"]);
    let child = child.open().await.unwrap();
    let rows = "INSERT INTO customers(name) VALUES ('a'), ('b'), ('c'), ('d'), ('e')";
    child.write(move |tx| Ok(tx.execute_batch(rows)?)).await.unwrap();
    child.flush().await.unwrap();
    cdc.shutdown(Deadline::secs(10)).await.unwrap();
}

/// What the child's log says, and a request for the epoch after its own.
fn request(folder: &Path) -> (Position, GrantRequest) {
    let (head, ended) = {
        let log = log(folder, CHILD);
        (log.tail(), log.epoch())
    };
    (head, GrantRequest { sender: id(CHILD), ended, head, nonce: 77 })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_granted_epoch_begins_at_the_mark_is_durable_and_fences_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    begin(folder.path()).await;
    let (head, asked) = request(folder.path());
    let granted = Mark::at(Epoch { number: asked.ended.number + 1, nonce: 77 }, head);
    // A repeat gives the same, and so does a process that was started anew.
    for _ in 0..2 {
        let cdc = Cdc::builder(folder.path()).open().await.unwrap();
        cdc.object(ROOT).open().await.unwrap();
        for _ in 0..2 {
            let answer = ask(&cdc, &asked).await;
            assert_eq!((answer.mark, answer.refusal), (Some(granted), None));
        }
        cdc.stop().await;
    }
    let cdc = Cdc::builder(folder.path()).open().await.unwrap();
    let child = cdc.object(CHILD).open().await.unwrap();
    child.write(|tx| Ok(tx.execute_batch("INSERT INTO customers(name) VALUES ('late')")?)).await.unwrap();
    let fenced = child.flush().await.unwrap_err();
    assert!(matches!(&fenced, Error::Stopped { what: "link", .. }), "{fenced}");
    let reason = format!("epoch {} has ended, the receiver knows {}", asked.ended, granted.epoch);
    assert!(fenced.to_string().ends_with(&reason), "{fenced}");
    cdc.stop().await;
    assert_eq!(log(folder.path(), ROOT).counter("granted").unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_ends_before_the_mark_or_is_not_known_gets_no_epoch_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    begin(folder.path()).await;
    let (head, asked) = request(folder.path());
    let cdc = Cdc::builder(folder.path()).open().await.unwrap();
    cdc.object(ROOT).open().await.unwrap();
    let before = Position { sequence: Sequence::new(1), ..head };
    let refused = ask(&cdc, &GrantRequest { head: before, ..asked.clone() }).await;
    assert_eq!(refused.refusal, Some(Refusal::NotAtMark { after: before.sequence, mark: head.sequence }));
    assert_eq!(refused.mark, Some(Mark::at(asked.ended, head)));
    let stranger = ask(&cdc, &GrantRequest { sender: id("https://x.y"), ..asked }).await;
    assert_eq!(stranger.refusal, Some(Refusal::ParentLostState { after: head.sequence }));
    let child = cdc.object(CHILD).open().await.unwrap();
    child.write(|tx| Ok(tx.execute_batch("INSERT INTO customers(name) VALUES ('f')")?)).await.unwrap();
    child.flush().await.unwrap();
    cdc.shutdown(Deadline::secs(10)).await.unwrap();
    let log = log(folder.path(), ROOT);
    assert_eq!((log.counter("granted").unwrap(), log.counter("not-granted").unwrap()), (0, 2));
}
