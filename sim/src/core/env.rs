use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use cdc::Env;
use cdc_model::{Clock, Entropy};
use tokio::io::DuplexStream;

use crate::core::executor::{Domain, Executor};
use crate::machine::Machine;
use crate::watch::SimWatch;

/// The environment of one life of one host: its share of the executor, its clock, its randomness.
#[derive(Clone)]
pub(crate) struct SimEnv {
    executor: Executor,
    domain: Domain,
    machine: Machine,
}

impl SimEnv {
    pub(crate) const fn new(executor: Executor, domain: Domain, machine: Machine) -> Self {
        Self { executor, domain, machine }
    }
}

impl Env for SimEnv {
    type Conn = DuplexStream;
    type Listener = ();
    type Watch = SimWatch<Self>;

    fn now(&self) -> Duration {
        self.executor.now()
    }

    fn clock(&self) -> Clock {
        let executor = self.executor.clone();
        self.machine.clock(move || executor.now())
    }

    fn entropy(&self) -> Entropy {
        self.machine.entropy()
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send {
        self.executor.sleep(duration)
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.executor.spawn(self.domain, task);
    }

    fn blocking(&self, job: impl FnOnce() + Send + 'static) {
        let drawn = self.executor.draw(0, self.machine.job_delay_max_us());
        let delay = self.machine.job_delay(drawn, self.executor.now());
        let (executor, machine) = (self.executor.clone(), self.machine.clone());
        let job = move || machine.run(job, executor.now());
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

    fn watch(&self, database: &Path) -> SimWatch<Self> {
        SimWatch::new(self.clone(), self.machine.clone(), database)
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
