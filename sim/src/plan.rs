//! What a run consists of: options and faults, drawn from a seed. A plan is a value: it can be stored, replayed and
//! made smaller.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::random::Random;
use crate::topology;

/// One run, whole: the same plan gives the same run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FaultPlan {
    /// Feeds every stream of random numbers.
    pub seed: u64,
    /// What the world is like.
    pub options: Options,
    /// What befalls it, in order of time.
    pub faults: Vec<Fault>,
    /// The fault that is planted into the code, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mutant: Option<String>,
}

/// What the world is like while it lasts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Options {
    /// Objects, the root included.
    pub objects: usize,
    /// Most objects in a chain.
    pub depth_max: usize,
    /// Most children of one object.
    pub fan_out_max: usize,
    /// Processes; each has a disk of its own.
    pub hosts: usize,
    /// Of a hundred children, how many live in their parent's process.
    pub near_percent: u64,
    /// How long the workload and the faults last. Then everything heals.
    pub trouble_ms: u64,
    /// Most transactions of the workload.
    pub writes_max: u64,
    /// Longest pause between two transactions of one writer.
    pub write_pause_max_ms: u64,
    /// Writers in each process, which work side by side.
    pub writers: usize,
    /// How a hop behaves.
    pub link: Link,
    /// Of a hundred objects with a parent, how many archive as well; the root does unless this is absent.
    pub archive_percent: Option<u64>,
    /// Events that wait before they are archived.
    pub archive_events_min: u64,
    /// Of a hundred objects with children, how many filter.
    pub filter_percent: u64,
    /// Of a hundred objects with children, how many count.
    pub count_percent: u64,
    /// Of a hundred objects, how many have a consumer with effects.
    pub consume_percent: u64,
    /// Of a hundred objects, how many are attached to a database that an application writes.
    #[serde(default)]
    pub attached_percent: u64,
    /// Of a hundred of these, how many are written without any sync: after a loss of power their application begins
    /// anew.
    #[serde(default)]
    pub reckless_percent: u64,
    /// Of a hundred of these, in how many the application changes the captured tables now and then: their columns,
    /// or what captures them.
    #[serde(default)]
    pub redesigned_percent: u64,
    /// Copies of owned objects' files in which bits rot at the end.
    #[serde(default)]
    pub rotten: u64,
    /// The network, while the trouble lasts.
    pub network: NetworkRates,
    /// The disks, while the trouble lasts.
    pub disk: DiskRates,
    /// The store of the archives, while the trouble lasts.
    pub store: StoreRates,
    /// Faults that the code itself has sites for.
    pub sites: SiteRates,
    /// Longest wait of a job for a thread, in microseconds.
    pub job_delay_max_us: u64,
}

/// The settings of every link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Link {
    /// Most records in a batch.
    pub batch_size: usize,
    /// How long a batch may fill.
    pub batch_timeout_ms: u64,
    /// Most bytes in a batch.
    pub batch_bytes_max: usize,
}

/// How messages fare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkRates {
    /// Of ten thousand requests or answers, how many are lost.
    pub loss_per_10_000: u64,
    /// Of ten thousand answers to what was committed, how many more are lost.
    #[serde(default)]
    pub answers_lost_per_10_000: u64,
    /// Of ten thousand requests, how many arrive twice.
    pub repeat_per_10_000: u64,
    /// The longest way.
    pub delay_max_us: u64,
    /// Of ten thousand batches, how many a clone of their sender sends as well, with a history of its own.
    #[serde(default)]
    pub clones_per_10_000: u64,
    /// Of ten thousand requests, how many come once more and much later, when whoever sent them may be gone.
    #[serde(default)]
    pub strays_per_10_000: u64,
}

/// How disks fare. Rates are of a million operations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DiskRates {
    /// Reads that fail.
    pub read_errors: u64,
    /// Writes that fail.
    pub write_errors: u64,
    /// Syncs that fail.
    pub sync_errors: u64,
    /// Opens that fail.
    pub open_errors: u64,
    /// Syncs that take long.
    pub slow_syncs: u64,
}

