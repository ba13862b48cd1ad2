//! How a plan is drawn from a seed: each class of faults is in it or not, and rates are of any magnitude.

use cdc::Trim;

use crate::plan::{
    DiskRates, Fault, FaultKind, FaultPlan, Link, NetworkRates, Options, SiteRates, StoreRates,
};
use crate::random::Random;
use crate::topology;

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
        let kept = [None, None, None, Some(1), Some(20), Some(200)];
        options.retention_events = *Random::stream(seed, "retention").pick(&kept);
        options.rotten = *Random::stream(seed, "rotten").pick(&[0, 0, 2, 8]);
        options.reject_percent = *Random::stream(seed, "rejects").pick(&[0, 0, 30]);
        options.reckless_percent = *Random::stream(seed, "reckless").pick(&[0, 0, 0, 30]);
        options.redesigned_percent = *Random::stream(seed, "redesigned").pick(&[0, 0, 20, 60]);
        options.audit_ms = *Random::stream(seed, "audits").pick(&[0, 0, 200, 2_000]);
        options.trim = *Random::stream(seed, "trims").pick(&[Trim::Idle, Trim::Always, Trim::Never]);
        if options.objects <= SMALL {
            options.filled_percent = *Random::stream(seed, "filled").pick(&[0, 0, 30, 60]);
        }
        let mut normal = Random::stream(seed, "normal");
        options.normal_percent = *normal.pick(&[0, 30, 100]);
        options.sync_ms = *normal.pick(&[None, Some(1), Some(300), Some(300)]);
        options.store.foreign_commits = swarm(&mut Random::stream(seed, "foreign"), 2_000);
        let mut handles = Random::stream(seed, "handles");
        options.open_objects_max = *handles.pick(&[None, None, Some(1), Some(2), Some(5)]);
        options.idle_ms = *handles.pick(&[None, None, Some(100), Some(2_000)]);
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
        rewinds(seed, &mut classes, &options, &mut faults);
        pauses(&mut classes, &options, &mut faults);
        others(&mut Random::stream(seed, "others"), &options, &mut faults);
        archivers(&mut Random::stream(seed, "archivers"), &options, &mut faults);
        aftershocks(&mut Random::stream(seed, "aftershocks"), &mut faults);
        endings(&mut Random::stream(seed, "endings"), &options, &mut faults);
        fills(&mut Random::stream(seed, "fills"), &options, &mut faults);
        faults.sort_by_key(|fault| fault.at_ms);
        Self { seed, options, faults, mutant: None }
    }
}

impl Options {
    fn draw(random: &mut Random, objects: Option<usize>) -> Self {
        let drawn = [2, 3, 5, 8, 13, 30, 60];
        let objects = objects.unwrap_or_else(|| *random.pick(&drawn)).max(1);
        let most_hosts = (objects / 2 + 1).clamp(2, 24);
        let hosts = random.between(2, number(most_hosts)).min(number(objects).max(1));
        let large = objects > LARGE;
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
                batch_size: *random.pick(if large { &[30, 100, 300, 1_000] } else { &[1, 3, 10, 100] }),
                batch_timeout_ms: *random.pick(&[5, 50, 1_000]),
                batch_bytes_max: *random.pick(if large { &[1 << 16, 1 << 20] } else { &[1 << 10, 1 << 20] }),
            },
            archive_percent: if random.chance(40) { Some(*random.pick(&[0, 0, 10, 50])) } else { None },
            archive_events_min: *random.pick(archive_events_min(objects)),
            filter_percent: *random.pick(&[0, 0, 30]),
            reject_percent: 0,
            count_percent: *random.pick(&[0, 0, 30]),
            consume_percent: *random.pick(&[0, 30]),
            attached_percent: 0,
            reckless_percent: 0,
            redesigned_percent: 0,
            retention_events: None,
            audit_ms: 0,
            trim: Trim::Idle,
            filled_percent: 0,
            normal_percent: 0,
            sync_ms: None,
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
            open_objects_max: None,
            idle_ms: None,
        }
    }
}

/// Events a commit to an archive waits for. Each commit adds a file at least, and each snapshot names every file so far.
const fn archive_events_min(objects: usize) -> &'static [u64; 3] {
    match objects {
        0..=8 => &[5, 50, 1_000],
        9..=LARGE => &[20, 50, 1_000],
        _ => &[1_000, 2_000, 5_000],
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
/// From more objects on, a root takes so many events that they are sent and archived in large batches, or all else
/// would wait for it.
const LARGE: usize = 200;
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
            at_sync: false,
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

/// Disks that run full and stay so: there is some more room in the meantime, but not enough to take anything new.
fn fills(random: &mut Random, options: &Options, faults: &mut Vec<Fault>) {
    if !random.chance(15) {
        return;
    }
    for host in 0..options.hosts {
        let at_ms = random.between(5, options.trouble_ms);
        let mut full = |at_ms, room| {
            faults.push(Fault { at_ms, kind: FaultKind::DiskFull { host, room, for_ms: LONG_MS } })
        };
        full(at_ms, random.between(0, 10_000));
        if random.chance(70) {
            full(
                at_ms + random.between(20, options.trouble_ms / 3),
                *random.pick(&[2_000, 20_000, 10_000_000]),
            );
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

fn rewinds(seed: u64, random: &mut Random, options: &Options, faults: &mut Vec<Fault>) {
    if random.chance(75) || options.objects < 2 {
        return;
    }
    let mut object = random.place(options.objects);
    // Archives are mostly of the root.
    if options.archive_percent.is_some() && Random::stream(seed, "rewound roots").chance(40) {
        object = 0;
    }
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
        if let FaultKind::Crash { power: false, again_ms, at_sync, .. } = kind
            && random.chance(60)
        {
            *again_ms = random.between(1, longest_ms);
            // What was written and not synced is there most likely then.
            *at_sync = random.chance(50);
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

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

fn index(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
