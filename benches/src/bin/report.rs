//! Prints every figure beside its baseline, both measured in the same run.
//!
//! One line per figure on stdout, `name value unit baseline ratio bound ok|short`, `-` where there is none; the same
//! as JSON in `bench/report.json` below the target folder. The exit code is 4 when a bounded figure is short of its
//! bound, 2 when `--only` names no figure, 1 when something failed.
//!
//! Bounds are ratios, so that they hold on any machine. For a cost (`µs`) the ratio is ours by the baseline's and the
//! bound the most it may be; for a rate (`/s`) the bound is the least. The ratio is the median of the ratios of single
//! rounds, in which all sides take turns; `value` and `baseline` are medians by themselves. What a guard costs,
//! `capture-…-guard-x100`, is a difference, the median of those within single rounds; it has no ratio and a bound in
//! microseconds. `cpu-µs` and `cpu-s` are processor time of all threads, `µs` and `s` wall time.
//!
//! # Figures
//!
//! Rows are contacts of a CRM, generated from fixed seeds. Files are on the same disk, databases in WAL mode with
//! 4 KiB pages. "Bare" is rusqlite with prepared, cached statements and nothing else.
//!
//! - `append-x{1,100,1000}`: an object's own events of about 300 bytes through `Log::transact`, so many in one
//!   transaction, `synchronous = FULL`. Baseline: bare inserts of the very same nine
//!   columns, digests worked out beforehand, in the same kind of transaction. At most 1.15.
//!   `append-forwarded-…`: the same for events of a hundred children.
//! - `capture-{narrow,wide}-{insert,update,delete}-x{1,100}`: an application's statement on a table of 3 or 20
//!   columns whose triggers an attached object installed, so many in one transaction, `synchronous = NORMAL`.
//!   Baseline: the same statement without triggers and one more prepared insert of the values to be kept (the states
//!   before and after that the operation has) into an untyped table, in the same transaction. At most 1.1 for one per
//!   transaction; for a hundred 1.4, 1.5 for a wide UPDATE and 1.85 for a DELETE. Published beside it: `…-vs-none`,
//!   against the statement alone, `…-vs-trigger`, against a trigger of one insert that keeps the values with constants
//!   in the place of time and nonce, and `capture-textkey-…`, against the floor for a table with a text key, whose
//!   triggers probe a second index. `capture-{narrow,wide}-insert-unguarded-x100`: the same INSERT after the two
//!   triggers were dropped that find the rows which a REPLACE removes. Nobody can have it so: it tells what capture
//!   itself costs. At most 1.15. `…-bare-trigger-x100`: that trigger of one insert against the floor, the least that
//!   capture by a trigger can cost.
//!   `capture-{narrow,wide}-insert-guard-x100`: what these two triggers add to it in processor time; `baseline` is the
//!   INSERT without them. At most 0.8 and 1.2 µs.
//! - `range-read`: `Log::scan` over a log of forwarded events in pages of 1,000. Baseline: stepping a bare `SELECT` of
//!   the same columns, borrowed. At least 0.85. Published: `range-read-owned`, the same by `Log::read`.
//! - `archive-write`: `Archive::append` of one batch, by wall time: admission, digest chain, check that each body comes
//!   back byte for byte, data file, manifest, manifest list, table metadata, each synced. Baseline: a bare Parquet
//!   writer that turns the same records into the same columns, with the same schema and settings, and syncs one file
//!   into the same folder. At least 0.7. Published: `archive-write-cpu`, the same by processor time, and
//!   `archive-write-strict`, against a writer to which the columns are handed ready.
//! - `cold-read`: a scan of the whole archive into records, checked to equal the log's. Baseline: `Log::read` of the
//!   same records. Published.
//! - `replay`: `Reader::replay` of a history of which four fifths are read from the archive and the rest from the log,
//!   checked to be exactly the log. Baseline: the same records from the log alone, through the same reader.
//!   Published.
//! - `drain-{narrow,wide}`: `Attached::look` over captured rows (half inserts, then updates and deletes) in one
//!   transaction. Baseline: bare inserts of the rows that came out of it, in one transaction at the same sync. At most
//!   3. Published: `look-{narrow,wide}`, the same with a single row, so that nearly all of it is opening the database,
//!   reading its schema and finding out that nothing is wrong.
//! - `inbox-{1,100}`: batches of 100 children's events with so many origins in each: admit, plan, store with the mark of
//!   each origin, the link's mark and the counters, a transaction per batch. Baseline: as many events of one's own
//!   appended through the same log in the same transactions. At most 1.3 for one origin; published for a hundred.
//! - `density-…`, only with `--density`: objects without a parent, 100 emitted events of about 300 bytes in each.
//!   `density-memory-open` and `-used`: resident memory per object whose files are open, when it has written its events
//!   and when single events were appended to all of them in turn; at most 0.15 MiB. `density-append-…`: wall time of these
//!   single appends at `FULL`. `density-miss`: wall time of an append to an object that must be opened and for which
//!   another is closed, in a process with ten times as many objects as may be open. Baseline: an append to one object
//!   that stays open, in turns with the misses; at most 10. `density-idle`: processor time a second and open object when
//!   nothing is done. Published: `density-make`, 16 at a time, and `density-open-all`, the wall time of an object's
//!   making with its events and of its opening at start; bytes on the disk; memory per closed object.
//! - `tree-…`: tenants write transactions of 100 statements, 16 tenants at a time, into owned objects; four levels up
//!   to a root that archives. All published, without baseline. `tree-hop-rate`: events a second times hops, from the
//!   first statement until the root has stored everything. `tree-archive-rate`: events a second until everything is in
//!   the archive. `tree-cpu`: processor time of all of that per event. `tree-bytes-hot` and `tree-bytes-cold`: bytes of
//!   the root's database and of its data files per row. `tree-latency-p50` and `-p99`: of single events on the quiet
//!   tree, one every 20 ms, from before the tenant's write until its side knows that the root has stored it, answers
//!   included.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use benches::{
    AppendOptions, CaptureOptions, DensityFigure, DensityOptions, Figure, Kind, Metric, Result, Shape, Tree,
    TreeOptions, Whose, append_sides, archive_sides, capture_sides, cold_sides, compare, density,
    drain_sides, hop_sides, inbox_sides, range_sides, replay_sides,
};
use cdc_model::Operation;
use clap::Parser as _;