/// How requests to the store fare. Rates are of ten thousand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoreRates {
    /// Fail, and nothing was done.
    pub errors: u64,
    /// Are done, and seem to fail.
    pub lost_acks: u64,
    /// Are refused because there are too many.
    pub throttled: u64,
    /// Of writes: seem to fail, and are done some requests later, also when the process is gone by then.
    #[serde(default)]
    pub late: u64,
    /// Of creates: are repeated by the client itself, which then finds its own object.
    #[serde(default)]
    pub echoes: u64,
    /// Are done, and take seconds.
    #[serde(default)]
    pub slow: u64,
    /// Of ten thousand occasions, at how many somebody else commits to one of the tables.
    #[serde(default)]
    pub foreign_commits: u64,
}

/// How often sites in the code fail on purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SiteRates {
    /// Of a hundred sites, how many are active.
    pub active_percent: u64,
    /// Of ten thousand passes over an active one, how many fail.
    pub fire_per_10_000: u64,
}

/// One thing that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fault {
    /// When, since the world began.
    pub at_ms: u64,
    /// What.
    #[serde(flatten)]
    pub kind: FaultKind,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "fault")]
pub enum FaultKind {
    /// A process ends at an operation of its disk, and is back after a time.
    Crash {
        /// Which.
        host: usize,
        /// At its so manieth operation from now on; at once when 0.
        operation: u64,
        /// Whether what was not synced may be lost.
        power: bool,
        /// How long it is down.
        down_ms: u64,
        /// So long after it is back the power goes, with what a killed process had written and not synced; 0: it does
        /// not.
        #[serde(default, skip_serializing_if = "is_zero")]
        again_ms: u64,
    },
    /// A process closes what it has open, in order, and ends.
    Shutdown {
        /// Which.
        host: usize,
        /// How long it may empty what is under way.
        deadline_ms: u64,
        /// How long it is down.
        down_ms: u64,
    },
    /// Somebody names another parent for an object, which goes on below the one it has.
    Reparent {
        /// Which object.
        object: usize,
        /// The other parent.
        to: usize,
    },
    /// The files of an object that the engine owns are gone when its process is back.
    Destroy {
        /// Which object.
        object: usize,
        /// How long the process is down.
        down_ms: u64,
    },
    /// Two processes do not reach each other for a time.
    Partition {
        /// One.
        one: usize,
        /// The other.
        other: usize,
        /// How long.
        for_ms: u64,
    },
    /// A process stands still for a time, and goes on as if none had passed.
    Pause {
        /// Which.
        host: usize,
        /// How long.
        for_ms: u64,
    },
    /// A disk has room for so many bytes more for a time.
    DiskFull {
        /// Whose.
        host: usize,
        /// How many bytes.
        room: u64,
        /// How long.
        for_ms: u64,
    },
    /// A process's clock jumps.
    ClockJump {
        /// Whose.
        host: usize,
        /// By how much.
        by_ms: i64,
    },
    /// The store is out of reach for a time.
    StoreOutage {
        /// How long.
        for_ms: u64,
    },
    /// A second engine is opened over the objects of a process that is up.
    SecondEngine {
        /// Which.
        host: usize,
    },
    /// Somebody archives an object's log as well, or that of the next above it that is archived.
    SecondArchiver {
        /// Which object.
        object: usize,
    },
    /// Somebody vacuums an object's database while its process has it open.
    Vacuum {
        /// Which object.
        object: usize,
    },
    /// A copy of an object's files is kept.
    Copy {
        /// Which object.
        object: usize,
    },
    /// The copy of an object's files is put in their place, while its process is down.
    Rewind {
        /// Which object.
        object: usize,
        /// How long the process is down.
        down_ms: u64,
        /// How long after that it ends once more, when what was written since may have passed what was lost.
        #[serde(default)]
        again_ms: u64,
    },
}

