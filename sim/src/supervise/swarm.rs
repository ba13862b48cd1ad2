use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cdc_model::fault;
use sim::FaultPlan;

use super::child::{Children, ENDS, Ran, Verdict};
use super::mutate::{self, Seeds};
use super::options::{ShrinkOptions, SwarmOptions, cores, jobs};
use super::plans::{read_plan, read_plans, write_plan};
use super::pool::{self, News};
use super::progress::{Progress, figures};
use super::report::{Compared, Curve, Failed, Rates, Report, Small, mutant_line, rows_of_ours};
use super::shrink::{Failing, Shrinker, story};
use super::tally::{Tally, milliseconds};
use super::{Error, origin};
use crate::line::{Breach, Measured};
use crate::runner::Runner;
use crate::scenario::Scenario;

/// Failures that are told and whose plans are kept; the others are counted.
const FAILURES_KEPT_MAX: usize = 50;

/// Failures that are made smaller, each of another kind.
const SHRUNK_MAX: usize = 3;

/// The exit code of what somebody interrupted and that had found nothing by then.
const INTERRUPTED: u8 = 130;

const SAME_AGAIN: &str = "the same plan gives the same run";

/// Runs what the options ask for: first the seeds that are run twice, then stored plans, seeds, mutants.
pub(crate) fn swarm(options: &SwarmOptions) -> Result<ExitCode, Error> {
    let mut swarm = Swarm::new(options)?;
    swarm.determinism();
    swarm.plans()?;
    swarm.seeds();
    swarm.mutants()?;
    swarm.shrink()?;
    swarm.end()
}

/// Makes one plan smaller.
pub(crate) fn shrink(options: &ShrinkOptions) -> Result<ExitCode, Error> {
    let children = children(options.timeout)?;
    let plan = read_plan(&options.plan)?;
    let ran = children.run(&plan, options.runner);
    let Verdict::Broken(breach) = ran.verdict else {
        println!("{} keeps every promise: there is nothing to make smaller", options.plan.display());
        return Ok(ExitCode::FAILURE);
    };
    let children = children.with_timeout(time_to_fail(&breach, ran.wall, options.timeout));
    let first = Failing { plan, breach, measured: ran.measured };
    let time = Duration::from_secs(60 * options.minutes);
    let (small, runs) = Shrinker::new(&children, options.runner, jobs(options.jobs), time, first).shrink();
    let name = options.plan.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let path = write_plan(&options.report.join("plans"), &format!("{name}-small"), &small.plan)?;
    println!(
        "{}\n\nmade smaller in {runs} runs; again: {}",
        story(&small),
        replay_file(&path, options.runner)
    );
    Ok(ExitCode::SUCCESS)
}

/// A smaller world takes no longer; one that does is not the failure that is looked for, unless not to end is.
fn time_to_fail(breach: &Breach, wall: Duration, timeout: u64) -> Duration {
    let most = Duration::from_secs(timeout);
    if breach.promise == ENDS { most } else { (wall * 3).clamp(Duration::from_secs(10), most.max(wall * 3)) }
}

fn children(timeout: u64) -> Result<Children, Error> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        let at_once =
            signal_hook::flag::register_conditional_shutdown(signal, INTERRUPTED.into(), Arc::clone(&stop));
        at_once.map_err(|source| Error::Signal { source })?;
        let orderly = signal_hook::flag::register(signal, Arc::clone(&stop));
        orderly.map_err(|source| Error::Signal { source })?;
    }
    Ok(Children::new(Duration::from_secs(timeout), stop))
}

/// Without faults in the code a seed is another run than with them.
fn replay_file(path: &Path, runner: Runner) -> String {
    replay(&format!("--plans {}", path.display()), runner)
}

fn replay(what: &str, runner: Runner) -> String {
    let tool = if fault::ENABLED { "cargo xtask sim" } else { "cargo run --package sim -- swarm" };
    let runner = if runner == Runner::Core { String::new() } else { format!(" --runner {}", runner.name()) };
    format!("{tool} {what}{runner}")
}

/// One plan to run.
#[derive(Clone, Debug)]
struct Case {
    label: String,
    plan: FaultPlan,
    runner: Runner,
    replay: String,
}

struct Swarm<'o> {
    options: &'o SwarmOptions,
    children: Children,
    jobs: usize,
    began: Instant,
    progress: Progress,
    /// The time of each runner's runs.
    spent: Arc<Mutex<BTreeMap<Runner, Duration>>>,
    report: Report,
}

