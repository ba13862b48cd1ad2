use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ::turmoil::{Builder, Sim};
use cdc_model::Clock;

use crate::engine;
use crate::failure::Failure;
use crate::http::{Batches, HttpNet};
use crate::machine::true_clock;
use crate::plan::{FaultPlan, NetworkRates};
use crate::random::Random;
use crate::schedule::Schedule;
use crate::turmoil::env::{Time, TurmoilEnv};
use crate::world::{Life, Outcome, Runner, Traffic, World};

/// Most processes of a world: links are kept by pairs.
pub const HOSTS_MAX: usize = 20;

/// What a step takes. Timers know no shorter time.
const TICK: Duration = Duration::from_millis(1);

/// Where every process listens.
const PORT: u16 = 80;

/// Pieces that a connection holds at most, and connections that wait to be accepted.
const TCP_CAPACITY: usize = 4_096;

/// Of a hundred polls of a task, how many are put off: tokio runs what is ready in the order in which it got ready.
const PUT_OFF_PERCENT: u64 = 20;

/// A connection does not outlive a message that is lost, so that far fewer are lost than of single messages.
const FEWER_LOSSES: f64 = 10.0;

/// Runs a plan from the beginning to the end.
///
/// # Errors
///
/// The promise that was not kept, with its story.
pub fn run(plan: &FaultPlan) -> Result<Outcome, Box<Failure>> {
    let plan = plan.clone().on_hosts(plan.options.hosts.min(HOSTS_MAX));
    engine::with_simulated_clock(plan.seed, || {
        let traffic = Traffic::default();
        World::run(&plan, TurmoilRunner::new(&plan, traffic.clone()), traffic)
    })
}

/// How two hosts do not reach each other.
#[derive(Clone, Copy, Debug)]
enum Parting {
    /// What is sent is lost.
    Lost,
    /// What is sent one way is lost.
    LostOneWay,
    /// What is sent arrives when the hosts reach each other again.
    Held,
}

struct TurmoilRunner {
    sim: Sim<'static>,
    time: Time,
    schedule: Schedule,
    batches: Batches,
    addresses: Arc<Vec<SocketAddr>>,
    /// What each host begins to run when it is started the next time.
    next: Vec<Rc<RefCell<Option<Life>>>>,
    partings: BTreeMap<(usize, usize), Parting>,
}

impl TurmoilRunner {
    fn new(plan: &FaultPlan, traffic: Traffic) -> Self {
        let seed = plan.seed;
        let mut sim = Builder::new()
            .rng_seed(Random::stream(seed, "turmoil").next())
            .tick_duration(TICK)
            .simulation_duration(Duration::MAX)
            .tcp_capacity(TCP_CAPACITY)
            .ephemeral_ports(1_024..=u16::MAX)
            .enable_random_order()
            .build();
        let schedule = Schedule::new(Random::stream(seed, "schedule"), PUT_OFF_PERCENT);
        let names = (0..plan.options.hosts).map(|host| format!("host-{host}"));
        let addresses: Vec<_> = names.map(|name| SocketAddr::new(sim.lookup(name), PORT)).collect();
        let (time, addresses) = (Time::default(), Arc::new(addresses));
        let batches = Batches::new(traffic, Random::stream(seed, "lost answers"));
        let mut next = Vec::new();
        for address in addresses.iter() {
            let life = Rc::new(RefCell::new(None));
            let ours = Begin {
                life: Rc::clone(&life),
                time: time.clone(),
                schedule: schedule.clone(),
                batches: batches.clone(),
                addresses: Arc::clone(&addresses),
            };
            sim.host(address.ip(), move || ours.begin());
            next.push(life);
        }
        Self { sim, time, schedule, batches, addresses, next, partings: BTreeMap::new() }
    }

    fn ip(&self, host: usize) -> IpAddr {
        self.addresses.get(host).expect("a host of this world").ip()
    }

