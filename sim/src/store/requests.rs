use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use cdc_model::Clock;
use object_store::path::Path;
use object_store::{Attributes, Error, PutMode, PutResult, Result};
use xxhash_rust::xxh3::Xxh3Default;

use crate::random::Random;
use crate::store::counts::StoreCounts;
use crate::store::faults::{self, Fate, StoreFaults};
use crate::store::host::HostStore;
use crate::store::objects::{Change, Objects};

/// Requests that are kept for the story of a failure.
const LINES_MAX: usize = 60;
/// A late change is done within so many further requests.
const LATE_MAX: u64 = 40;

/// One simulated object store for all hosts. Clones are the same store.
///
/// Hosts see it through [`SimStore::for_host`], with faults. What is asked of it directly is for the simulator: it
/// meets no fault and leaves no trace.
#[derive(Clone)]
pub struct SimStore(Arc<Mutex<State>>);

struct State {
    objects: Objects,
    clock: Clock,
    random: Random,
    faults: StoreFaults,
    counts: StoreCounts,
    trace: Xxh3Default,
    newest: VecDeque<String>,
    /// Changes under way, by the number of the request before which they are done.
    late: BTreeMap<u64, Vec<(u32, Change)>>,
}

/// What a host asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    Put,
    Get,
    Head,
    List,
    Delete,
    Copy,
}

/// A request, before its fate is known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) host: u32,
    /// Whether the host lives to have it done.
    pub(crate) is_alive: bool,
    pub(crate) operation: Operation,
    pub(crate) path: &'a Path,
    /// Bytes to write, or how many ranges to read.
    pub(crate) size: usize,
}

impl Operation {
    const fn writes(self) -> bool {
        matches!(self, Self::Create | Self::Put | Self::Copy)
    }
}

impl Change {
    fn parts(&self) -> (Operation, &Path, usize) {
        match self {
            Self::Put { path, bytes, mode: PutMode::Create, .. } => (Operation::Create, path, bytes.len()),
            Self::Put { path, bytes, .. } => (Operation::Put, path, bytes.len()),
            Self::Delete { path } => (Operation::Delete, path, 0),
            Self::Copy { to, .. } => (Operation::Copy, to, 0),
        }
    }
}

impl SimStore {
    /// An empty store without faults. `clock` stamps its objects.
    #[must_use]
    pub fn new(seed: u64, clock: Clock) -> Self {
        Self(Arc::new(Mutex::new(State {
            objects: Objects::default(),
            clock,
            random: Random::stream(seed, "store"),
            faults: StoreFaults::NONE,
            counts: StoreCounts::default(),
            trace: Xxh3Default::new(),
            newest: VecDeque::new(),
            late: BTreeMap::new(),
        })))
    }

    /// The store as one life of a host sees it. A host that comes back to life gets a new one.
    #[must_use]
    pub fn for_host(&self, host: u32) -> HostStore {
        HostStore::new(self.clone(), host)
    }

    /// From now on requests fail as often as this says.
    ///
    /// # Panics
    ///
    /// When the rates add up to more than all requests, or all requests wait.
    pub fn set_faults(&self, faults: StoreFaults) {
        faults.assert_sound();
        self.lock().faults = faults;
    }

    /// Requests so far.
    #[must_use]
    pub fn counts(&self) -> StoreCounts {
        self.lock().counts
    }

    /// A hash over all requests so far, with their outcomes.
    #[must_use]
    pub fn trace_hash(&self) -> u64 {
        self.lock().trace.digest()
    }

    /// The newest requests as text.
    #[must_use]
    pub fn story(&self) -> String {
        self.lock().newest.iter().fold(String::new(), |story, line| story + line + "\n")
    }

