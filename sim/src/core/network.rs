//! Messages between hosts: lost, repeated, late, reordered, partitioned.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cdc_model::{Answer, ObjectId};
use cdc_net::{Call, Loopback, Request, Transport, TransportError};
use tokio::sync::oneshot;

use crate::core::env::SimEnv;
use crate::core::executor::{Domain, Executor};
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
        let state = State { random, rates: NetworkRates::default(), up: BTreeMap::new() };
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

    fn is_lost(&mut self) -> bool {
        self.random.between(1, 10_000) <= self.rates.loss_per_10_000
    }
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
    async fn carry(self, to: ObjectId, request: Request, way: Option<Way>) {
        let Self { network, host: from, oracle } = self;
        let is_batch = matches!(request, Request::Batch(_));
        let host = lock(&oracle).host_of(&to);
        let delay = network.lock().delay();
        network.executor.sleep(delay).await;
        let Some(host) = host else { return answer(way, Err(TransportError::Unreachable { object: to })) };
        if !network.passes(from, host, is_batch) {
            return;
        }
        let inboxes = network.lock().up.get(&host).cloned();
        let Some(inboxes) = inboxes else {
            return answer(way, Err(TransportError::Unreachable { object: to }));
        };
        let sender = request.sender().clone();
        let answered = inboxes.call(&to, request).await;
        if let Ok(answered) = &answered {
            lock(&oracle).answered(&to, &sender, answered);
        }
        let (delay, lost) = {
            let mut state = network.lock();
            let lost = way.is_some() && state.is_lost();
            (state.delay(), lost)
        };
        network.executor.sleep(delay).await;
        let passes = network.passes(host, from, is_batch);
        let took = is_batch && answered.as_ref().is_ok_and(|answered| answered.refusal.is_none());
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
        let (lost, repeats) = {
            let mut state = self.network.lock();
            let repeats = state.random.between(1, 10_000) <= state.rates.repeat_per_10_000;
            (state.is_lost(), repeats)
        };
        self.network.traffic.count(|counts| {
            counts.sent += 1;
            counts.lost_requests += u64::from(lost);
            counts.repeated += u64::from(repeats);
        });
        // What is on the way arrives also when its sender is gone.
        let carry = |way| {
            let task = self.clone().carry(to.clone(), request.clone(), way);
            self.network.executor.spawn(Domain::WORLD, task);
        };
        if repeats {
            carry(None);
        }
        let (way, answered) = oneshot::channel();
        if !lost {
            carry(Some(way));
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
