use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cdc_model::{Clock, Entropy, Timestamp};

use crate::disk::{self, Disk, FileStates};
use crate::random::Random;

/// What simulated time begins at.
pub(crate) const UNIX_MS: i64 = 1_700_000_000_000;

/// What one life of a process runs on, besides tasks and connections: a disk, a clock, randomness.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    disk: Disk,
    /// How far the clock is off.
    skew_ms: Arc<AtomicI64>,
    random: Arc<Mutex<Random>>,
    /// Until when the disk works on what it was given.
    busy_until: Arc<Mutex<Duration>>,
    job_delay_max: Duration,
}

impl Machine {
    pub(crate) fn new(disk: Disk, skew_ms: Arc<AtomicI64>, random: Random, job_delay_max: Duration) -> Self {
        let (random, busy_until) = (Arc::new(Mutex::new(random)), Arc::new(Mutex::new(Duration::ZERO)));
        Self { disk, skew_ms, random, busy_until, job_delay_max }
    }

    /// The wall clock, which may be off.
    pub(crate) fn clock(&self, now: impl Fn() -> Duration + Send + Sync + 'static) -> Clock {
        let machine = self.clone();
        Clock::from_fn(move || Timestamp::new(machine.unix_ms(now())))
    }

    pub(crate) fn entropy(&self) -> Entropy {
        let random = Arc::clone(&self.random);
        Entropy::from_fn(move || random.lock().unwrap_or_else(PoisonError::into_inner).next())
    }

    /// A number of this life's own stream.
    pub(crate) fn draw(&self, least: u64, most: u64) -> u64 {
        self.random.lock().unwrap_or_else(PoisonError::into_inner).between(least, most)
    }

    /// What the disk tells of a database's files.
    pub(crate) fn file_states(&self, database: &Path) -> FileStates {
        self.disk.states(database)
    }

    /// The longest wait of a job for a thread, in microseconds.
    pub(crate) fn job_delay_max_us(&self) -> u64 {
        u64::try_from(self.job_delay_max.as_micros()).unwrap_or(u64::MAX)
    }

    /// How long a job waits that has to wait this long for a thread: the disk may be busy for longer.
    pub(crate) fn job_delay(&self, drawn_us: u64, now: Duration) -> Duration {
        let busy_until = *self.busy_until.lock().unwrap_or_else(PoisonError::into_inner);
        Duration::from_micros(drawn_us).max(busy_until.saturating_sub(now))
    }

    /// Runs a job that may use the disk.
    pub(crate) fn run(&self, job: impl FnOnce(), now: Duration) {
        // Triggers and SQLite's own functions ask the disk for the time.
        disk::set_time(self.unix_ms(now));
        job();
        let late = self.disk.take_latency();
        *self.busy_until.lock().unwrap_or_else(PoisonError::into_inner) = now + late;
    }

    fn unix_ms(&self, now: Duration) -> i64 {
        unix_ms(now) + self.skew_ms.load(Ordering::Relaxed)
    }
}

/// The wall clock of nobody in particular, which is never off.
pub(crate) fn true_clock(now: impl Fn() -> Duration + Send + Sync + 'static) -> Clock {
    Clock::from_fn(move || Timestamp::new(unix_ms(now())))
}

fn unix_ms(now: Duration) -> i64 {
    UNIX_MS + i64::try_from(now.as_millis()).unwrap_or(i64::MAX - UNIX_MS)
}
