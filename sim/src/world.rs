//! The world of a plan, whatever runs its processes: what befalls them, what is looked at, how it ends.

mod befalling;
use befalling::Death;
mod ending;
mod looking;
mod rotting;
mod runner;
pub(crate) use runner::{Life, Runner};
mod traffic;
pub(crate) use traffic::{HostIndex, Traffic};

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cdc_iceberg::Storage;
use cdc_model::fault;
use serde::Serialize;
use tempfile::TempDir;
use tokio::sync::mpsc;

use crate::checks::{Claim, Looks, Tables, check_end, check_settled, what_is_missing};
use crate::disk::{self, Disk, Faults};
use crate::failure::{Broken, Failure};
use crate::host::{Host, News, Order};
use crate::known::number;
use crate::machine::Machine;
use crate::oracle::Oracle;
use crate::plan::{DiskRates, Fault, FaultKind, FaultPlan, StoreRates};
use crate::random::{Random, mixed};
use crate::store::{HostStore, SimStore, StoreFaults};
use crate::topology::{self, Place};

/// After healing, something that is missing must arrive within this simulated time: the longest pause of an archive
/// that failed is a minute.
const LIVENESS_MAX: Duration = Duration::from_secs(180);

/// ... and everything within this one. Where each event is a batch of its own, a large world needs minutes.
const ARRIVAL_MAX: Duration = Duration::from_secs(900);

/// How often is asked whether everything has arrived.
const ARRIVAL_ASKED_EVERY: Duration = Duration::from_millis(500);

/// Notes of what was called settled between two looks into a file.
const CLAIMS_PER_LOOK: u64 = 8;

/// Notes of what was called settled that wait to be held against the logs.
const CLAIMS_MAX: usize = 10_000;

/// Looks into files between two into an archive.
const LOOKS_PER_TABLE: u64 = 32;

/// Looks into files between two occasions for somebody else to commit to a table.
const LOOKS_PER_FOREIGN: u64 = 2;

/// Objects whose replay is held against what was written, at the end.
const FOLDS_MAX: usize = 3;

/// Lines of a story.
const STORY_MAX: usize = 60;

/// How long a slow request to the store takes at most.
const SLOW_REQUEST_MAX: Duration = Duration::from_secs(5);

/// The address of the simulated store.
const WAREHOUSE: &str = "sim://warehouse";

/// What a run amounts to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// A hash over every step, message, disk and store operation and row.
    pub trace: u64,
    /// Steps of the runner.
    pub steps: u64,
    /// Simulated milliseconds.
    pub simulated_ms: u64,
    /// Transactions of the workload that committed.
    pub transactions: u64,
    /// Events they wrote.
    pub events: u64,
    /// Rows of all logs that the checkers have seen.
    pub rows: u64,
    /// SQLite transactions that wrote.
    pub commits: u64,
    /// Counts by kind.
    pub counts: BTreeMap<&'static str, u64>,
    /// Sites in the code: how often passed, how often fired.
    pub sites: BTreeMap<&'static str, (u64, u64)>,
}

/// What is to be done at a simulated time.
#[derive(Clone, Copy, Debug)]
enum Event {
    Fault(FaultKind),
    Start(usize),
    Mend(usize, usize),
    Resume(usize),
    RoomAgain(usize),
    StoreBack,
}

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// What it wrote stays, and stays unsynced.
    Killed,
    /// With what was not synced.
    PowerLost,
    /// In order.
    Closed,
}

/// A process as the world sees it.
#[derive(Debug)]
struct Process {
    disk: Disk,
    store: Option<HostStore>,
    folder: PathBuf,
    skew_ms: Arc<AtomicI64>,
    life: u64,
    is_up: bool,
    orders: Option<mpsc::UnboundedSender<Order>>,
    /// How the armed crash ends it.
    armed: Option<Death>,
    /// An object whose copy is put back before the next start.
    put_back: Option<usize>,
    opened: BTreeSet<usize>,
}