impl<'o> Swarm<'o> {
    fn new(options: &'o SwarmOptions) -> Result<Self, Error> {
        if options.mutants.is_some() && !fault::ENABLED {
            let what =
                "this build has no mutants; run `cargo xtask sim --mutants`, which builds one that has";
            return Err(Error::Request { what: what.to_owned() });
        }
        let report = Report {
            origin: origin::of_this_run(options),
            elapsed_ms: 0,
            interrupted: false,
            determinism: None,
            plans: None,
            seeds: None,
            tally: Tally::default(),
            tally_ms: 0,
            rates: Rates::default(),
            curve: Curve::default(),
            mutants: Vec::new(),
            sites: Vec::new(),
            sites_matter: options.minutes.is_some() && options.scenario == Scenario::Swarm && fault::ENABLED,
            failures: Vec::new(),
        };
        Ok(Self {
            options,
            children: children(options.timeout())?,
            jobs: jobs(options.jobs),
            began: Instant::now(),
            progress: Progress::new(),
            spent: Arc::default(),
            report,
        })
    }

    fn case(options: &SwarmOptions, seed: u64, runner: Runner) -> Case {
        let mut what = format!("--seed {seed}");
        if options.scenario != Scenario::default() {
            what.push_str(&format!(" --scenario {}", options.scenario.name()));
        }
        if let Some(objects) = options.objects {
            what.push_str(&format!(" --objects {objects}"));
        }
        Case {
            label: format!("seed {seed}"),
            plan: options.scenario.draw(seed, options.objects),
            runner,
            replay: replay(&what, runner),
        }
    }

    /// Every figure of two runs of a plan is equal.
    fn determinism(&mut self) {
        let options = self.options;
        let Some(seeds) = options.determinism else { return };
        self.progress.begin("run twice");
        let first = options.first_seed();
        let cases = cases(options, first..first.saturating_add(seeds));
        let children = self.children.clone();
        let cases = cases.take_while(|_| !children.is_stopped());
        let mut compared = Compared::default();
        let twice = |case: Case| {
            let run = || children.run(&case.plan, case.runner);
            let both = (run(), run());
            (case, both)
        };
        pool::run(self.jobs, cases, twice, |news| {
            if let News::Done((case, (one, other))) = news
                && one.verdict != Verdict::Stopped
                && other.verdict != Verdict::Stopped
            {
                compared.seeds += 1;
                let difference = difference(&one, &other);
                compared.differing += u64::from(difference.is_some());
                match (difference, one.verdict) {
                    (Some(breach), _) => self.keep(&case, breach, one.wall),
                    (None, Verdict::Broken(breach)) => {
                        self.report.tally.failures += 1;
                        self.keep(&case, breach, one.wall);
                    }
                    (None, Verdict::Kept | Verdict::Stopped) => {}
                }
            }
            self.show(compared.seeds, Some(runs_of(options, seeds)));
        });
        self.report.determinism = Some(compared);
    }

    fn plans(&mut self) -> Result<(), Error> {
        let options = self.options;
        let Some(path) = &options.plans else { return Ok(()) };
        self.progress.begin("plans");
        let stored = read_plans(path)?;
        if stored.is_empty() {
            let what = format!("{} holds no plans; give --plans a folder with some", path.display());
            return Err(Error::Request { what });
        }
        let each = |(path, plan): (PathBuf, FaultPlan)| {
            options.runner.0.iter().map(move |runner| Case {
                label: path.display().to_string(),
                plan: plan.clone(),
                runner: *runner,
                replay: replay_file(&path, *runner),
            })
        };
        let of = u64::try_from(stored.len() * options.runner.0.len()).ok();
        let done = self.run(stored.into_iter().flat_map(each), of);
        self.report.plans = Some(done);
        Ok(())
    }

    fn seeds(&mut self) {
        let options = self.options;
        let most = options.seeds_max();
        if most == 0 {
            return;
        }
        self.progress.begin("seeds");
        let first = options.first_seed();
        let until = options.minutes.map(|minutes| self.began + Duration::from_secs(60 * minutes));
        let range = first..first.saturating_add(most);
        let done = match until {
            None => self.run(cases(options, range), Some(runs_of(options, most))),
            Some(until) => {
                let cases =
                    Balanced { options, spent: Arc::clone(&self.spent), next: BTreeMap::new(), range };
                self.run(cases.take_while(move |_| Instant::now() < until), None)
            }
        };
        self.report.seeds = Some(done);
    }

