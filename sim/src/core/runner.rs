use std::sync::Arc;
use std::time::Duration;

use cdc_model::Clock;

use crate::core::env::SimEnv;
use crate::core::executor::{Domain, Executor};
use crate::core::network::Network;
use crate::failure::Failure;
use crate::machine::true_clock;
use crate::plan::{FaultPlan, NetworkRates};
use crate::random::Random;
use crate::world::{Life, Outcome, Runner, Traffic, World};

/// Runs a plan from the beginning to the end.
///
/// # Errors
///
/// The promise that was not kept, with its story.
pub fn run(plan: &FaultPlan) -> Result<Outcome, Box<Failure>> {
    let executor = Executor::new(Random::stream(plan.seed, "schedule"));
    let traffic = Traffic::default();
    let network = Network::new(executor.clone(), traffic.clone(), Random::stream(plan.seed, "network"));
    let domains = vec![None; plan.options.hosts];
    World::run(plan, CoreRunner { executor, network, domains }, traffic)
}

struct CoreRunner {
    executor: Executor,
    network: Network,
    /// The running life of each host.
    domains: Vec<Option<Domain>>,
}

impl CoreRunner {
    fn domain(&mut self, host: usize) -> &mut Option<Domain> {
        self.domains.get_mut(host).expect("a host of this world")
    }
}

impl Runner for CoreRunner {
    const STEPS_PER_LOOK: u64 = 128;

    fn now(&self) -> Duration {
        self.executor.now()
    }

    fn clock(&self) -> Clock {
        let executor = self.executor.clone();
        true_clock(move || executor.now())
    }

    fn step(&mut self, until: Duration) -> bool {
        self.executor.step(until)
    }

    fn start(&mut self, life: Life) {
        let Life { host, number, shell, machine } = life;
        let domain = Domain(u64::try_from(host).unwrap_or(u64::MAX) << 32 | number);
        *self.domain(host) = Some(domain);
        let env = SimEnv::new(self.executor.clone(), domain, machine);
        let net = self.network.of(host, Arc::clone(&shell.oracle));
        self.executor.spawn(domain, shell.live(env, net));
    }

    fn end(&mut self, host: usize, _power: bool) {
        self.network.set_down(host);
        if let Some(domain) = self.domain(host).take() {
            self.executor.kill(domain);
        }
    }

    fn pause(&mut self, host: usize) {
        if let Some(domain) = *self.domain(host) {
            self.executor.pause(domain);
        }
    }

    fn resume(&mut self, host: usize) {
        if let Some(domain) = *self.domain(host) {
            self.executor.resume(domain);
        }
    }

    fn part(&mut self, _one: usize, _other: usize) {
        // Every message asks whether it passes.
    }

    fn mend(&mut self, _one: usize, _other: usize) {}

    fn set_rates(&mut self, rates: NetworkRates) {
        self.network.set_rates(rates);
    }

    fn trace(&self) -> (u64, u64) {
        self.executor.trace()
    }

    fn shut(self) {
        self.executor.kill(Domain::WORLD);
    }
}