/// A plan as it runs.
pub(crate) struct World<'p, R> {
    plan: &'p FaultPlan,
    runner: R,
    traffic: Traffic,
    steps: u64,
    oracle: Arc<Mutex<Oracle>>,
    looks: Looks,
    store: Option<SimStore>,
    tables: Tables,
    processes: Vec<Process>,
    copies: BTreeMap<usize, disk::FileCopy>,
    /// What each file was when it was last looked at.
    looked_at: BTreeMap<usize, (u64, u64)>,
    claims: Vec<Claim>,
    paths: Vec<PathBuf>,
    /// Where the tables are: in the same files, or in those of applications.
    databases: Vec<PathBuf>,
    /// What is to be done, by its time and the order in which it was thought of.
    events: BTreeMap<(Duration, u64), Event>,
    planned: u64,
    /// Until when pairs of hosts are parted.
    parted: BTreeMap<(usize, usize), Duration>,
    /// Until when processes stand still.
    paused: BTreeMap<usize, Duration>,
    news: mpsc::UnboundedReceiver<News>,
    tell: mpsc::UnboundedSender<News>,
    crashes: Random,
    foreign: Random,
    healed: bool,
    story: VecDeque<String>,
    counts: BTreeMap<&'static str, u64>,
    last_failure: BTreeMap<usize, String>,
    folder: TempDir,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'p, R: Runner> World<'p, R> {
    /// Runs a plan from the beginning to the end.
    pub(crate) fn run(plan: &'p FaultPlan, runner: R, traffic: Traffic) -> Result<Outcome, Box<Failure>> {
        let _installed = disk::install(plan.seed);
        let mut story = VecDeque::new();
        let mut reached = Outcome::default();
        let done = Self::new(plan, runner, traffic).and_then(|mut world| {
            let done = world.go();
            reached = world.outcome();
            story = std::mem::take(&mut world.story);
            world.shut();
            done
        });
        match done {
            Ok(()) => Ok(reached),
            Err(Broken { promise, saw }) => {
                let story = story.into_iter().collect::<Vec<_>>().join("\n");
                Err(Box::new(Failure { seed: plan.seed, promise, saw, story, outcome: reached }))
            }
        }
    }

    fn new(plan: &'p FaultPlan, runner: R, traffic: Traffic) -> Result<Self, Broken> {
        let (seed, options) = (plan.seed, &plan.options);
        fault::plant(Some(fault::Faults {
            seed,
            active_percent: options.sites.active_percent,
            fire_per_10_000: options.sites.fire_per_10_000,
            mutant: plan.mutant.clone(),
        }));
        let keeps_open = options.open_objects_max.is_none() && options.idle_ms.is_none();
        let folder = new_folder()?;
        let places = topology::draw(seed, options);
        let store = options.archive_percent.map(|_| SimStore::new(seed, runner.clock()));
        let home = |place: &Place| folder.path().join(format!("host-{}", place.host));
        let paths: Vec<PathBuf> = places.iter().map(|place| home(place).join(place.log_file())).collect();
        let tables_of = |(at, place): (usize, &Place)| home(place).join(place.tables_file(at));
        let databases: Vec<PathBuf> = places.iter().enumerate().map(tables_of).collect();
        let processes = (0..options.hosts).map(|host| {
            let root = folder.path().join(format!("host-{host}"));
            std::fs::create_dir(&root)?;
            let random = Random::stream(seed, "disk").branch(host);
            Ok(Process {
                disk: Disk::mount(&root, random, Faults::default()),
                store: None,
                folder: root,
                skew_ms: Arc::default(),
                life: 0,
                is_up: false,
                orders: None,
                armed: None,
                put_back: None,
                opened: BTreeSet::new(),
            })
        });
        let processes = processes.collect::<Result<Vec<_>, std::io::Error>>()?;
        let tables = Tables::new(&places);
        let oracle = Arc::new(Mutex::new(Oracle::new(seed, places)));
        let (tell, news) = mpsc::unbounded_channel();
        Ok(Self {
            plan,
            runner,
            traffic,
            steps: 0,
            oracle,
            looks: Looks::new(paths.clone(), databases.clone(), keeps_open),
            store,
            tables,
            processes,
            copies: BTreeMap::new(),
            looked_at: BTreeMap::new(),
            claims: Vec::new(),
            paths,
            databases,
            events: BTreeMap::new(),
            planned: 0,
            parted: BTreeMap::new(),
            paused: BTreeMap::new(),
            news,
            tell,
            crashes: Random::stream(seed, "crash"),
            foreign: Random::stream(seed, "foreign commits"),
            healed: false,
            story: VecDeque::new(),
            counts: BTreeMap::new(),
            last_failure: BTreeMap::new(),
            folder,
        })
    }

    fn go(&mut self) -> Result<(), Broken> {
        for Fault { at_ms, kind } in self.plan.faults.clone() {
            self.at(Duration::from_millis(at_ms), Event::Fault(kind));
        }
        self.runner.set_rates(self.plan.options.network);
        self.set_faults(true);
        for host in 0..self.processes.len() {
            self.start(host)?;
        }
        self.run_until(self.plan.options.trouble())?;
        self.heal()?;
        let healed_at = self.runner.now();
        let (mut missed, mut missed_since) = (None, healed_at);
        loop {
            self.run_until(self.runner.now() + ARRIVAL_ASKED_EVERY)?;
            self.look_at_all()?;
            let missing = match self.not_open() {
                Some(missing) => Some(missing),
                None => {
                    let oracle = lock(&self.oracle);
                    for claim in self.claims.extract_if(.., |claim| claim.is_known(&oracle)) {
                        check_settled(&oracle, &claim)?;
                    }
                    what_is_missing(&oracle)
                }
            };
            type Asked<W> = fn(&mut W) -> Result<Option<String>, Broken>;
            let asked: [Asked<Self>; 5] = [
                Self::not_consumed,
                Self::not_archived,
                Self::not_drained,
                Self::not_trimmed,
                Self::not_pruned,
            ];
            let missing = asked.into_iter().try_fold(missing, |missing, asked| match missing {
                Some(missing) => Ok(Some(missing)),
                None => asked(self),
            })?;
            let Some(missing) = missing else { break };
            let now = self.runner.now();
            if missed.as_ref() != Some(&missing) {
                (missed, missed_since) = (Some(missing.clone()), now);
            }
            if now - missed_since > LIVENESS_MAX || now - healed_at > ARRIVAL_MAX {
                let saw = self.with_failures(missing);
                // What has stopped says more than what it keeps from arriving.
                self.check_troubles()?;
                return Err(Broken { promise: "what is written arrives", saw });
            }
        }
        self.note("everything has arrived");
        check_end(&mut lock(&self.oracle), &mut self.looks)?;
        self.check_troubles()?;
        self.check_detected()?;
        self.check_folds()?;
        self.check_rot()
    }

    fn outcome(&mut self) -> Outcome {
        let (steps, trace) = self.runner.trace();
        let mut counts = self.counts.clone();
        let traffic = self.traffic.counts();
        // Logs of theirs were still changing when the world ended.
        *counts.entry("claims never held").or_default() += number(self.claims.len());
        counts.insert("messages", traffic.sent);
        counts.insert("lost requests", traffic.lost_requests);
        counts.insert("repeated requests", traffic.repeated);
        counts.insert("lost acks", traffic.lost_acks);
        counts.insert("partitions", traffic.partitions);
        counts.insert("batches of clones", traffic.clones);
        counts.insert("stray requests", traffic.strays);
        let mut trace = trace;
        let mut commits = 0;
        for process in &self.processes {
            let disk = process.disk.counts();
            trace = mixed(trace, process.disk.trace_hash());
            commits += disk.commits;
            for (name, count) in [
                ("power losses", disk.crashes),
                ("kills", disk.kills),
                ("writes lost", disk.lost),
                ("writes torn", disk.torn),
                ("read errors", disk.read_errors),
                ("write errors", disk.write_errors),
                ("sync errors", disk.sync_errors),
                ("open errors", disk.open_errors),
                ("full disk refusals", disk.full),
            ] {
                *counts.entry(name).or_default() += count;
            }
        }
        if let Some(store) = &self.store {
            trace = mixed(trace, store.trace_hash());
            let store = store.counts();
            counts.insert("store requests", store.requests);
            counts.insert("store lost acks", store.lost_acks);
            counts.insert("store errors", store.errors + store.throttled);
        }
        let oracle = lock(&self.oracle);
        for known in &oracle.objects {
            trace = known.rows.iter().fold(trace, |trace, row| mixed(trace, row.hash));
        }
        counts.insert("looks", self.looks.looks);
        counts.insert("records read along", oracle.records_read);
        counts.insert("databases begun anew", oracle.begun_anew);
        counts.insert("redesigned tables", oracle.redesigns);
        let sites = fault::sites().into_iter().map(|(name, site)| (name, (site.passed, site.fired)));
        Outcome {
            trace,
            steps,
            simulated_ms: u64::try_from(self.runner.now().as_millis()).unwrap_or(u64::MAX),
            transactions: oracle.commits,
            events: oracle.facts,
            rows: self.looks.rows,
            commits,
            counts,
            sites: sites.collect(),
        }
    }

    fn at(&mut self, time: Duration, event: Event) {
        self.planned += 1;
        self.events.insert((time, self.planned), event);
    }

    fn note(&mut self, what: impl Into<String>) {
        if self.story.len() == STORY_MAX {
            self.story.pop_front();
        }
        self.story.push_back(format!("{:>10.3} ms  {}", self.runner.now().as_secs_f64() * 1e3, what.into()));
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn run_until(&mut self, until: Duration) -> Result<(), Broken> {
        loop {
            let next = self.events.first_key_value().map_or(until, |((due, _), _)| until.min(*due));
            if self.runner.step(next) {
                self.after_step()?;
            } else if !self.handle_due()? && self.runner.now() >= until {
                return Ok(());
            }
        }
    }

    fn after_step(&mut self) -> Result<(), Broken> {
        self.bury()?;
        while let Ok(news) = self.news.try_recv() {
            self.hear(news)?;
        }
        {
            let mut oracle = lock(&self.oracle);
            oracle.moment += 1;
            if let Some(broken) = oracle.broken.take() {
                return Err(broken);
            }
        }
        self.steps += 1;
        let is_time = |steps: u64| self.steps.is_multiple_of(steps.max(1));
        let (claims, looks) = (is_time(R::STEPS_PER_LOOK / CLAIMS_PER_LOOK), is_time(R::STEPS_PER_LOOK));
        let foreign = is_time(R::STEPS_PER_LOOK * LOOKS_PER_FOREIGN);
        let tables = is_time(R::STEPS_PER_LOOK * LOOKS_PER_TABLE);
        if claims {
            self.note_claim()?;
        }
        if looks {
            self.look_at_one()?;
        }
        if foreign {
            self.commit_foreign();
        }
        match &self.store {
            Some(store) if tables => self.tables.check_next(store, &lock(&self.oracle)),
            _ => Ok(()),
        }
    }

    /// Whether there was anything.
    fn handle_due(&mut self) -> Result<bool, Broken> {
        let mut any = false;
        while let Some(due) = self.events.first_entry().filter(|due| due.key().0 <= self.runner.now()) {
            let event = due.remove();
            self.handle(event)?;
            any = true;
        }
        Ok(any)
    }

    fn set_faults(&self, trouble: bool) {
        let rate = |rate: u64| u32::try_from(rate).unwrap_or(u32::MAX);
        let DiskRates { read_errors, write_errors, sync_errors, open_errors, slow_syncs } =
            if trouble { self.plan.options.disk } else { DiskRates::default() };
        for process in &self.processes {
            process.disk.set_faults(Faults {
                read_errors_per_million: rate(read_errors),
                write_errors_per_million: rate(write_errors),
                sync_errors_per_million: rate(sync_errors),
                open_errors_per_million: rate(open_errors),
                slow_syncs_per_million: rate(slow_syncs),
                slow_sync_time: Duration::from_millis(80),
                ..Faults::default()
            });
        }
        let StoreRates { errors, lost_acks, throttled, late, echoes, slow, .. } =
            if trouble { self.plan.options.store } else { StoreRates::default() };
        if let Some(store) = &self.store {
            let faults = StoreFaults {
                error: errors / 10,
                lost_ack: lost_acks / 10,
                throttled: throttled / 10,
                late: late / 10,
                echo: echoes / 10,
                slow: slow / 10,
                slow_max: SLOW_REQUEST_MAX,
                ..StoreFaults::NONE
            };
            store.set_faults(faults);
        }
    }

    fn start(&mut self, host: usize) -> Result<(), Broken> {
        let options = &self.plan.options;
        let process = self.processes.get_mut(host).expect("a host of this world");
        if process.is_up {
            return Ok(());
        }
        if let Some(object) = process.put_back.take() {
            // Of an attached object it is the application's database alone; the log stays as it is.
            let (path, copy) = (self.databases.get(object), self.copies.get(&object));
            if let (Some(path), Some(copy)) = (path, copy) {
                process.disk.put_back(path, copy)?;
                let mut oracle = lock(&self.oracle);
                if oracle.is_attached(object) { oracle.loosen(object) } else { oracle.rewind(object) }
            }
        }
        process.life += 1;
        process.is_up = true;
        process.opened.clear();
        let life = usize::try_from(process.life).unwrap_or(usize::MAX);
        let random = Random::stream(self.plan.seed, "host").branch(host).branch(life);
        process.store =
            self.store.as_ref().map(|store| store.for_host(u32::try_from(host).unwrap_or(u32::MAX)));
        let storage = process.store.as_ref().map(|store| Storage::over(Arc::new(store.clone()), WAREHOUSE));
        let delay = Duration::from_micros(options.job_delay_max_us);
        let machine =
            Machine::new(process.disk.clone(), Arc::clone(&process.skew_ms), random.branch(1), delay);
        let shell = Host {
            host,
            folder: process.folder.clone(),
            disk: process.disk.clone(),
            options: options.clone(),
            random: random.branch(2),
            readers: Arc::default(),
            oracle: Arc::clone(&self.oracle),
            storage,
            news: self.tell.clone(),
        };
        self.runner.start(Life { host, number: process.life, shell, machine });
        Ok(())
    }

    fn process(&mut self, host: usize) -> &mut Process {
        self.processes.get_mut(host).expect("a host of this world")
    }

    fn is_open(&self, object: usize) -> bool {
        let host = lock(&self.oracle).place(object).host;
        let process = self.processes.get(host).expect("a host of this world");
        process.is_up && process.opened.contains(&object) && !process.disk.is_dead()
    }

    fn hear(&mut self, news: News) -> Result<(), Broken> {
        match news {
            News::Up { host, .. } | News::Failed { host, .. } if !self.process(host).is_up => Ok(()),
            News::Up { host, orders } => {
                self.process(host).orders = Some(orders);
                self.note(format!("host {host} is up"));
                Ok(())
            }
            News::Closed { host, .. } if !self.process(host).is_up => Ok(()),
            News::Closed { host, down } => self.closed(host, down),
            News::Opened { object } => {
                let host = lock(&self.oracle).place(object).host;
                if !self.process(host).is_up {
                    return Ok(());
                }
                self.process(host).opened.insert(object);
                self.quietly(host, |looks, oracle| {
                    oracle.dirty.remove(&object);
                    looks.look_again(oracle, object)
                })
            }
            News::Failed { host, reason } => {
                self.count("failed openings");
                self.note(format!("host {host} cannot open: {reason}"));
                self.last_failure.insert(host, reason);
                Ok(())
            }
        }
    }

    /// Ends all processes, so that nothing of this world is left.
    fn shut(mut self) {
        for host in 0..self.processes.len() {
            self.process(host).disk.kill();
            self.runner.end(host, false);
        }
        self.runner.shut();
        // What lies in memory goes with the folder.
        drop(self.folder.close());
    }
}

/// In memory where the system has such a place: it holds descriptions and locks of the engine's objects only.
fn new_folder() -> Result<TempDir, Broken> {
    let memory = PathBuf::from("/dev/shm");
    Ok(if memory.is_dir() { tempfile::tempdir_in(memory)? } else { tempfile::tempdir()? })
}