/// Runs the benchmarks against their baselines.
#[derive(Debug, clap::Parser)]
struct Arguments {
    /// A small run: shorter and fewer rounds, a small tree.
    #[arg(long)]
    quick: bool,
    /// Only figures whose name begins so.
    #[arg(long, value_name = "NAME", default_value = "")]
    only: String,
    /// Figures whose name begins so are left out.
    #[arg(long, value_name = "NAME")]
    skip: Option<String>,
    /// Tenants of the tree; 1,000, or 50 of a small run.
    #[arg(long)]
    tenants: Option<u32>,
    /// Thousands of objects in one process, and nothing else: memory, disk, latencies, what opening and idling cost.
    #[arg(long)]
    density: bool,
    /// Where the project of `--density` lies; a temporary folder otherwise.
    #[arg(long, value_name = "FOLDER", requires = "density")]
    folder: Option<PathBuf>,
    /// Objects of `--density` in all; 50,000, or 1,000 of a small run. A tenth of them is open at the same time.
    #[arg(long, requires = "density")]
    objects: Option<u32>,
    /// Events of each tenant; 1,000, or 200 of a small run.
    #[arg(long)]
    events: Option<u32>,
}

#[expect(clippy::print_stderr, reason = "what is not data goes to stderr")]
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut report = Report { arguments, figures: Vec::new() };
    eprintln!("{}", Figure::HEADER);
    let done = report.run().and_then(|()| report.save());
    match done {
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
        Ok(()) if report.figures.is_empty() => {
            eprintln!("error: no figure's name begins with {:?}", report.arguments.only);
            ExitCode::from(2)
        }
        Ok(()) if report.figures.iter().all(|figure| figure.ok) => ExitCode::SUCCESS,
        Ok(()) => ExitCode::from(4),
    }
}

/// What was found so far.
#[derive(Debug)]
struct Report {
    arguments: Arguments,
    figures: Vec<Figure>,
}

impl Report {
    fn run(&mut self) -> Result<()> {
        if self.arguments.density {
            return self.density();
        }
        self.append()?;
        self.capture()?;
        self.range()?;
        self.archive()?;
        self.cold()?;
        self.replay()?;
        self.drain()?;
        self.hop()?;
        self.inbox()?;
        self.tree()
    }

    fn append(&mut self) -> Result<()> {
        let (whose, rounds) = (Whose::Own, self.pick(9, 21));
        for (whose, per_transaction) in [(whose, 1), (whose, 100), (whose, 1000), (Whose::Forwarded, 100)] {
            let whose_name = if whose == Whose::Own { "" } else { "forwarded-" };
            let name = format!("append-{whose_name}x{per_transaction}");
            if self.wants(&name) {
                let rows = if per_transaction == 1 { 200 } else { self.pick(5000, 10_000) };
                let mut sides = append_sides(AppendOptions { whose, per_transaction, rows })?;
                let compared = compare(rounds, &mut sides)?;
                self.add(Figure::of(name, &compared, (0, 1), (Kind::Cost, Metric::Cpu), Some(1.15)));
            }
        }
        Ok(())
    }

