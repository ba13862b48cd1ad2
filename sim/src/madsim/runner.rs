use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ::madsim::Config;
use ::madsim::net::NetSim;
use ::madsim::runtime::Runtime;
use ::madsim::task::NodeId;
use ::madsim::time::TimeHandle;
use cdc_model::Clock;

use crate::engine;
use crate::failure::Failure;
use crate::http::{Batches, HttpNet};
use crate::machine::true_clock;
use crate::madsim::env::MadsimEnv;
use crate::plan::{FaultPlan, NetworkRates};
use crate::random::Random;
use crate::schedule::Schedule;
use crate::world::{Life, Outcome, Runner, Traffic, World};

/// What a step takes. Timers know no shorter time.
const TICK: Duration = Duration::from_millis(1);

/// Steps after which the records of ended tasks are let go; madsim keeps them for ever by itself.
const STEPS_PER_SWEEP: u64 = 256;

/// A world with so many objects has a host for every one or two of them: hosts cost little here.
const LARGE: usize = 200;
const OBJECTS_PER_HOST: usize = 2;

/// Where every process listens: far above the ports that connections take.
const PORT: u16 = 60_000;

/// Runs a plan from the beginning to the end.
///
/// # Errors
///
/// The promise that was not kept, with its story.
pub fn run(plan: &FaultPlan) -> Result<Outcome, Box<Failure>> {
    let hosts = match plan.options.objects {
        objects @ LARGE.. => plan.options.hosts.max(objects / OBJECTS_PER_HOST),
        _ => plan.options.hosts,
    };
    let plan = &plan.clone().on_hosts(hosts);
    engine::on_its_own_thread(|| {
        let traffic = Traffic::default();
        // Before anything else: it decides how the hash maps of this thread are ordered.
        let runtime = Runtime::with_seed_and_config(plan.seed, Config::default());
        World::run(plan, MadsimRunner::new(plan, runtime, traffic.clone()), traffic)
    })
}

struct MadsimRunner {
    runtime: Runtime,
    time: TimeHandle,
    net: Arc<NetSim>,
    schedule: Schedule,
    batches: Batches,
    nodes: Vec<NodeId>,
    addresses: Arc<Vec<SocketAddr>>,
    steps: u64,
}

impl MadsimRunner {
    fn new(plan: &FaultPlan, runtime: Runtime, traffic: Traffic) -> Self {
        let addresses: Vec<_> = (0..plan.options.hosts).map(|host| SocketAddr::new(ip(host), PORT)).collect();
        let nodes = addresses.iter().map(|address| runtime.create_node().ip(address.ip()).build().id());
        let nodes = nodes.collect();
        let (time, net) = runtime.block_on(async { (TimeHandle::current(), NetSim::current()) });
        Self {
            time,
            net,
            schedule: Schedule::new(Random::stream(plan.seed, "schedule"), 0),
            batches: Batches::new(traffic, Random::stream(plan.seed, "lost answers")),
            nodes,
            addresses: Arc::new(addresses),
            steps: 0,
            runtime,
        }
    }

    fn node(&self, host: usize) -> NodeId {
        *self.nodes.get(host).expect("a host of this world")
    }
}

fn ip(host: usize) -> IpAddr {
    const FIRST: u32 = 0x0a00_0001;
    Ipv4Addr::from(FIRST + u32::try_from(host).expect("hosts are few")).into()
}

impl Runner for MadsimRunner {
    const STEPS_PER_LOOK: u64 = 1;

    fn now(&self) -> Duration {
        self.time.elapsed()
    }

    fn clock(&self) -> Clock {
        let time = self.time.clone();
        true_clock(move || time.elapsed())
    }

    fn step(&mut self, until: Duration) -> bool {
        let left = until.saturating_sub(self.now());
        if left.is_zero() {
            return false;
        }
        self.steps += 1;
        if self.steps.is_multiple_of(STEPS_PER_SWEEP) {
            self.runtime.handle().metrics().num_tasks();
        }
        self.runtime.block_on(self.time.sleep(left.min(TICK)));
        true
    }

    fn start(&mut self, life: Life) {
        let Life { host, number, shell, machine } = life;
        let (node, nodes) = (self.node(host), self.runtime.handle());
        if number > 1 {
            nodes.restart(node);
        }
        let listens_on = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), PORT);
        let (oracle, addresses) = (Arc::clone(&shell.oracle), Arc::clone(&self.addresses));
        let net = HttpNet::new(host, self.batches.clone(), oracle, addresses, listens_on);
        let env = MadsimEnv::new(self.time.clone(), host, machine, self.schedule.clone());
        let node = nodes.get_node(node).expect("a node of this world");
        drop(node.spawn(self.schedule.task(host, shell.live(env, net))));
    }

    fn end(&mut self, host: usize, _power: bool) {
        self.runtime.handle().kill(self.node(host));
        // Its tasks end when it is their turn.
        self.runtime.block_on(async {});
    }

    fn pause(&mut self, host: usize) {
        self.runtime.handle().pause(self.node(host));
    }

    fn resume(&mut self, host: usize) {
        self.runtime.handle().resume(self.node(host));
    }

    fn part(&mut self, one: usize, other: usize) {
        let way = self.schedule.draw(0, 3);
        let (one, other) = (self.node(one), self.node(other));
        if way != 0 {
            self.net.clog_link(one, other);
        }
        if way != 1 {
            self.net.clog_link(other, one);
        }
    }

    fn mend(&mut self, one: usize, other: usize) {
        let (one, other) = (self.node(one), self.node(other));
        self.net.unclog_link(one, other);
        self.net.unclog_link(other, one);
    }

    fn set_rates(&mut self, rates: NetworkRates) {
        let loss = u32::try_from(rates.loss_per_10_000).unwrap_or(u32::MAX);
        self.batches.set_rates(&rates);
        self.net.update_config(|config| {
            config.packet_loss_rate = f64::from(loss) / 10_000.0;
            config.send_latency = Duration::ZERO..Duration::from_micros(rates.delay_max_us.max(1));
        });
    }

    fn trace(&self) -> (u64, u64) {
        self.schedule.trace()
    }

    fn shut(self) {
        drop(self.runtime);
    }
}