impl Options {
    /// How long the workload and the faults last.
    #[must_use]
    pub const fn trouble(&self) -> Duration {
        Duration::from_millis(self.trouble_ms)
    }
}

impl FaultPlan {
    /// Draws a plan with so many objects, or a random number of them. Each class of faults is in it or not.
    #[must_use]
    pub fn draw(seed: u64, objects: Option<usize>) -> Self {
        let mut random = Random::stream(seed, "plan");
        let mut options = Options::draw(&mut random, objects);
        if options.objects <= SMALL && Random::stream(seed, "length").chance(40) {
            (options.trouble_ms, options.writes_max) = (LONG_MS, options.writes_max * 8);
        }
        let mut answers = Random::stream(seed, "answers");
        if answers.chance(50) {
            options.network.answers_lost_per_10_000 = magnitude(&mut answers, 60, 4_000);
        }
        options.network.clones_per_10_000 = swarm(&mut Random::stream(seed, "clones"), 1_000);
        options.network.strays_per_10_000 = swarm(&mut Random::stream(seed, "strays"), 1_000);
        let attached =
            Random::stream(seed, "attached databases").pick(&[0, 0, 0, 0, 10, 30, 60, 100]).to_owned();
        options.attached_percent = attached;
        options.rotten = *Random::stream(seed, "rotten").pick(&[0, 0, 2, 8]);
        options.reckless_percent = *Random::stream(seed, "reckless").pick(&[0, 0, 0, 30]);
        options.redesigned_percent = *Random::stream(seed, "redesigned").pick(&[0, 0, 20, 60]);
        options.store.foreign_commits = swarm(&mut Random::stream(seed, "foreign"), 2_000);
        let mut store = Random::stream(seed, "store rates");
        options.store.late = swarm(&mut store, 400);
        options.store.echoes = swarm(&mut store, 400);
        options.store.slow = swarm(&mut store, 400);
        let mut faults = Vec::new();
        let mut classes = Random::stream(seed, "faults");
        crashes(&mut classes, &options, &mut faults);
        partitions(seed, &mut classes, &options, &mut faults);
        disks(&mut classes, &options, &mut faults);
        clocks(&mut classes, &options, &mut faults);
        rewinds(&mut classes, &options, &mut faults);
        pauses(&mut classes, &options, &mut faults);
        others(&mut Random::stream(seed, "others"), &options, &mut faults);
        archivers(&mut Random::stream(seed, "archivers"), &options, &mut faults);
        aftershocks(&mut Random::stream(seed, "aftershocks"), &mut faults);
        endings(&mut Random::stream(seed, "endings"), &options, &mut faults);
        faults.sort_by_key(|fault| fault.at_ms);
        Self { seed, options, faults, mutant: None }
    }
}

impl FaultPlan {
    /// The same on so many hosts: what befell a few befalls some of many, or the other way round.
    #[must_use]
    pub fn on_hosts(mut self, hosts: usize) -> Self {
        let (drawn, hosts) = (std::mem::replace(&mut self.options.hosts, hosts.max(1)), hosts.max(1));
        let mut random = Random::stream(self.seed, "hosts");
        let mut pairs = Random::stream(self.seed, "pairs");
        let linked = topology::linked_hosts(self.seed, &self.options);
        let mut moved = |host: usize| (host + drawn * random.place(hosts.div_ceil(drawn))) % hosts;
        for Fault { kind, .. } in &mut self.faults {
            match kind {
                FaultKind::Crash { host, .. }
                | FaultKind::Pause { host, .. }
                | FaultKind::DiskFull { host, .. }
                | FaultKind::ClockJump { host, .. }
                | FaultKind::Shutdown { host, .. }
                | FaultKind::SecondEngine { host } => *host = moved(*host),
                FaultKind::Partition { one, other, .. } if linked.is_empty() => {
                    (*one, *other) = (moved(*one), moved(*other));
                }
                FaultKind::Partition { one, other, .. } => (*one, *other) = *pairs.pick(&linked),
                FaultKind::StoreOutage { .. }
                | FaultKind::SecondArchiver { .. }
                | FaultKind::Vacuum { .. }
                | FaultKind::Copy { .. }
                | FaultKind::Reparent { .. }
                | FaultKind::Destroy { .. }
                | FaultKind::Rewind { .. } => {}
            }
        }
        let is_one_host = |kind| matches!(kind, FaultKind::Partition { one, other, .. } if one == other);
        self.faults.retain(|fault| !is_one_host(fault.kind));
        self
    }
}