    /// Runs cases and returns how many came to an end.
    fn run(&mut self, cases: impl Iterator<Item = Case> + Send, of: Option<u64>) -> u64 {
        let children = self.children.clone();
        let failures = AtomicU64::new(self.report.tally.failures);
        let most = self.options.failures_max;
        let goes_on = |_: &Case| !children.is_stopped() && failures.load(Ordering::Relaxed) < most;
        let (began, spent) = (Instant::now(), Arc::clone(&self.spent));
        let once = |case: Case| {
            let ran = children.run(&case.plan, case.runner);
            *spent.lock().unwrap_or_else(PoisonError::into_inner).entry(case.runner).or_default() += ran.wall;
            (case, ran)
        };
        let mut done = 0;
        pool::run(self.jobs, cases.take_while(goes_on), once, |news| {
            if let News::Done((case, ran)) = news
                && ran.verdict != Verdict::Stopped
            {
                done += 1;
                self.count(&case, ran);
                failures.store(self.report.tally.failures, Ordering::Relaxed);
            }
            self.show(done, of);
        });
        self.report.tally_ms += milliseconds(began.elapsed());
        done
    }

    fn count(&mut self, case: &Case, ran: Ran) {
        self.report.tally.add(case.runner, &ran);
        let Tally { runs, failures, .. } = self.report.tally;
        self.report.curve.push(self.began.elapsed(), runs, failures);
        if let Verdict::Broken(breach) = ran.verdict {
            self.keep(case, breach, ran.wall);
        }
    }

    fn keep(&mut self, case: &Case, breach: Breach, wall: Duration) {
        let Case { label, plan, runner, replay } = case.clone();
        self.progress.say(&format!("{label}: {}: {}", breach.promise, breach.saw));
        if self.report.failures.len() < FAILURES_KEPT_MAX {
            self.report.failures.push(Failed { label, runner, breach, replay, small: None, plan, wall });
        }
    }

    fn show(&mut self, done: u64, of: Option<u64>) {
        let figures = figures(&self.report.tally, self.began.elapsed());
        self.progress.show(done, of, &figures);
    }

    /// Each worker takes a mutant and runs its seeds in order, so that the number of seeds does not depend on how many
    /// run side by side.
    fn mutants(&mut self) -> Result<(), Error> {
        let options = self.options;
        let Some(which) = &options.mutants else { return Ok(()) };
        self.progress.begin("mutants");
        let chosen = which.of_ours().map_err(|name| {
            let names = sim::MUTANTS.iter().map(|mutant| mutant.name).collect::<Vec<_>>().join(", ");
            Error::Request { what: format!("there is no mutant {name}; there are: {names}") }
        })?;
        let draw = |seed| options.scenario.draw(seed, options.objects);
        let seeds = Seeds { first: options.first_seed(), max: options.mutant_seeds_max, draw };
        let runner = *options.runner.0.first().unwrap_or(&Runner::Core);
        let children = self.children.clone();
        let of = u64::try_from(chosen.len()).ok();
        let queue = chosen.into_iter().take_while(|_| !children.is_stopped());
        let mut tried = Vec::new();
        let one = |mutant| mutate::try_one(mutant, &children, runner, &seeds);
        pool::run(self.jobs, queue, one, |news| {
            if let News::Done(done) = news {
                self.progress.say(&mutant_line(&done));
                tried.push(done);
            }
            self.progress.show(u64::try_from(tried.len()).unwrap_or(u64::MAX), of, "tried");
        });
        tried.sort_by(|one, other| one.name.cmp(&other.name));
        self.report.mutants = tried;
        Ok(())
    }

    /// Keeps the plans of failures, and makes one of each kind smaller.
    fn shrink(&mut self) -> Result<(), Error> {
        let folder = self.options.report.join("plans");
        let mut kinds: Vec<Breach> = Vec::new();
        for order in 0..self.report.failures.len() {
            let Some(failed) = self.report.failures.get(order).cloned() else { break };
            let name = format!("{}-{}", failed.runner.name(), failed.label.replace(['/', ' ', '.'], "-"));
            write_plan(&folder, &name, &failed.plan)?;
            let known = kinds.iter().any(|breach| breach.is_like(&failed.breach));
            let comparable = failed.breach.promise != SAME_AGAIN;
            if !self.options.shrink || known || !comparable || kinds.len() == SHRUNK_MAX {
                continue;
            }
            kinds.push(failed.breach.clone());
            let small = self.shrink_one(&folder, &name, failed)?;
            if let Some(failed) = self.report.failures.get_mut(order) {
                failed.small = Some(small);
            }
        }
        Ok(())
    }

