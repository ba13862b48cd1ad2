use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cdc::Env;
use cdc_model::{Clock, Entropy, Timestamp};
use tokio::io::DuplexStream;

use crate::core::executor::{Domain, Executor};
use crate::disk::{self, Disk};
use crate::random::Random;

/// What simulated time begins at.
pub(crate) const UNIX_MS: i64 = 1_700_000_000_000;

/// The environment of one life of one host: its share of the executor, its clock, its randomness.
#[derive(Clone)]
pub(crate) struct SimEnv {
    executor: Executor,
    domain: Domain,
    disk: Disk,
    /// How far the host's clock is off.
    skew_ms: Arc<AtomicI64>,
    random: Arc<Mutex<Random>>,
    /// Until when the disk works on what it was given.
    busy_until: Arc<Mutex<Duration>>,
    job_delay_max: Duration,
}

impl SimEnv {
    pub(crate) fn new(
        executor: Executor,
        domain: Domain,
        disk: Disk,
        skew_ms: Arc<AtomicI64>,
        random: Random,
        job_delay_max: Duration,
    ) -> Self {
        let (random, busy_until) = (Arc::new(Mutex::new(random)), Arc::new(Mutex::new(Duration::ZERO)));
        Self { executor, domain, disk, skew_ms, random, busy_until, job_delay_max }
    }

    fn unix_ms(&self) -> i64 {
        let passed = i64::try_from(self.executor.now().as_millis()).unwrap_or(i64::MAX);
        UNIX_MS + passed + self.skew_ms.load(Ordering::Relaxed)
    }
}

impl Env for SimEnv {
    type Conn = DuplexStream;
    type Listener = ();

    fn now(&self) -> Duration {
        self.executor.now()
    }

    fn clock(&self) -> Clock {
        let env = self.clone();
        Clock::from_fn(move || Timestamp::new(env.unix_ms()))
    }

    fn entropy(&self) -> Entropy {
        let random = Arc::clone(&self.random);
        Entropy::from_fn(move || random.lock().unwrap_or_else(PoisonError::into_inner).next())
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send {
        self.executor.sleep(duration)
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.executor.spawn(self.domain, task);
    }

    fn blocking(&self, job: impl FnOnce() + Send + 'static) {
        let most = u64::try_from(self.job_delay_max.as_micros()).unwrap_or(u64::MAX);
        let mut delay = Duration::from_micros(self.executor.draw(0, most));
        let busy_until = *self.busy_until.lock().unwrap_or_else(PoisonError::into_inner);
        delay = delay.max(busy_until.saturating_sub(self.executor.now()));
        let env = self.clone();
        let job = move || {
            // Triggers and SQLite's own functions ask the disk for the time.
            disk::set_time(env.unix_ms());
            job();
            let late = env.disk.take_latency();
            *env.busy_until.lock().unwrap_or_else(PoisonError::into_inner) = env.executor.now() + late;
        };
        self.executor.run_after(self.domain, delay, Box::new(job));
    }

    async fn listen(&self, _address: SocketAddr) -> io::Result<((), SocketAddr)> {
        Err(no_connections())
    }

    async fn accept(&self, _listener: &mut ()) -> io::Result<(DuplexStream, SocketAddr)> {
        Err(no_connections())
    }

    async fn connect(&self, _address: SocketAddr) -> io::Result<DuplexStream> {
        Err(no_connections())
    }
}

/// This runner's network carries messages; see [`Network`](crate::core::network::Network).
fn no_connections() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "this network has no connections")
}

impl fmt::Debug for SimEnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimEnv").field("domain", &self.domain).finish_non_exhaustive()
    }
}