impl Options {
    fn draw(random: &mut Random, objects: Option<usize>) -> Self {
        let drawn = [2, 3, 5, 8, 13, 30, 60];
        let objects = objects.unwrap_or_else(|| *random.pick(&drawn)).max(1);
        let most_hosts = (objects / 2 + 1).clamp(2, 24);
        let hosts = random.between(2, number(most_hosts)).min(number(objects).max(1));
        let large = objects > 200;
        Self {
            objects,
            depth_max: index(random.between(if large { 3 } else { 1 }, 7)),
            fan_out_max: *random.pick(&[1, 2, 4, 20, 500]),
            hosts: index(hosts),
            near_percent: *random.pick(&[0, 30, 80]),
            trouble_ms: *random.pick(&[2_000, 5_000, 12_000]),
            writes_max: number(objects) * *random.pick(&[20, 60, 150]),
            write_pause_max_ms: *random.pick(&[2, 20, 120]),
            writers: index(random.between(1, 4)),
            link: Link {
                batch_size: *random.pick(&[1, 3, 10, 100]),
                batch_timeout_ms: *random.pick(&[5, 50, 1_000]),
                batch_bytes_max: *random.pick(&[1 << 10, 1 << 20]),
            },
            archive_percent: if random.chance(40) { Some(*random.pick(&[0, 0, 10, 50])) } else { None },
            archive_events_min: *random.pick(&[if objects > 8 { 20 } else { 5 }, 50, 1_000]),
            filter_percent: *random.pick(&[0, 0, 30]),
            count_percent: *random.pick(&[0, 0, 30]),
            consume_percent: *random.pick(&[0, 30]),
            attached_percent: 0,
            reckless_percent: 0,
            redesigned_percent: 0,
            rotten: 0,
            network: NetworkRates {
                loss_per_10_000: swarm(random, 4_000),
                answers_lost_per_10_000: 0,
                repeat_per_10_000: swarm(random, 3_000),
                delay_max_us: *random.pick(&[500, 5_000, 30_000, 150_000]),
                clones_per_10_000: 0,
                strays_per_10_000: 0,
            },
            disk: DiskRates {
                read_errors: swarm(random, 500),
                write_errors: swarm(random, 2_000),
                sync_errors: swarm(random, 2_000),
                open_errors: swarm(random, 20_000),
                slow_syncs: swarm(random, 20_000),
            },
            store: StoreRates {
                errors: swarm(random, 1_000),
                lost_acks: swarm(random, 1_000),
                throttled: swarm(random, 500),
                late: 0,
                echoes: 0,
                slow: 0,
                foreign_commits: 0,
            },
            sites: SiteRates {
                active_percent: *random.pick(&[0, 25, 60]),
                fire_per_10_000: 1 + swarm(random, 1_000),
            },
            job_delay_max_us: *random.pick(&[20, 200, 2_000]),
        }
    }
}

/// A rate of at most `most`: none in half of the runs, otherwise of any magnitude.
fn swarm(random: &mut Random, most: u64) -> u64 {
    if random.chance(50) {
        return 0;
    }
    let most_bits = u64::from(u64::BITS - most.leading_zeros());
    let ceiling = 1_u64 << random.between(1, most_bits);
    random.between(1, ceiling.min(most))
}