    /// Rules of the store's users that were broken: a name that is written once got other bytes.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        self.lock().objects.violations().to_vec()
    }

    /// The bytes of an object as they are now.
    #[must_use]
    pub fn object(&self, path: &str) -> Option<Bytes> {
        self.lock().objects.bytes(&Path::parse(path).ok()?).cloned()
    }

    /// How often anything below a folder was written or deleted so far.
    pub(crate) fn changes_below(&self, folder: &str) -> u64 {
        self.lock().objects.changes_below(folder)
    }

    /// The paths of all objects below a folder, sorted.
    ///
    /// # Panics
    ///
    /// When `folder` is no path.
    #[must_use]
    pub fn paths_below(&self, folder: &str) -> Vec<String> {
        let folder = Path::parse(folder).expect("a folder is a path");
        self.lock().objects.below(&folder).map(|(path, _)| path.to_string()).collect()
    }

    /// All objects below a folder, as they are now.
    pub(crate) fn objects_below(&self, folder: &str) -> BTreeMap<String, Bytes> {
        let folder = Path::parse(folder).expect("a folder is a path");
        let state = self.lock();
        state.objects.below(&folder).map(|(path, bytes)| (path.to_string(), bytes.clone())).collect()
    }

    /// Creates an object if there is none, as another user of the store does. Gives whether there was none.
    pub(crate) fn create(&self, path: &str, bytes: Bytes) -> bool {
        let Ok(path) = Path::parse(path) else { return false };
        let mut state = self.lock();
        let now = state.clock.now();
        state.objects.put(&path, bytes, &PutMode::Create, Attributes::default(), now).is_ok()
    }

    /// Puts bytes behind everybody's back: damage, planted on purpose.
    ///
    /// # Panics
    ///
    /// When `path` is none.
    pub fn plant(&self, path: &str, bytes: impl Into<Bytes>) {
        let path = Path::parse(path).expect("an object has a path");
        let mut state = self.lock();
        let now = state.clock.now();
        state.objects.insert(&path, bytes.into(), Attributes::new(), now);
    }

    /// Removes an object behind everybody's back, and returns whether it was there.
    #[must_use]
    pub fn remove(&self, path: &str) -> bool {
        Path::parse(path).is_ok_and(|path| self.lock().objects.delete(&path))
    }

    /// Whether a request that begins now lets others go first.
    pub(crate) fn waits(&self) -> bool {
        let mut state = self.lock();
        let faults = state.faults;
        faults.waits(&mut state.random)
    }

    /// Reads as the request's fate wants it. Returns the time it took beside what `act` gave.
    pub(crate) fn read<T>(
        &self,
        request: Request<'_>,
        act: impl FnOnce(&Objects) -> Result<T>,
    ) -> (Duration, Result<T>) {
        self.lock().serve(request, None, |objects, _| act(objects))
    }

    /// Changes as the request's fate wants it. Returns the time it took beside the answer.
    pub(crate) fn change(&self, host: u32, is_alive: bool, change: &Change) -> (Duration, Result<PutResult>) {
        let (operation, path, size) = change.parts();
        let request = Request { host, is_alive, operation, path, size };
        self.lock().serve(request, Some(change), |objects, clock| objects.apply(change.clone(), clock.now()))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for SimStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimStore").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

impl State {
    fn serve<T>(
        &mut self,
        request: Request<'_>,
        change: Option<&Change>,
        act: impl FnOnce(&mut Objects, &Clock) -> Result<T>,
    ) -> (Duration, Result<T>) {
        self.counts.requests += 1;
        self.catch_up();
        let fate = self.faults.draw(&mut self.random);
        let (outcome, result) = if !request.is_alive {
            self.counts.dead += 1;
            ("dead", Err(faults::unreachable()))
        } else if self.faults.full && request.operation.writes() {
            self.counts.full += 1;
            ("full", Err(faults::full()))
        } else {
            self.fulfil(fate, request, change, act)
        };
        let took = if let Fate::Slow(took) = fate { took } else { Duration::ZERO };
        self.note(request, outcome, took);
        (took, result)
    }

    /// Does the changes that are late and due.
    fn catch_up(&mut self) {
        while let Some(due) = self.late.first_entry().filter(|due| *due.key() <= self.counts.requests) {
            for (host, change) in due.remove() {
                let done = self.objects.apply(change.clone(), self.clock.now()).is_ok();
                self.counts.changes += u64::from(done);
                self.counts.late += u64::from(done);
                let (operation, path, size) = change.parts();
                let request = Request { host, is_alive: true, operation, path, size };
                self.note(request, if done { "done late" } else { "too late" }, Duration::ZERO);
            }
        }
    }

    fn fulfil<T>(
        &mut self,
        fate: Fate,
        request: Request<'_>,
        change: Option<&Change>,
        act: impl FnOnce(&mut Objects, &Clock) -> Result<T>,
    ) -> (&'static str, Result<T>) {
        match (fate, change) {
            (Fate::Error, _) => {
                self.counts.errors += 1;
                return ("error", Err(faults::server_error()));
            }
            (Fate::Throttled, _) => {
                self.counts.throttled += 1;
                return ("throttled", Err(faults::throttled()));
            }
            (Fate::Late, Some(change)) => {
                let due = self.counts.requests + self.random.between(1, LATE_MAX);
                self.late.entry(due).or_default().push((request.host, change.clone()));
                return ("late", Err(faults::timeout()));
            }
            (Fate::Slow(_), _) => self.counts.slow += 1,
            (Fate::Served | Fate::LostAck | Fate::Late | Fate::Echo, _) => {}
        }
        let result = act(&mut self.objects, &self.clock);
        let changed = result.is_ok() && change.is_some();
        self.counts.changes += u64::from(changed);
        match (fate, &result) {
            (Fate::LostAck | Fate::Late, _) => {
                self.counts.lost_acks += u64::from(changed);
                (if changed { "lost ack" } else { "lost answer" }, Err(faults::timeout()))
            }
            (Fate::Echo, Ok(_)) if request.operation == Operation::Create => {
                self.counts.echoes += 1;
                ("echo", Err(faults::exists(request.path)))
            }
            (_, Ok(_)) => ("ok", result),
            (_, Err(Error::AlreadyExists { .. })) => {
                self.counts.exists += 1;
                ("exists", result)
            }
            (_, Err(Error::NotFound { .. })) => ("not found", result),
            (_, Err(_)) => ("refused", result),
        }
    }

    fn note(&mut self, request: Request<'_>, outcome: &str, took: Duration) {
        let Request { host, operation, path, size, .. } = request;
        let line = format!("host {host}: {operation:?} {path} ({size}): {outcome} {} µs", took.as_micros());
        self.trace.update(line.as_bytes());
        self.trace.update(b"\n");
        if self.newest.len() == LINES_MAX {
            self.newest.pop_front();
        }
        self.newest.push_back(line);
    }
}
