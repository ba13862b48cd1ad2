use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cdc_model::{Clock, Entropy};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::folder_watch::FolderWatches;
use crate::{Env, FolderWatch};

/// Blocking jobs at the same time. More than there are cores, because most of them wait for the disk.
const BLOCKING_JOBS_MAX: usize = 16;

/// The production environment: a tokio runtime and the machine's clock.
#[derive(Clone, Debug)]
pub struct Tokio {
    handle: Handle,
    start: Instant,
    clock: Clock,
    entropy: Entropy,
    jobs: Arc<Semaphore>,
    watches: FolderWatches,
}

impl Tokio {
    /// The environment of the runtime this is called in.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn current() -> Self {
        let start = Instant::now();
        Self {
            handle: Handle::current(),
            start,
            clock: Clock::system(),
            entropy: Entropy::system(),
            jobs: Arc::new(Semaphore::new(BLOCKING_JOBS_MAX)),
            watches: FolderWatches::default(),
        }
    }

    /// The same environment with another wall clock.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }
}

impl Env for Tokio {
    type Conn = TcpStream;
    type Listener = TcpListener;
    type Watch = FolderWatch;

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn clock(&self) -> Clock {
        self.clock.clone()
    }

    fn entropy(&self) -> Entropy {
        self.entropy.clone()
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send {
        #[expect(clippy::disallowed_methods, reason = "this is the place that owns timers")]
        tokio::time::sleep(duration)
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(self.handle.spawn(task));
    }

    fn blocking(&self, job: impl FnOnce() + Send + 'static) {
        let (handle, jobs) = (self.handle.clone(), Arc::clone(&self.jobs));
        self.spawn(async move {
            // The semaphore is never closed.
            let Ok(permit) = jobs.acquire_owned().await else { return };
            drop(handle.spawn_blocking(move || {
                job();
                drop(permit);
            }));
        });
    }

    async fn listen(&self, address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
        let listener = TcpListener::bind(address).await?;
        let taken = listener.local_addr()?;
        Ok((listener, taken))
    }

    async fn accept(&self, listener: &mut TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
        let (conn, from) = listener.accept().await?;
        conn.set_nodelay(true)?;
        Ok((conn, from))
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let conn = TcpStream::connect(address).await?;
        conn.set_nodelay(true)?;
        Ok(conn)
    }

    fn watch(&self, database: &Path) -> FolderWatch {
        FolderWatch::new(&self.watches, database)
    }
}