    fn shrink_one(&self, folder: &Path, name: &str, failed: Failed) -> Result<Small, Error> {
        let Failed { runner, breach, plan, wall, .. } = failed;
        let children = self.children.with_timeout(time_to_fail(&breach, wall, self.options.timeout()));
        let first = Failing { plan, breach, measured: Measured::default() };
        let time = Duration::from_secs(60 * self.options.shrink_minutes);
        let (small, runs) = Shrinker::new(&children, runner, self.jobs, time, first).shrink();
        let path = write_plan(folder, &format!("{name}-small"), &small.plan)?;
        Ok(Small { story: story(&small), replay: replay_file(&path, runner), runs })
    }

    fn end(mut self) -> Result<ExitCode, Error> {
        self.progress.end();
        let report = &mut self.report;
        report.interrupted = self.children.is_stopped();
        report.elapsed_ms = milliseconds(self.began.elapsed());
        let elapsed = Duration::from_millis(report.tally_ms);
        report.rates = Rates::of(&report.tally, elapsed, self.jobs.min(cores()));
        report.sites = rows_of_ours(&report.tally);
        let text = report.write(&self.options.report)?;
        print!("{text}");
        println!("\nreport: {}", self.options.report.join("report.html").display());
        Ok(match (report.faults_found().is_empty(), report.interrupted) {
            (false, _) => ExitCode::FAILURE,
            (true, true) => ExitCode::from(INTERRUPTED),
            (true, false) => ExitCode::SUCCESS,
        })
    }
}

/// The cases of seeds: each with every runner.
fn cases(options: &SwarmOptions, seeds: std::ops::Range<u64>) -> impl Iterator<Item = Case> + Send {
    let of_seed = move |seed| options.runner.0.iter().map(move |runner| Swarm::case(options, seed, *runner));
    seeds.flat_map(of_seed)
}

/// Cases without an end: the next is always one of the runner whose runs have taken the least time so far.
struct Balanced<'o> {
    options: &'o SwarmOptions,
    spent: Arc<Mutex<BTreeMap<Runner, Duration>>>,
    /// How many of the seeds each has begun.
    next: BTreeMap<Runner, u64>,
    range: std::ops::Range<u64>,
}

impl Iterator for Balanced<'_> {
    type Item = Case;

    fn next(&mut self) -> Option<Case> {
        let spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let of = |runner: &Runner| {
            let begun = self.next.get(runner).copied().unwrap_or_default();
            (spent.get(runner).copied().unwrap_or_default(), begun)
        };
        let runner = *self.options.runner.0.iter().min_by_key(|runner| of(runner))?;
        let begun = self.next.entry(runner).or_default();
        let seed = self.range.start.checked_add(*begun).filter(|seed| *seed < self.range.end)?;
        *begun += 1;
        Some(Swarm::case(self.options, seed, runner))
    }
}

/// Each runner runs each seed.
fn runs_of(options: &SwarmOptions, seeds: u64) -> u64 {
    seeds.saturating_mul(u64::try_from(options.runner.0.len()).unwrap_or(u64::MAX))
}

/// In what two runs of a plan differ.
fn difference(one: &Ran, other: &Ran) -> Option<Breach> {
    if (&one.verdict, &one.measured) == (&other.verdict, &other.measured) {
        return None;
    }
    let both = |name: &str, one: &dyn std::fmt::Debug, other: &dyn std::fmt::Debug| {
        format!("{name}: {one:?}\n{name}: {other:?}")
    };
    let (first, second) = (&one.measured, &other.measured);
    let saw = format!(
        "traces {:x} and {:x}, {} and {} steps",
        first.trace, second.trace, first.steps, second.steps
    );
    let story = both("verdict", &one.verdict, &other.verdict) + "\n" + &both("measured", first, second);
    Some(Breach { promise: SAME_AGAIN.to_owned(), saw, story, place: None })
}