    fn capture(&mut self) -> Result<()> {
        let text_key = Shape::narrow().with_text_key();
        for (shape, name) in [(Shape::narrow(), "narrow"), (Shape::wide(), "wide"), (text_key, "textkey")] {
            for operation in [Operation::Insert, Operation::Update, Operation::Delete] {
                for per_transaction in [1, 100] {
                    let rows =
                        if per_transaction == 1 { self.pick(500, 1000) } else { self.pick(2000, 4000) };
                    self.captured(name, CaptureOptions { shape, operation, per_transaction, rows })?;
                }
            }
        }
        Ok(())
    }

    fn captured(&mut self, shape_name: &str, options: CaptureOptions) -> Result<()> {
        let CaptureOptions { operation, per_transaction, .. } = options;
        let statement = format!("{shape_name}-{}", operation.as_str().to_lowercase());
        if !self.wants(&format!("capture-{statement}")) {
            return Ok(());
        }
        let compared = compare(self.pick(9, 21), &mut capture_sides(options)?)?;
        let bound = match (shape_name, operation, per_transaction) {
            ("textkey", ..) => None,
            (_, _, 1) => Some(1.1),
            (_, Operation::Delete, _) => Some(1.85),
            ("wide", Operation::Update, _) => Some(1.5),
            _ => Some(1.4),
        };
        let how = (Kind::Cost, Metric::Cpu);
        let name = |what: &str| format!("capture-{statement}{what}-x{per_transaction}");
        self.add(Figure::of(name(""), &compared, (0, 1), how, bound));
        self.add(Figure::of(name("") + "-vs-none", &compared, (0, 2), how, None));
        self.add(Figure::of(name("") + "-vs-trigger", &compared, (0, 4), how, None));
        if operation == Operation::Insert && per_transaction > 1 && shape_name != "textkey" {
            let guard_bound = if shape_name == "narrow" { 0.8 } else { 1.2 };
            self.add(Figure::of(name("-unguarded"), &compared, (3, 1), how, Some(1.15)));
            self.add(Figure::of(name("-unguarded") + "-vs-trigger", &compared, (3, 4), how, None));
            self.add(Figure::of(name("-bare-trigger"), &compared, (4, 1), how, None));
            self.add(Figure::difference(name("-guard"), &compared, (0, 3), guard_bound));
        }
        Ok(())
    }

    fn range(&mut self) -> Result<()> {
        if self.wants("range-read") {
            let compared = compare(self.pick(9, 21), &mut range_sides(self.pick(20_000, 100_000))?)?;
            let how = (Kind::Rate, Metric::Cpu);
            self.add(Figure::of("range-read", &compared, (0, 2), how, Some(0.85)));
            self.add(Figure::of("range-read-owned", &compared, (1, 2), how, None));
        }
        Ok(())
    }

    fn archive(&mut self) -> Result<()> {
        if self.wants("archive-write") {
            let compared = compare(self.pick(5, 9), &mut archive_sides(self.pick(20_000, 50_000))?)?;
            let (wall, cpu) = ((Kind::Rate, Metric::Wall), (Kind::Rate, Metric::Cpu));
            self.add(Figure::of("archive-write", &compared, (0, 1), wall, Some(0.7)));
            self.add(Figure::of("archive-write-cpu", &compared, (0, 1), cpu, None));
            self.add(Figure::of("archive-write-strict", &compared, (0, 2), wall, None));
        }
        Ok(())
    }

    fn cold(&mut self) -> Result<()> {
        if self.wants("cold-read") {
            let compared = compare(self.pick(5, 9), &mut cold_sides(self.pick(20_000, 200_000))?)?;
            self.add(Figure::of("cold-read", &compared, (0, 1), (Kind::Rate, Metric::Wall), None));
        }
        Ok(())
    }

    fn replay(&mut self) -> Result<()> {
        if self.wants("replay") {
            let compared = compare(self.pick(5, 9), &mut replay_sides(self.pick(20_000, 200_000))?)?;
            self.add(Figure::of("replay", &compared, (0, 1), (Kind::Rate, Metric::Wall), None));
        }
        Ok(())
    }

