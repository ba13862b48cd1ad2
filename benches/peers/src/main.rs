//! Puts the same events through other systems and through ours, in the same run.
//!
//! `cargo xtask bench --peers` builds and starts it. One line per figure on stdout, `name value unit baseline ratio
//! bound ok|short`, as `report` prints them; the exit code is 4 when a bounded figure is short, 2 when a server is
//! missing, 1 when something failed. Servers are started here, on loopback, in a temporary folder, and stopped again.
//!
//! # Figures
//!
//! - `append-x{100,1}-PEER`: events of about 300 bytes a second by wall time, so many in a batch that is acknowledged
//!   as a whole. `…-cpu`: processor time per event, of this process and of the server's processes together.
//! - `read-PEER`: the events of the round, in pages of 1,000, each handed over as bytes; `read-PEER-cpu` as above.
//! - `bytes-PEER`: bytes on disk per event.
//! - `capture-{narrow,wide}-{insert,update,delete}-x{1,100}-turso`: an application's statement under our triggers, in
//!   processor time. Baseline: the same statement in Turso with its full change data capture. At most 0.85.
//!
//! The baseline of all but the last is `log`, our own append and read with a sync per batch. All take turns, in rounds
//! of a rotating order, and each figure is that of its best round: what else goes on in the machine only adds to it.
//! The comparison of capture takes medians, as `report` does.

mod embedded;
mod nats;
mod ours;
mod peer;
mod postgres;
mod redis;
mod server;
mod turso;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use benches::{CaptureOptions, Figure, Kind, Metric, Result, Shape, compare};
use cdc_model::Operation;
use clap::Parser as _;

use peer::{Found, Options, Peer};

/// Compares with other systems.
#[derive(Debug, clap::Parser)]
struct Arguments {
    /// Fewer and shorter rounds.
    #[arg(long)]
    quick: bool,
    /// Only peers whose name begins so, beside `log`; `capture` for the comparison of capture alone.
    #[arg(long, value_name = "NAME", default_value = "")]
    only: String,
    /// Leave out what needs a server.
    #[arg(long)]
    embedded: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let missing = if arguments.embedded { Vec::new() } else { server::missing(|name| arguments.wants(name)) };
    if !missing.is_empty() {
        for (program, package) in missing {
            eprintln!(
                "error: `{program}` is missing; {package} brings it, and --embedded does without servers"
            );
        }
        return ExitCode::from(2);
    }
    eprintln!("{}", Figure::HEADER);
    match run(&arguments) {
        Err(error) => {
            let causes = std::iter::successors(error.source(), |cause| cause.source());
            let causes: String = causes.map(|cause| format!(": {cause}")).collect();
            eprintln!("error: {error}{causes}");
            ExitCode::FAILURE
        }
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(4),
    }
}

impl Arguments {
    fn wants(&self, name: &str) -> bool {
        name.starts_with(&self.only) || self.only.starts_with(name)
    }
}

/// Prints everything; gives whether all bounds hold.
fn run(arguments: &Arguments) -> Result<bool> {
    let mut ok = true;
    let mut print = |figure: Figure| {
        println!("{figure}");
        ok &= figure.ok;
    };
    if arguments.wants("capture") {
        capture(arguments.quick, &mut print)?;
    }
    if !arguments.only.starts_with("capture") {
        let folder = tempfile::tempdir()?;
        let mut peers = peers(folder.path(), arguments)?;
        let options = if arguments.quick {
            Options { rounds: 3, batched: 1000, single: 50 }
        } else {
            Options { rounds: 7, batched: 5000, single: 200 }
        };
        for figure in figures(&peer::measure(options, &mut peers)?) {
            print(figure);
        }
    }
    Ok(ok)
}

/// All peers, ours first; the log is the baseline of all.
fn peers(folder: &Path, arguments: &Arguments) -> Result<Vec<(&'static str, Box<dyn Peer>)>> {
    type Make = fn(&Path) -> Result<Box<dyn Peer>>;
    let embedded: [(&'static str, Make); 7] = [
        ("log", ours::log),
        ("owned-emit", ours::owned_emit),
        ("attached", ours::attached),
        ("turso-cdc", turso::cdc),
        ("fjall-buffered", embedded::fjall_buffered),
        ("fjall-sync", embedded::fjall_sync),
        ("redb", embedded::redb),
    ];
    let servers: [(&'static str, Make); 5] = [
        ("redis-everysec", redis::everysec),
        ("redis-always", redis::always),
        ("nats", nats::default),
        ("nats-always", nats::always),
        ("postgres", postgres::logical),
    ];
    let servers = servers.into_iter().filter(|_| !arguments.embedded);
    let mut peers = Vec::new();
    for (name, make) in embedded.into_iter().chain(servers) {
        if name == "log" || arguments.wants(name) {
            let folder = folder.join(name);
            std::fs::create_dir(&folder)?;
            peers.push((name, make(&folder)?));
        }
    }
    Ok(peers)
}

fn figures(found: &[Found]) -> Vec<Figure> {
    let Some(base) = found.first() else { return Vec::new() };
    let mut figures = Vec::new();
    let mut add = |name: String, value: Option<f64>, unit, baseline: Option<f64>| {
        let Some(value) = value else { return };
        let ratio = baseline.map(|baseline| value / baseline);
        figures.push(Figure { name, value, unit, baseline, ratio, bound: None, ok: true });
    };
    let rate = |wall: Option<f64>| wall.map(|wall| 1e6 / wall);
    for one in found {
        let name = one.name;
        for (what, ours, base) in [
            ("append-x100", Some(&one.batched), Some(&base.batched)),
            ("append-x1", Some(&one.single), Some(&base.single)),
            ("read", one.read.as_ref(), base.read.as_ref()),
        ] {
            let wall = |cost: Option<&peer::Best>| rate(cost.map(|cost| cost.wall));
            let cpu = |cost: Option<&peer::Best>| cost.map(|cost| cost.cpu);
            add(format!("{what}-{name}"), wall(ours), "events/s", wall(base));
            add(format!("{what}-{name}-cpu"), cpu(ours), "cpu-µs/event", cpu(base));
        }
        add(format!("bytes-{name}"), Some(one.bytes), "B/event", Some(base.bytes));
    }
    figures
}

/// Our triggers against Turso's full capture of the same statements.
fn capture(quick: bool, print: &mut impl FnMut(Figure)) -> Result<()> {
    for (shape, shape_name) in [(Shape::narrow(), "narrow"), (Shape::wide(), "wide")] {
        for operation in [Operation::Insert, Operation::Update, Operation::Delete] {
            for per_transaction in [1, 100] {
                let rows = if per_transaction == 1 { 500 } else { 2000 };
                let options = CaptureOptions { shape, operation, per_transaction, rows };
                let folder = Arc::new(tempfile::tempdir()?);
                let mut sides = benches::capture_sides(options)?;
                sides.truncate(1);
                sides.push(turso::captured(folder, options)?);
                let compared = compare(if quick { 5 } else { 11 }, &mut sides)?;
                let operation = operation.as_str().to_lowercase();
                let name = format!("capture-{shape_name}-{operation}-x{per_transaction}-turso");
                print(Figure::of(name, &compared, (0, 1), (Kind::Cost, Metric::Cpu), Some(0.85)));
            }
        }
    }
    Ok(())
}