    /// The links of a host that work.
    fn whole_links(&self, host: usize) -> Vec<IpAddr> {
        let others = (0..self.addresses.len()).filter(|other| {
            *other != host && !self.partings.contains_key(&(host.min(*other), host.max(*other)))
        });
        others.map(|other| self.ip(other)).collect()
    }
}

/// Begins the lives of one host.
struct Begin {
    life: Rc<RefCell<Option<Life>>>,
    time: Time,
    schedule: Schedule,
    batches: Batches,
    addresses: Arc<Vec<SocketAddr>>,
}

impl Begin {
    fn begin(&self) -> impl Future<Output = ::turmoil::Result> + use<> {
        let task = self.life.take().map(|life| {
            let Life { host, shell, machine, .. } = life;
            let net = HttpNet::new(
                host,
                self.batches.clone(),
                Arc::clone(&shell.oracle),
                Arc::clone(&self.addresses),
                SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), PORT),
            );
            let env = TurmoilEnv::new(self.time.clone(), host, machine, self.schedule.clone());
            self.schedule.task(host, shell.live(env, net))
        });
        async move {
            if let Some(task) = task {
                task.await;
            }
            Ok(())
        }
    }
}

impl Runner for TurmoilRunner {
    const STEPS_PER_LOOK: u64 = 1;

    fn now(&self) -> Duration {
        self.time.step()
    }

    fn clock(&self) -> Clock {
        let time = self.time.clone();
        true_clock(move || time.now())
    }

    fn step(&mut self, until: Duration) -> bool {
        if self.now() >= until {
            return false;
        }
        self.sim.step().expect("no process ends by itself");
        self.time.set(self.sim.elapsed());
        engine::advance(TICK);
        true
    }

    fn start(&mut self, life: Life) {
        let ip = self.ip(life.host);
        self.next.get(life.host).expect("a host of this world").replace(Some(life));
        self.sim.bounce(ip);
    }

    fn end(&mut self, host: usize, power: bool) {
        let ip = self.ip(host);
        // A process that ends closes its connections; one whose power goes says nothing any more.
        let silenced = if power { self.whole_links(host) } else { Vec::new() };
        silenced.iter().for_each(|other| self.sim.partition(ip, *other));
        self.sim.crash(ip);
        silenced.iter().for_each(|other| self.sim.repair(ip, *other));
    }

    fn pause(&mut self, host: usize) {
        self.schedule.pause(host);
    }

    fn resume(&mut self, host: usize) {
        self.schedule.resume(host);
    }

    fn part(&mut self, one: usize, other: usize) {
        let parting = match self.schedule.draw(0, 3) {
            0 => Parting::LostOneWay,
            1 => Parting::Held,
            _ => Parting::Lost,
        };
        self.partings.insert((one, other), parting);
        let (one, other) = (self.ip(one), self.ip(other));
        match parting {
            Parting::Lost => self.sim.partition(one, other),
            Parting::LostOneWay => self.sim.partition_oneway(one, other),
            Parting::Held => self.sim.hold(one, other),
        }
    }

    fn mend(&mut self, one: usize, other: usize) {
        let parting = self.partings.remove(&(one, other));
        let (one, other) = (self.ip(one), self.ip(other));
        match parting {
            Some(Parting::Lost) => self.sim.repair(one, other),
            Some(Parting::LostOneWay) => self.sim.repair_oneway(one, other),
            Some(Parting::Held) => self.sim.release(one, other),
            None => {}
        }
    }

    fn set_rates(&mut self, rates: NetworkRates) {
        let loss = u32::try_from(rates.loss_per_10_000).unwrap_or(u32::MAX);
        self.sim.set_fail_rate(f64::from(loss) / 10_000.0 / FEWER_LOSSES);
        self.batches.set_rates(&rates);
        self.sim.set_max_message_latency(Duration::from_micros(rates.delay_max_us));
    }

    fn trace(&self) -> (u64, u64) {
        self.schedule.trace()
    }

    fn shut(self) {
        drop(self.sim);
    }
}
