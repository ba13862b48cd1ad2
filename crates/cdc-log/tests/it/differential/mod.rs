//! Random schemas and random SQL, written by foreign processes with SQLite 3.26, the machine's own and the current one:
//! what the log adds up to is what the tables hold, value and type, after every transaction.
//!
//! `cargo xtask differential` runs it for long. A difference is told with its seed and the history that leads to it, made
//! as short as some minutes allow.

mod changes;
mod follower;
mod history;
mod live;
mod owned;
mod plan;
mod world;
mod writer;

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use plan::Plan;
use world::{Counts, Difference, Event, Kind, World};
use writer::Writer;

/// Every so many worlds one is an object that we own, to which nobody else writes and which also emits documents.
const OWNED_EVERY: u64 = 8;

/// What a run shall do.
struct Options {
    statements: u64,
    seed: u64,
    writers: Vec<String>,
    jobs: usize,
}

/// What all jobs share.
struct Shared {
    next_seed: u64,
    counts: Counts,
    worlds: u64,
    found: Option<String>,
    told: Instant,
}

/// A world that ended in a difference: its events up to there.
struct Failed {
    difference: Difference,
    events: Vec<Event>,
}

/// Runs `work`; a panic of the product is a difference too.
fn caught(work: impl FnOnce() -> Result<(), Difference>) -> Result<(), Difference> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(Difference::new(Kind::Panic, text.unwrap_or_default()))
    })
}

/// Runs the world of a seed.
fn run_world(seed: u64, writers: &mut [Writer]) -> Result<Counts, Box<Failed>> {
    let versions: Vec<i32> = writers.iter().map(|writer| writer.version).collect();
    let (mut plan, begin) = Plan::begin(seed, &versions, true);
    let mut world = World::new(writers);
    let mut events = Vec::new();
    let result = caught(|| {
        let mut go = |world: &mut World<'_>, next: Vec<Event>| {
            let from = events.len();
            events.extend(next);
            world.run(&events[from..])
        };
        go(&mut world, begin)?;
        world.live.read_schema();
        if world.counts.refused > 0 {
            // A schema that SQLite itself refuses.
            return Ok(());
        }
        let before = plan.before(&world.live.tables);
        go(&mut world, before)?;
        for _ in 0..plan.transactions {
            let step = plan.step(&world.live.tables, &world.live.ours, &world.live.theirs);
            go(&mut world, step)?;
        }
        world.verify()
    });
    match result {
        Ok(()) => Ok(world.counts.clone()),
        Err(difference) => Err(Box::new(Failed { difference, events })),
    }
}

fn start(programs: &[(String, PathBuf)]) -> Vec<Writer> {
    programs.iter().map(|(_, program)| Writer::start(program)).collect()
}

/// One job: world after world until there were enough statements, or a difference.
fn job(options: &Options, programs: &[(String, PathBuf)], shared: &Mutex<Shared>) {
    let mut writers = start(programs);
    loop {
        let seed = {
            let mut shared = shared.lock().unwrap();
            if shared.found.is_some() || shared.counts.statements() >= options.statements {
                return;
            }
            shared.next_seed += 1;
            shared.next_seed - 1
        };
        let ran = if seed.is_multiple_of(OWNED_EVERY) {
            owned::run_world(seed)
        } else {
            run_world(seed, &mut writers)
        };
        match ran {
            Ok(counts) => {
                let mut shared = shared.lock().unwrap();
                shared.counts.add(&counts);
                shared.worlds += 1;
                progress(options, &mut shared);
            }
            Err(failed) => {
                let text = history::explain(seed, *failed, programs);
                shared.lock().unwrap().found.get_or_insert(text);
                return;
            }
        }
    }
}

/// On a terminal: how far it is.
fn progress(options: &Options, shared: &mut Shared) {
    let mut out = std::io::stderr();
    if out.is_terminal() && shared.told.elapsed() > Duration::from_millis(200) {
        shared.told = Instant::now();
        let (done, all) = (shared.counts.statements(), options.statements);
        write!(out, "\r{done} of {all} statements, {} worlds ", shared.worlds).unwrap();
    }
}

fn run(options: &Options) {
    let mut programs = Vec::new();
    for kind in &options.writers {
        match writer::build(kind) {
            Some(program) => programs.push((kind.clone(), program)),
            None => eprintln!("no writer {kind}: its SQLite is not here"),
        }
    }
    assert!(!programs.is_empty(), "no writer could be built; is there a C compiler?");
    let names: BTreeMap<i32, String> = programs
        .iter()
        .zip(start(&programs))
        .map(|((name, _), writer)| (writer.version, name.clone()))
        .collect();
    let begin = Instant::now();
    let shared = Mutex::new(Shared {
        next_seed: options.seed,
        counts: Counts::default(),
        worlds: 0,
        found: None,
        told: begin,
    });
    std::thread::scope(|scope| {
        for _ in 0..options.jobs {
            scope.spawn(|| job(options, &programs, &shared));
        }
    });
    for (_, program) in &programs {
        std::fs::remove_file(program).unwrap();
    }
    let shared = shared.into_inner().unwrap();
    report(options, &shared, &names, begin.elapsed());
    if let Some(found) = &shared.found {
        panic!("{found}");
    }
}

fn version(number: i32) -> String {
    format!("{}.{}.{}", number / 1_000_000, number / 1000 % 1000, number % 1000)
}

fn report(options: &Options, shared: &Shared, names: &BTreeMap<i32, String>, took: Duration) {
    let counts = &shared.counts;
    println!("differential: {}\n", if shared.found.is_none() { "passed" } else { "failed" });
    println!("statements    {}", counts.statements());
    println!(
        "transactions  {}, {} statements refused by the tables, {} by a lock",
        counts.transactions, counts.refused, counts.busy
    );
    println!(
        "comparisons   {}, {} of them value by value; {} rows",
        counts.comparisons, counts.whole_comparisons, counts.rows_compared
    );
    println!(
        "log           {} records, {} of them reconciled after a change of the schema or a way around capture; {} capture rows trimmed",
        counts.records, counts.reconciled, counts.trimmed
    );
    println!(
        "worlds        {} from seed {}, {} at a time, in {:.1} s",
        shared.worlds,
        options.seed,
        options.jobs,
        took.as_secs_f64()
    );
    println!("by writer");
    for (number, statements) in &counts.versions {
        let name = names.get(number).map_or("", String::as_str);
        println!("{statements:>14}  SQLite {} ({name})", version(*number));
    }
    println!("by kind");
    let mut kinds: Vec<_> = counts.kinds.iter().collect();
    kinds.sort_by_key(|(kind, n)| (std::cmp::Reverse(**n), **kind));
    for (kind, statements) in kinds {
        println!("{statements:>14}  {kind}");
    }
    println!("differences   {}", u8::from(shared.found.is_some()));
}

fn setting<T: std::str::FromStr>(name: &str, otherwise: T) -> T {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

#[test]
fn the_log_adds_up_to_the_tables_that_foreign_processes_write() {
    let writers = writer::KINDS.map(str::to_owned).into_iter().skip(1).collect();
    run(&Options { statements: 20_000, seed: 1, writers, jobs: 2 });
}

/// What `cargo xtask differential` starts.
#[test]
#[ignore = "runs as long as it is asked to"]
fn for_long() {
    let writers = setting("CDC_WRITERS", writer::KINDS.join(","));
    run(&Options {
        statements: setting("CDC_STATEMENTS", 200_000),
        seed: setting("CDC_SEED", 1),
        writers: writers.split(',').map(str::to_owned).collect(),
        jobs: setting("CDC_JOBS", 2),
    });
}
