use std::sync::{Arc, Mutex};
use std::time::Duration;

use cdc_model::{Position, Record, Refusal, Sequence};
use cdc_net::{Http, HttpOptions, Reach, Request, Tokio, Transport, TransportError};
use cdc_relay::{Action, Cutter, Hello, LinkOptions, Outbound, Sender, Setup, Stop};

use crate::parent::{Parent, Served, in_process};
use crate::{EPOCH, batch, child, id, log, parent_id, tail};

/// A child with its log, on a clock that moves when there is nothing else to do.
struct Child<'a> {
    log: &'a [Record],
    sender: Sender,
    now: Duration,
    failures: u32,
}

impl<'a> Child<'a> {
    fn new(log: &'a [Record], session: u64) -> Self {
        let setup = Setup {
            id: child(),
            receiver: parent_id(),
            epoch: EPOCH,
            options: LinkOptions::default(),
            link: Outbound::NEW,
            tail: tail(log),
            floor: Sequence::new(1),
            session,
        };
        Self { log, sender: Sender::new(setup).unwrap(), now: Duration::ZERO, failures: 0 }
    }

    /// One step; `None` when there is nothing to do before time goes on.
    async fn step(&mut self, transport: &dyn Transport) -> Result<(), Stop> {
        match self.sender.poll(self.now) {
            Action::Save { request, .. } => self.sender.handle_saved(request),
            Action::Cut { request, cut } => {
                let mut cutter = Cutter::new(cut);
                for row in self.log {
                    if row.sequence > cutter.position().sequence
                        && cutter.push(row.clone()).unwrap().is_break()
                    {
                        break;
                    }
                }
                self.sender.handle_batch_cut(self.now, request, cutter.finish());
            }
            Action::Compare { request, at } => {
                let upto = self.log.iter().take_while(|row| row.sequence <= at);
                let digest = upto.fold(Position::START.digest, |before, row| row.digest(before));
                self.sender.handle_digest(self.now, request, Some(digest));
            }
            Action::Handshake { request, hello } => {
                self.ask(transport, request, Request::Hello(hello)).await;
            }
            Action::Send { request, batch } => self.ask(transport, request, Request::Batch(batch)).await,
            Action::Wait(until) => self.now = until,
            Action::Idle => self.sender.flush(),
            Action::Stopped(stop) => return Err(stop),
        }
        Ok(())
    }

    async fn ask(&mut self, transport: &dyn Transport, request: cdc_relay::RequestId, what: Request) {
        match transport.call(&parent_id(), what).await {
            Ok(answer) => self.sender.handle_answer(self.now, request, answer),
            Err(_) => {
                self.failures += 1;
                self.sender.handle_failure(self.now, request);
            }
        }
    }

    async fn until_acked(&mut self, sequence: u64, transport: &dyn Transport) -> Result<(), Stop> {
        while self.sender.acked().sequence < Sequence::new(sequence) {
            self.step(transport).await?;
        }
        Ok(())
    }
}

fn http(env: &Tokio, served: &Served) -> Http<Tokio> {
    let http = Http::new(env.clone(), Reach::Loopback, HttpOptions::default());
    http.set_endpoint(parent_id(), served.address).unwrap();
    http
}

fn assert_same(parent: &Mutex<Parent>, log: &[Record]) {
    assert!(parent.lock().unwrap().rows == log, "the parent's rows are the child's");
}

#[tokio::test]
async fn a_link_through_sockets_takes_every_row_once_over_one_connection() {
    let (env, parent, log) = (Tokio::current(), Parent::new(), log(1234));
    let served = Served::start(&env, "127.0.0.1:0", &parent).await;
    let http = http(&env, &served);
    let mut child = Child::new(&log, u64::MAX);
    child.until_acked(1234, &http).await.unwrap();
    assert_same(&parent, &log);
    assert_eq!((http.connections_opened(), child.failures), (1, 0));
    assert_eq!(child.sender.ancestors(), [parent_id(), id("https://headless.ly")]);
    assert_eq!(child.sender.settled(), Sequence::new(1234));
    served.stop().await;
}