/// Up to so many objects a world may last long: its faults cost little.
const SMALL: usize = 13;
const LONG_MS: u64 = 40_000;

/// Objects that all crashes of a plan may make open again.
const REOPENED_MAX: u64 = 12_000;

fn crashes(random: &mut Random, options: &Options, faults: &mut Vec<Fault>) {
    if random.chance(20) {
        return;
    }
    let at_once = random.chance(30);
    let every_ms = magnitude(random, 30, 3_000);
    let (hosts, objects) = (number(options.hosts), number(options.objects));
    let most = (hosts * options.trouble_ms / every_ms).clamp(1, 1 + REOPENED_MAX * hosts / objects);
    for _ in 0..random.between(1, most) {
        let operation = if at_once { 0 } else { random.between(0, 200) };
        let kind = FaultKind::Crash {
            host: random.place(options.hosts),
            operation,
            power: random.chance(60),
            down_ms: random.between(0, every_ms.min(600)),
            again_ms: 0,
        };
        faults.push(Fault { at_ms: random.between(0, options.trouble_ms), kind });
    }
}

fn partitions(seed: u64, random: &mut Random, options: &Options, faults: &mut Vec<Fault>) {
    if random.chance(25) || options.hosts < 2 {
        return;
    }
    let linked = topology::linked_hosts(seed, options);
    let pairs = number(linked.len().max(1));
    let every_ms = magnitude(random, 2, 300);
    let most = 1 + number(options.hosts) * options.trouble_ms / every_ms;
    // Half of the time a pair should reach each other.
    let longest_ms = (*random.pick(&[40, 200, 1_500])).min(10 + pairs * options.trouble_ms / most);
    for _ in 0..random.between(1, most) {
        let one = random.place(options.hosts);
        let other = (one + 1 + random.place(options.hosts - 1)) % options.hosts;
        // Most where something goes back and forth.
        let (one, other) = match linked.as_slice() {
            [_, ..] if random.chance(90) => *random.pick(&linked),
            _ => (one, other),
        };
        let kind = FaultKind::Partition { one, other, for_ms: random.between(5, longest_ms) };
        faults.push(Fault { at_ms: random.between(0, options.trouble_ms), kind });
    }
}

/// A number between two, of any magnitude.
fn magnitude(random: &mut Random, least: u64, most: u64) -> u64 {
    let doublings = u64::from((most / least).ilog2());
    let floor = least << random.between(0, doublings);
    random.between(floor, (2 * floor).min(most))
}

fn disks(random: &mut Random, options: &Options, faults: &mut Vec<Fault>) {
    if random.chance(50) {
        for _ in 0..random.between(1, 3) {
            let kind = FaultKind::DiskFull {
                host: random.place(options.hosts),
                room: random.between(0, 200_000),
                for_ms: random.between(50, 3_000),
            };
            faults.push(Fault { at_ms: random.between(0, options.trouble_ms), kind });
        }
    }
    if random.chance(50) && options.archive_percent.is_some() {
        for _ in 0..random.between(1, 3) {
            let kind = FaultKind::StoreOutage { for_ms: random.between(50, 3_000) };
            faults.push(Fault { at_ms: random.between(0, options.trouble_ms), kind });
        }
    }
}

fn clocks(random: &mut Random, options: &Options, faults: &mut Vec<Fault>) {
    const YEAR_MS: u64 = 365 * 24 * 3_600_000;
    if random.chance(60) {
        return;
    }
    for _ in 0..random.between(1, 4) {
        let most = *random.pick(&[1_000, 3_600_000, 9 * YEAR_MS]);
        let size = random.between(1, most).cast_signed();
        let by_ms = if random.chance(50) { size } else { -size };
        let kind = FaultKind::ClockJump { host: random.place(options.hosts), by_ms };
        faults.push(Fault { at_ms: random.between(0, options.trouble_ms), kind });
    }
}

