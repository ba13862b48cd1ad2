use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ::turmoil::net::{TcpListener, TcpStream};
use cdc::Env;
use cdc_model::{Clock, Entropy};

use crate::machine::Machine;
use crate::schedule::Schedule;
use crate::watch::SimWatch;
use crate::world::HostIndex;

/// The time of a simulation, also for those that are on none of its hosts. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Time(Arc<AtomicU64>);

impl Time {
    pub(super) fn now(&self) -> Duration {
        // A host is somewhere within the step that the simulation is at.
        ::turmoil::sim_elapsed().unwrap_or(Duration::ZERO).max(self.step())
    }

    /// When the step began.
    pub(super) fn step(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::Relaxed))
    }

    pub(super) fn set(&self, now: Duration) {
        self.0.store(u64::try_from(now.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// The environment of one life of one host: its runtime is that of whoever calls.
#[derive(Clone)]
pub(super) struct TurmoilEnv {
    time: Time,
    host: HostIndex,
    machine: Machine,
    schedule: Schedule,
}

impl TurmoilEnv {
    pub(super) const fn new(time: Time, host: HostIndex, machine: Machine, schedule: Schedule) -> Self {
        Self { time, host, machine, schedule }
    }
}

impl Env for TurmoilEnv {
    type Conn = TcpStream;
    type Listener = TcpListener;
    type Watch = SimWatch<Self>;

    fn now(&self) -> Duration {
        self.time.now()
    }

    fn clock(&self) -> Clock {
        let time = self.time.clone();
        self.machine.clock(move || time.now())
    }

    fn entropy(&self) -> Entropy {
        self.machine.entropy()
    }

    async fn sleep(&self, duration: Duration) {
        #[expect(clippy::disallowed_methods, reason = "the timers of a simulated runtime")]
        tokio::time::sleep(duration).await;
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        // A host that is ending takes no more tasks.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            drop(runtime.spawn(self.schedule.task(self.host, task)));
        }
    }

    fn blocking(&self, job: impl FnOnce() + Send + 'static) {
        let drawn = self.schedule.delay_us(self.machine.job_delay_max_us());
        let delay = self.machine.job_delay(drawn, self.now());
        let env = self.clone();
        self.spawn(async move {
            if !delay.is_zero() {
                env.sleep(delay).await;
            }
            env.schedule.note(env.host, env.now());
            env.machine.run(job, env.now());
        });
    }

    async fn listen(&self, address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
        let listener = TcpListener::bind(address).await?;
        let taken = listener.local_addr()?;
        Ok((listener, taken))
    }

    async fn accept(&self, listener: &mut TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
        listener.accept().await
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        TcpStream::connect(address).await
    }

    fn watch(&self, database: &Path) -> SimWatch<Self> {
        SimWatch::new(self.clone(), self.machine.clone(), database)
    }
}

impl fmt::Debug for TurmoilEnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TurmoilEnv").field("host", &self.host).finish_non_exhaustive()
    }
}
