//! Named kinds of worlds: what a drawn plan is bent to.

use clap::ValueEnum;
use sim::{Fault, FaultKind, FaultPlan, Options, Random};

/// A kind of world.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// Whatever the seed draws: every class of faults is in it or not.
    #[default]
    Swarm,
    /// No faults, no archive, a deep tree, writes without pauses: how many commits a second the simulator does.
    Throughput,
    /// Processes end in the middle of what they do, often and everywhere; nothing else goes wrong.
    Crashes,
    /// Messages are lost, repeated and late, and processes are parted; nothing else goes wrong.
    Network,
    /// A busy archive whose store fails, with crashes.
    Archive,
    /// Copies of files are put back in the place of newer ones.
    Rewinds,
}

impl Scenario {
    /// What the command line calls it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Swarm => "swarm",
            Self::Throughput => "throughput",
            Self::Crashes => "crashes",
            Self::Network => "network",
            Self::Archive => "archive",
            Self::Rewinds => "rewinds",
        }
    }

    /// The plan of a seed in this kind of world.
    pub(crate) fn draw(self, seed: u64, objects: Option<usize>) -> FaultPlan {
        let objects = match self {
            Self::Throughput => Some(objects.unwrap_or(60)),
            Self::Swarm | Self::Crashes | Self::Network | Self::Archive | Self::Rewinds => objects,
        };
        let mut plan = FaultPlan::draw(seed, objects);
        let mut random = Random::stream(seed, self.name());
        match self {
            Self::Swarm => {}
            Self::Throughput => throughput(&mut plan),
            Self::Crashes => crashes(&mut plan, &mut random),
            Self::Network => network(&mut plan, &mut random),
            Self::Archive => archive(&mut plan, &mut random),
            Self::Rewinds => rewinds(&mut plan, &mut random),
        }
        plan.faults.sort_by_key(|fault| fault.at_ms);
        plan
    }
}

/// Nothing goes wrong: no faults, no rates.
fn calm(plan: &mut FaultPlan) {
    plan.faults.clear();
    let options = &mut plan.options;
    options.network = Default::default();
    options.network.delay_max_us = 2_000;
    options.disk = Default::default();
    options.store = Default::default();
    options.sites = Default::default();
}

fn throughput(plan: &mut FaultPlan) {
    calm(plan);
    let options = &mut plan.options;
    options.network.delay_max_us = 500;
    options.archive_percent = None;
    options.depth_max = 7;
    options.fan_out_max = 2;
    options.near_percent = 80;
    options.trouble_ms = 5_000;
    options.writes_max = u64::try_from(options.objects).unwrap_or(u64::MAX).saturating_mul(150);
    options.write_pause_max_ms = 2;
    options.writers = 4;
    options.attached_percent = 0;
    options.rotten = 0;
    options.link.batch_size = 100;
    options.link.batch_timeout_ms = 5;
    options.link.batch_bytes_max = 1 << 20;
    (options.filter_percent, options.count_percent, options.consume_percent) = (0, 0, 0);
    options.reject_percent = 0;
    options.job_delay_max_us = 20;
}

fn crashes(plan: &mut FaultPlan, random: &mut Random) {
    calm(plan);
    add_crashes(plan, random, 700);
}

/// One crash of each process in so many milliseconds, on average.
fn add_crashes(plan: &mut FaultPlan, random: &mut Random, every_ms: u64) {
    let Options { hosts, trouble_ms, .. } = plan.options;
    let count = 1 + u64::try_from(hosts).unwrap_or(u64::MAX).saturating_mul(trouble_ms) / every_ms;
    for _ in 0..count {
        let kind = FaultKind::Crash {
            host: random.place(hosts),
            operation: random.between(0, 300),
            power: random.chance(70),
            down_ms: random.between(0, 300),
            again_ms: 0,
            at_sync: false,
        };
        plan.faults.push(Fault { at_ms: random.between(0, trouble_ms), kind });
    }
}

fn network(plan: &mut FaultPlan, random: &mut Random) {
    calm(plan);
    plan.options.network.loss_per_10_000 = random.between(0, 3_000);
    plan.options.network.repeat_per_10_000 = random.between(0, 3_000);
    plan.options.network.delay_max_us = *random.pick(&[500, 30_000, 300_000]);
    // Between processes is where a network is.
    plan.options.near_percent = 20;
    let Options { hosts, trouble_ms, .. } = plan.options;
    if hosts < 2 {
        return;
    }
    for _ in 0..random.between(1, 10 + trouble_ms / 500) {
        let one = random.place(hosts);
        let other = (one + 1 + random.place(hosts - 1)) % hosts;
        let kind = FaultKind::Partition { one, other, for_ms: random.between(5, 1_500) };
        plan.faults.push(Fault { at_ms: random.between(0, trouble_ms), kind });
    }
}

fn archive(plan: &mut FaultPlan, random: &mut Random) {
    let drawn = plan.options.store;
    calm(plan);
    plan.options.store = drawn;
    plan.options.store.errors = random.between(0, 1_500);
    plan.options.store.lost_acks = random.between(0, 1_500);
    plan.options.archive_percent = Some(*random.pick(&[0, 20, 60]));
    plan.options.archive_events_min = *random.pick(&[5, 20, 100]);
    add_crashes(plan, random, 2_500);
    let trouble_ms = plan.options.trouble_ms;
    for _ in 0..random.between(0, 3) {
        let kind = FaultKind::StoreOutage { for_ms: random.between(50, 2_000) };
        plan.faults.push(Fault { at_ms: random.between(0, trouble_ms), kind });
    }
}

fn rewinds(plan: &mut FaultPlan, random: &mut Random) {
    calm(plan);
    let Options { objects, trouble_ms, .. } = plan.options;
    for _ in 0..random.between(1, 3) {
        let object = random.place(objects);
        let copied = random.between(0, trouble_ms / 2);
        plan.faults.push(Fault { at_ms: copied, kind: FaultKind::Copy { object } });
        let kind =
            FaultKind::Rewind { object, down_ms: random.between(0, 300), again_ms: random.between(0, 500) };
        plan.faults.push(Fault { at_ms: random.between(copied, trouble_ms), kind });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scenario_holds_its_own_faults_only() {
        let rewinds = |kind: &FaultKind| matches!(kind, FaultKind::Copy { .. } | FaultKind::Rewind { .. });
        for seed in 1..40 {
            let has = |scenario: Scenario, wanted: &dyn Fn(&FaultKind) -> bool| {
                let plan = scenario.draw(seed, Some(8));
                let wanted = plan.faults.iter().filter(|fault| wanted(&fault.kind)).count();
                assert!(plan.faults.is_sorted_by_key(|fault| fault.at_ms), "{scenario:?}");
                (wanted > 0, wanted == plan.faults.len())
            };
            assert_eq!(has(Scenario::Crashes, &|kind| matches!(kind, FaultKind::Crash { .. })), (true, true));
            let parted = |kind: &FaultKind| matches!(kind, FaultKind::Partition { .. });
            assert_eq!(has(Scenario::Network, &parted), (true, true));
            assert_eq!(has(Scenario::Rewinds, &rewinds), (true, true));
            assert_eq!(has(Scenario::Throughput, &|_| true), (false, true));
            assert!(Scenario::Archive.draw(seed, None).options.archive_percent.is_some());
            assert_eq!(Scenario::Swarm.draw(seed, None), FaultPlan::draw(seed, None));
        }
    }
}
