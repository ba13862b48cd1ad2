//! Messages between hosts: lost, repeated, late, reordered, partitioned.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cdc_model::{Answer, Batch, Digest, ObjectId, Timestamp};
use cdc_net::{Call, Loopback, Request, Transport, TransportError};
use tokio::sync::oneshot;

use crate::core::env::SimEnv;
use crate::core::executor::{Domain, Executor};
use crate::failure::ensure;
use crate::host::Net;
use crate::oracle::Oracle;
use crate::plan::NetworkRates;
use crate::random::Random;
use crate::world::{HostIndex, Traffic};

#[derive(Debug)]
struct State {
    random: Random,
    rates: NetworkRates,
    /// The inboxes of hosts that are up.
    up: BTreeMap<HostIndex, Loopback>,
    /// The batch that each sender sent last.
    last: BTreeMap<ObjectId, Batch>,
}

/// The network of a world.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    executor: Executor,
    traffic: Traffic,
    state: Arc<Mutex<State>>,
}

impl Network {
    pub(crate) fn new(executor: Executor, traffic: Traffic, random: Random) -> Self {
        let state =
            State { random, rates: NetworkRates::default(), up: BTreeMap::new(), last: BTreeMap::new() };
        Self { executor, traffic, state: Arc::new(Mutex::new(state)) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The network as one host sees it.
    pub(crate) fn of(&self, host: HostIndex, oracle: Arc<Mutex<Oracle>>) -> HostNetwork {
        HostNetwork { network: self.clone(), host, oracle }
    }

    pub(crate) fn set_down(&self, host: HostIndex) {
        self.lock().up.remove(&host);
    }

    pub(crate) fn set_rates(&self, rates: NetworkRates) {
        self.lock().rates = rates;
    }

    /// Whether a message passes now; a batch that does not makes its partition count.
    fn passes(&self, one: HostIndex, other: HostIndex, is_batch: bool) -> bool {
        let parted = self.traffic.is_parted(one, other);
        if parted && is_batch {
            self.traffic.batch_stopped(one, other, self.executor.now());
        }
        !parted
    }
}

/// How long the network holds a message at most.
const HELD_MAX: Duration = Duration::from_secs(20);

type Way = oneshot::Sender<Result<Answer, TransportError>>;

fn answer(way: Option<Way>, answered: Result<Answer, TransportError>) {
    if let Some(way) = way {
        // Whoever asked may be gone.
        drop(way.send(answered));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn delay(&mut self) -> Duration {
        let most = Duration::from_micros(self.rates.delay_max_us);
        self.random.time(most)
    }

    /// What a clone of the sender sends beside this request, if it does: a batch of the same place, one that begins
    /// where the last did, or the last again, each of a history of its own.
    fn clone_of(&mut self, request: &Request) -> Option<Request> {
        let Request::Batch(batch) = request else { return None };
        let batch = Some(batch).filter(|batch| batch.is_dense() && !batch.records.is_empty())?;
        let last = self.last.insert(batch.sender.clone(), batch.clone());
        let last = last.filter(|last| last.through == batch.after && last.generation == batch.generation);
        if self.rates.clones_per_10_000 == 0 || self.random.between(1, 10_000) > self.rates.clones_per_10_000
        {
            return None;
        }
        let mut clone = batch.clone();
        match (last, self.random.between(0, 2)) {
            (Some(last), 1) => {
                clone.after = last.after;
                clone.records.splice(0..0, last.records);
            }
            (Some(last), 2) => clone = last,
            _ => clone.after.digest = Digest::of(b"another past"),
        }
        let end = clone.records.len() - 1;
        for (at, record) in clone.records.iter_mut().enumerate() {
            let later = i64::from(at >= end.min(1));
            record.origin_timestamp = Timestamp::new(record.origin_timestamp.get() + later);
            record.timestamp = Timestamp::new(record.timestamp.get() + later);
        }
        clone.through.digest =
            clone.records.iter().fold(clone.after.digest, |digest, record| record.digest(digest));
        Some(Request::Batch(clone))
    }

    /// How long a second copy of a request is held somewhere, if there is one.
    fn stray(&mut self) -> Option<Duration> {
        let rate = self.rates.strays_per_10_000;
        let is_one = rate > 0 && self.random.between(1, 10_000) <= rate;
        is_one.then(|| self.random.time(HELD_MAX))
    }

    fn is_lost(&mut self) -> bool {
        self.random.between(1, 10_000) <= self.rates.loss_per_10_000
    }

    /// Whether the answer to a request is lost; more often when something was committed.
    fn is_answer_lost(&mut self, committed: bool) -> bool {
        let more = self.rates.answers_lost_per_10_000;
        self.is_lost() || (committed && more > 0 && self.random.between(1, 10_000) <= more)
    }
}

/// Who sends a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SentBy {
    Object,
    /// A clone of the object: nothing it sends may be taken.
    Clone,
}

/// One host's end of the network.
#[derive(Clone, Debug)]
pub(crate) struct HostNetwork {
    network: Network,
    host: HostIndex,
    oracle: Arc<Mutex<Oracle>>,
}

impl HostNetwork {
    /// Carries one copy of a request and its answer back.
    async fn carry(self, sent_by: SentBy, held: Duration, to: ObjectId, request: Request, way: Option<Way>) {
        let Self { network, host: from, oracle } = self;
        let is_batch = matches!(request, Request::Batch(_));
        let host = lock(&oracle).host_of(&to);
        let delay = network.lock().delay();
        network.executor.sleep(held + delay).await;
        let unreachable = |to| TransportError::Unreachable { object: to, reason: "it is down".to_owned() };
        let Some(host) = host else { return answer(way, Err(unreachable(to))) };
        if !network.passes(from, host, is_batch) {
            return;
        }
        let inboxes = network.lock().up.get(&host).cloned();
        let Some(inboxes) = inboxes else {
            return answer(way, Err(unreachable(to)));
        };
        let sender = request.sender().clone();
        let answered = inboxes.call(&to, request).await;
        if let Ok(answered) = &answered {
            let mut oracle = lock(&oracle);
            oracle.answered(&to, &sender, answered);
            let refused = sent_by == SentBy::Object || answered.refusal.is_some();
            oracle.note(ensure(refused, "a log that diverged is refused", || {
                format!("{to} has taken a batch of a clone of {sender}")
            }));
        }
        let took = is_batch && answered.as_ref().is_ok_and(|answered| answered.refusal.is_none());
        let (delay, lost) = {
            let mut state = network.lock();
            let lost = way.is_some() && state.is_answer_lost(took);
            (state.delay(), lost)
        };
        network.executor.sleep(delay).await;
        let passes = network.passes(host, from, is_batch);
        if lost || !passes {
            network.traffic.count(|counts| counts.lost_acks += u64::from(took && way.is_some()));
            return;
        }
        answer(way, answered);
    }
}

impl Net<SimEnv> for HostNetwork {
    fn transport(&self, _env: &SimEnv) -> Arc<dyn Transport> {
        Arc::new(self.clone())
    }

    fn serve(self, _env: &SimEnv, inboxes: Loopback) {
        self.network.lock().up.insert(self.host, inboxes);
    }
}

impl Transport for HostNetwork {
    fn call(&self, to: &ObjectId, request: Request) -> Call {
        let is_rewound = lock(&self.oracle).any_rewound();
        let (lost, repeats, stray, clone) = {
            let mut state = self.network.lock();
            let clone = state.clone_of(&request).filter(|_| !is_rewound);
            let repeats = state.random.between(1, 10_000) <= state.rates.repeat_per_10_000;
            let lost = state.is_lost();
            (lost, repeats, state.stray(), clone)
        };
        self.network.traffic.count(|counts| {
            counts.sent += 1;
            counts.lost_requests += u64::from(lost);
            counts.repeated += u64::from(repeats);
            counts.strays += u64::from(stray.is_some());
            counts.clones += u64::from(clone.is_some());
        });
        // What is on the way arrives also when its sender is gone.
        let carry = |sent_by, held, request: &Request, way| {
            let task = self.clone().carry(sent_by, held, to.clone(), request.clone(), way);
            self.network.executor.spawn(Domain::WORLD, task);
        };
        if let Some(clone) = clone {
            carry(SentBy::Clone, Duration::ZERO, &clone, None);
        }
        if repeats {
            carry(SentBy::Object, Duration::ZERO, &request, None);
        }
        if let Some(held) = stray {
            carry(SentBy::Object, held, &request, None);
        }
        let (way, answered) = oneshot::channel();
        if !lost {
            carry(SentBy::Object, Duration::ZERO, &request, Some(way));
        }
        Box::pin(async move {
            match answered.await {
                Ok(answered) => answered,
                // Nothing tells the sender that its message is lost but its own patience.
                Err(_lost) => std::future::pending().await,
            }
        })
    }
}