#[tokio::test]
async fn a_server_that_restarts_in_the_middle_costs_a_retry_and_no_row() {
    let (env, parent, log) = (Tokio::current(), Parent::new(), log(1000));
    let served = Served::start(&env, "127.0.0.1:0", &parent).await;
    let (http, address) = (http(&env, &served), served.address.to_string());
    let mut child = Child::new(&log, u64::MAX);
    child.until_acked(300, &http).await.unwrap();
    served.stop().await;
    while child.failures == 0 {
        child.step(&http).await.unwrap();
    }
    let served = Served::start(&env, &address, &parent).await;
    child.until_acked(1000, &http).await.unwrap();
    assert_same(&parent, &log);
    assert_eq!(http.connections_opened(), 2);
    served.stop().await;
}

#[tokio::test]
async fn a_refusal_crosses_with_its_type_and_stops_the_link() {
    let (env, parent, log) = (Tokio::current(), Parent::new(), log(10));
    let served = Served::start(&env, "127.0.0.1:0", &parent).await;
    let http = http(&env, &served);
    let (mut first, mut second) = (Child::new(&log, 1), Child::new(&log, 2));
    first.until_acked(10, &http).await.unwrap();
    // A second sender of the same log and generation is a clone.
    let stop = second.until_acked(10, &http).await.unwrap_err();
    assert_eq!(stop, Stop::Refused(Refusal::Superseded { generation: 1, current: 1 }));
    served.stop().await;
}

#[tokio::test]
async fn an_object_that_is_not_served_yet_is_unreachable_and_tried_again() {
    let (env, parent, log) = (Tokio::current(), Parent::new(), log(5));
    let served = Served::start(&env, "127.0.0.1:0", &parent).await;
    let http = http(&env, &served);
    let absent = id("https://absent.test");
    let call = http.call(&absent, Request::Batch(batch(log.clone()))).await;
    let reason = "its address is not known".to_owned();
    assert_eq!(call, Err(TransportError::Unreachable { object: absent.clone(), reason }));
    assert_eq!(http.connections_opened(), 0);
    http.set_endpoint(absent.clone(), served.address).unwrap();
    let call = http.call(&absent, Request::Batch(batch(log.clone()))).await;
    let reason = format!("{} does not serve it, or not yet", served.address);
    assert_eq!(call, Err(TransportError::Unreachable { object: absent, reason }));
    assert_eq!(http.connections_opened(), 1);
    served.stop().await;
}

#[tokio::test]
async fn many_calls_at_once_share_one_connection_and_dropped_ones_do_not_break_it() {
    let (env, parent) = (Tokio::current(), Parent::new());
    let served = Served::start(&env, "127.0.0.1:0", &parent).await;
    let http = Arc::new(http(&env, &served));
    let hello = |generation| {
        Request::Hello(Hello {
            sender: child(),
            generation,
            session: generation,
            epoch: EPOCH,
            acked: Sequence::ZERO,
            tail: Position::START,
            floor: Sequence::new(1),
        })
    };
    http.call(&parent_id(), hello(1)).await.unwrap();
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..1000 {
        calls.spawn(http.call(&parent_id(), hello(1)));
        let dropped = http.call(&parent_id(), Request::Batch(batch(log(100))));
        calls.spawn(dropped).abort();
    }
    let mut answered = 0;
    while let Some(call) = calls.join_next().await {
        let Ok(call) = call else { continue };
        assert_eq!(call.unwrap().generation, 1);
        answered += 1;
    }
    assert!(answered >= 1000, "{answered}");
    assert_eq!(http.connections_opened(), 1);
    served.stop().await;
}

#[tokio::test]
async fn the_same_link_runs_within_the_process() {
    let (env, parent, log) = (Tokio::current(), Parent::new(), log(250));
    let net = in_process(&env, &parent);
    Child::new(&log, 1).until_acked(250, &net).await.unwrap();
    assert_same(&parent, &log);
}
