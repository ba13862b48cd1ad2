//! Messages between hosts: lost, repeated, late, reordered, partitioned.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cdc_model::{Answer, ObjectId};
use cdc_net::{Call, Loopback, Request, Transport, TransportError};
use tokio::sync::oneshot;

use crate::core::executor::{Domain, Executor};
use crate::oracle::Oracle;
use crate::plan::NetworkRates;
use crate::random::Random;

/// A host of the world.
pub(crate) type Host = usize;

/// What befell messages so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct NetworkCounts {
    pub(crate) sent: u64,
    pub(crate) lost_requests: u64,
    pub(crate) repeated: u64,
    /// Answers that were lost after the receiver had committed.
    pub(crate) lost_acks: u64,
    /// Partitions that stopped a batch.
    pub(crate) partitions: u64,
}

#[derive(Debug)]
struct State {
    random: Random,
    rates: NetworkRates,
    serves: BTreeMap<ObjectId, Host>,
    /// The inboxes of hosts that are up.
    up: BTreeMap<Host, Loopback>,
    /// Pairs that do not reach each other, until when, and whether a batch has met it.
    partitions: BTreeMap<(Host, Host), (Duration, bool)>,
    counts: NetworkCounts,
}

/// The network of a world.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    executor: Executor,
    oracle: Arc<Mutex<Oracle>>,
    state: Arc<Mutex<State>>,
}

impl Network {
    pub(crate) fn new(
        executor: Executor,
        oracle: Arc<Mutex<Oracle>>,
        random: Random,
        rates: NetworkRates,
        serves: BTreeMap<ObjectId, Host>,
    ) -> Self {
        let state = State {
            random,
            rates,
            serves,
            up: BTreeMap::new(),
            partitions: BTreeMap::new(),
            counts: NetworkCounts::default(),
        };
        Self { executor, oracle, state: Arc::new(Mutex::new(state)) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The network as one host sees it.
    pub(crate) fn of(&self, host: Host) -> HostNetwork {
        HostNetwork { network: self.clone(), host }
    }

    pub(crate) fn set_up(&self, host: Host, inboxes: Loopback) {
        self.lock().up.insert(host, inboxes);
    }

    pub(crate) fn set_down(&self, host: Host) {
        self.lock().up.remove(&host);
    }

    pub(crate) fn set_rates(&self, rates: NetworkRates) {
        self.lock().rates = rates;
    }

    pub(crate) fn part(&self, one: Host, other: Host, until: Duration) {
        self.lock().partitions.insert(pair(one, other), (until, false));
    }

    pub(crate) fn heal(&self) {
        self.lock().partitions.clear();
    }

    pub(crate) fn counts(&self) -> NetworkCounts {
        self.lock().counts
    }

    /// Whether a message passes now; a batch that does not makes its partition count.
    fn passes(&self, one: Host, other: Host, is_batch: bool) -> bool {
        let now = self.executor.now();
        let mut state = self.lock();
        let Some((until, met)) = state.partitions.get_mut(&pair(one, other)) else { return true };
        if now >= *until {
            state.partitions.remove(&pair(one, other));
            return true;
        }
        let first = is_batch && !std::mem::replace(met, *met || is_batch);
        state.counts.partitions += u64::from(first);
        false
    }

    /// Carries one copy of a request and its answer back.
    async fn carry(self, from: Host, to: ObjectId, request: Request, way: Option<Way>) {
        let is_batch = matches!(request, Request::Batch(_));
        let (host, delay) = {
            let mut state = self.lock();
            (state.serves.get(&to).copied(), state.delay())
        };
        self.executor.sleep(delay).await;
        let unreachable = |to| TransportError::Unreachable { object: to, reason: "it is down".to_owned() };
        let Some(host) = host else { return answer(way, Err(unreachable(to))) };
        if !self.passes(from, host, is_batch) {
            return;
        }
        let inboxes = self.lock().up.get(&host).cloned();
        let Some(inboxes) = inboxes else {
            return answer(way, Err(unreachable(to)));
        };
        let sender = request.sender().clone();
        let answered = inboxes.call(&to, request).await;
        if let Ok(answered) = &answered {
            lock(&self.oracle).answered(&to, &sender, answered);
        }
        let (delay, lost) = {
            let mut state = self.lock();
            let lost = way.is_some() && state.is_lost();
            (state.delay(), lost)
        };
        self.executor.sleep(delay).await;
        let passes = self.passes(host, from, is_batch);
        let took = is_batch && answered.as_ref().is_ok_and(|answered| answered.refusal.is_none());
        if lost || !passes {
            self.lock().counts.lost_acks += u64::from(took && way.is_some());
            return;
        }
        answer(way, answered);
    }
}

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

const fn pair(one: Host, other: Host) -> (Host, Host) {
    if one < other { (one, other) } else { (other, one) }
}

impl State {
    fn delay(&mut self) -> Duration {
        let most = Duration::from_micros(self.rates.delay_max_us);
        self.random.time(most)
    }

    fn is_lost(&mut self) -> bool {
        self.random.between(1, 10_000) <= self.rates.loss_per_10_000
    }
}

/// One host's end of the network.
#[derive(Clone, Debug)]
pub(crate) struct HostNetwork {
    network: Network,
    host: Host,
}

impl Transport for HostNetwork {
    fn call(&self, to: &ObjectId, request: Request) -> Call {
        let (network, from, to) = (self.network.clone(), self.host, to.clone());
        let (lost, repeats) = {
            let mut state = network.lock();
            let repeats = state.random.between(1, 10_000) <= state.rates.repeat_per_10_000;
            let lost = state.is_lost();
            state.counts.sent += 1;
            state.counts.lost_requests += u64::from(lost);
            state.counts.repeated += u64::from(repeats);
            (lost, repeats)
        };
        // What is on the way arrives also when its sender is gone.
        let carry = |network: Network, way| {
            let task = network.clone().carry(from, to.clone(), request.clone(), way);
            network.executor.spawn(Domain::WORLD, task);
        };
        if repeats {
            carry(network.clone(), None);
        }
        let (way, answered) = oneshot::channel();
        if !lost {
            carry(network.clone(), Some(way));
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