fn rewinds(random: &mut Random, options: &Options, faults: &mut Vec<Fault>) {
    if random.chance(75) || options.objects < 2 {
        return;
    }
    let object = random.place(options.objects);
    // A copy of the very beginning knows of no link.
    let latest = if random.chance(30) { 5 } else { options.trouble_ms / 2 };
    let copied = random.between(0, latest);
    faults.push(Fault { at_ms: copied, kind: FaultKind::Copy { object } });
    let down_ms = random.between(0, 300);
    let latest =
        if random.chance(60) { copied + (options.trouble_ms - copied) / 8 } else { options.trouble_ms };
    let at_ms = random.between(copied, latest);
    let again_ms = random.between(0, options.trouble_ms - at_ms);
    faults.push(Fault { at_ms, kind: FaultKind::Rewind { object, down_ms, again_ms } });
}

fn pauses(random: &mut Random, options: &Options, faults: &mut Vec<Fault>) {
    if random.chance(50) {
        return;
    }
    for _ in 0..random.between(1, 2 + number(options.hosts) * options.trouble_ms / 4_000) {
        let kind = FaultKind::Pause { host: random.place(options.hosts), for_ms: random.between(5, 2_000) };
        faults.push(Fault { at_ms: random.between(0, options.trouble_ms), kind });
    }
}

/// What others do to files of processes that are up.
fn others(random: &mut Random, options: &Options, faults: &mut Vec<Fault>) {
    for _ in 0..swarm(random, 4) {
        let kind = FaultKind::SecondEngine { host: random.place(options.hosts) };
        faults.push(Fault { at_ms: random.between(0, options.trouble_ms), kind });
    }
    for _ in 0..swarm(random, 30) {
        let kind = FaultKind::Vacuum { object: random.place(options.objects) };
        faults.push(Fault { at_ms: random.between(0, options.trouble_ms), kind });
    }
}

/// Who else archives.
fn archivers(random: &mut Random, options: &Options, faults: &mut Vec<Fault>) {
    if options.archive_percent.is_none() {
        return;
    }
    for _ in 0..swarm(random, 60) {
        let kind = FaultKind::SecondArchiver { object: random.place(options.objects) };
        faults.push(Fault { at_ms: random.between(0, options.trouble_ms), kind });
    }
}

/// Of processes that are killed, some lose their power soon after they are back.
fn aftershocks(random: &mut Random, faults: &mut [Fault]) {
    if random.chance(50) {
        return;
    }
    let longest_ms = magnitude(random, 4, 1_000);
    for Fault { kind, .. } in faults {
        if let FaultKind::Crash { power: false, again_ms, .. } = kind
            && random.chance(60)
        {
            *again_ms = random.between(1, longest_ms);
        }
    }
}

/// Processes that end in order, and objects that end or are to go elsewhere.
fn endings(random: &mut Random, options: &Options, faults: &mut Vec<Fault>) {
    let mut add = |at_ms, kind| faults.push(Fault { at_ms, kind });
    for _ in 0..swarm(random, 8) {
        let (host, down_ms) = (random.place(options.hosts), random.between(0, 300));
        let deadline_ms = *random.pick(&[0, 20, 500, 3_000]);
        let kind = FaultKind::Shutdown { host, deadline_ms, down_ms };
        add(random.between(0, options.trouble_ms), kind);
    }
    for _ in 0..swarm(random, 8) {
        let (object, to) = (random.place(options.objects), random.place(options.objects));
        add(random.between(0, options.trouble_ms), FaultKind::Reparent { object, to });
    }
    if random.chance(10) && options.objects > 2 {
        // Sometimes one, and sometimes two of adjacent levels.
        for _ in 0..random.between(1, 3) {
            let (object, down_ms) = (random.place(options.objects), random.between(0, 300));
            add(random.between(0, options.trouble_ms), FaultKind::Destroy { object, down_ms });
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

fn index(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