    fn drain(&mut self) -> Result<()> {
        for (shape, name) in [(Shape::narrow(), "drain-narrow"), (Shape::wide(), "drain-wide")] {
            if self.wants(name) {
                let compared = compare(self.pick(7, 15), &mut drain_sides(shape, self.pick(5000, 10_000))?)?;
                self.add(Figure::of(name, &compared, (0, 1), (Kind::Cost, Metric::Cpu), Some(3.0)));
            }
        }
        for (shape, name) in [(Shape::narrow(), "look-narrow"), (Shape::wide(), "look-wide")] {
            if self.wants(name) {
                let compared = compare(self.pick(100, 400), &mut drain_sides(shape, 1)?)?;
                self.add(Figure::of(name, &compared, (0, 1), (Kind::Cost, Metric::Cpu), None));
            }
        }
        Ok(())
    }

    fn hop(&mut self) -> Result<()> {
        if self.wants("hop") {
            let compared = compare(self.pick(7, 15), &mut hop_sides(self.pick(5000, 10_000))?)?;
            self.add(Figure::of("hop", &compared, (0, 1), (Kind::Cost, Metric::Cpu), None));
        }
        Ok(())
    }

    fn inbox(&mut self) -> Result<()> {
        for (origins, bound) in [(1, Some(1.3)), (100, None)] {
            let name = format!("inbox-{origins}");
            if self.wants(&name) {
                let compared =
                    compare(self.pick(7, 15), &mut inbox_sides(origins, self.pick(5000, 10_000))?)?;
                self.add(Figure::of(name, &compared, (0, 1), (Kind::Cost, Metric::Cpu), bound));
            }
        }
        Ok(())
    }

    fn tree(&mut self) -> Result<()> {
        if !self.wants("tree") {
            return Ok(());
        }
        let tenants = self.arguments.tenants.unwrap_or_else(|| self.pick(50, 1000));
        let events = self.arguments.events.unwrap_or_else(|| self.pick(200, 1000));
        let found = Tree::new(TreeOptions { tenants, events, paced: self.pick(100, 500) }).run()?;
        let count = f64::from(found.events);
        let (stored, archived) = (found.stored.wall.as_secs_f64(), found.archived.wall.as_secs_f64());
        let cpu = found.archived.cpu.as_secs_f64() * 1e6 / count;
        self.add(Figure::alone("tree-hop-rate", count * f64::from(found.hops) / stored, "events/s"));
        self.add(Figure::alone("tree-archive-rate", count / archived, "events/s"));
        self.add(Figure::alone("tree-cpu", cpu, "cpu-µs/event"));
        self.add(Figure::alone("tree-bytes-hot", found.hot_bytes, "B/event"));
        self.add(Figure::alone("tree-bytes-cold", found.cold_bytes, "B/event"));
        self.add(Figure::alone("tree-latency-p50", found.latency(50).as_secs_f64() * 1e3, "ms"));
        self.add(Figure::alone("tree-latency-p99", found.latency(99).as_secs_f64() * 1e3, "ms"));
        Ok(())
    }

    fn density(&mut self) -> Result<()> {
        let objects = self.arguments.objects.unwrap_or_else(|| self.pick(1_000, 50_000));
        let options = DensityOptions {
            open: objects / 10,
            objects,
            events: 100,
            appends: self.pick(1_000, 20_000),
            misses: self.pick(200, 2_000),
            idle: Duration::from_secs(self.pick(5, 30)),
            folder: self.arguments.folder.clone(),
        };
        density(&options, &mut |found| {
            let DensityFigure { name, value, unit, baseline, bound } = found;
            let ratio = baseline.map(|baseline| value / baseline);
            let ok = bound.is_none_or(|bound| ratio.unwrap_or(value) <= bound);
            self.add(Figure { name: name.to_owned(), value, unit, baseline, ratio, bound, ok });
        })
    }

    /// Whether a figure, or the group of figures that begins with this name, was asked for.
    fn wants(&self, name: &str) -> bool {
        let only = &self.arguments.only;
        let skipped = self.arguments.skip.as_ref().is_some_and(|skip| name.starts_with(skip));
        !skipped && (name.starts_with(only) || only.starts_with(name))
    }

    fn pick<T>(&self, quick: T, full: T) -> T {
        if self.arguments.quick { quick } else { full }
    }

    #[expect(clippy::print_stdout, reason = "the figures are this program's output")]
    fn add(&mut self, figure: Figure) {
        if figure.name.starts_with(&self.arguments.only) {
            println!("{figure}");
            self.figures.push(figure);
        }
    }

    /// Writes the figures below the target folder, in which this program lies.
    fn save(&self) -> Result<()> {
        if self.figures.is_empty() {
            return Ok(());
        }
        let program = std::env::current_exe()?;
        let target = program.ancestors().nth(2).ok_or("this program does not lie in a target folder")?;
        let folder: PathBuf = target.join("bench");
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("report.json"), serde_json::to_string_pretty(&self.figures)? + "\n")?;
        Ok(())
    }
}
