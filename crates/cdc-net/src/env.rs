use std::fmt::Debug;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use cdc_model::{Clock, Entropy};
use tokio::io::{AsyncRead, AsyncWrite};

/// What the asynchronous shell needs of the world: time, tasks, threads that may block, connections, randomness, and
/// news of files that others write.
///
/// Static, never `dyn`. The engine is generic over it, so that the code that runs in production also runs under a
/// simulated scheduler, clock and random generator.
pub trait Env: Clone + Send + Sync + 'static {
    /// A byte stream to another process.
    type Conn: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// What other processes connect to.
    type Listener: Send + 'static;

    /// Notices that somebody writes a database.
    type Watch: Watch;

    /// Time since an arbitrary start; never goes back.
    fn now(&self) -> Duration;

    /// The wall clock.
    fn clock(&self) -> Clock;

    /// The source of randomness.
    fn entropy(&self) -> Entropy;

    /// Completes after `duration`.
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send;

    /// Runs a task by itself.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static);

    /// Runs a job that may block (SQLite, the file system) off the asynchronous workers, on a bounded pool. Jobs of
    /// one object never run side by side; the caller sees to that.
    fn blocking(&self, job: impl FnOnce() + Send + 'static);

    /// Begins to listen; port 0 takes a free one. Gives the address taken.
    fn listen(
        &self,
        address: SocketAddr,
    ) -> impl Future<Output = io::Result<(Self::Listener, SocketAddr)>> + Send;

    /// Waits for the next connection.
    fn accept(
        &self,
        listener: &mut Self::Listener,
    ) -> impl Future<Output = io::Result<(Self::Conn, SocketAddr)>> + Send;

    /// Connects to another process.
    fn connect(&self, address: SocketAddr) -> impl Future<Output = io::Result<Self::Conn>> + Send;

    /// Watches a database that other processes write, from now on and without holding it open.
    fn watch(&self, database: &Path) -> Self::Watch;
}

/// Notices commits of other processes to one database, without holding it open.
pub trait Watch: Send + 'static {
    /// What the file system tells about the database: its file, its WAL and its rollback journal. While this is
    /// unchanged, hardly anything was committed; a file put in the place of another is a change.
    type State: Clone + Debug + PartialEq + Send + 'static;

    /// The files as they are now. What has happened to them so far wakes nobody any more.
    fn state(&mut self) -> Self::State;

    /// Completes when something may have changed since the files were looked at. It may do so without reason, late or
    /// never: whoever waits looks from time to time as well. Dropping it loses nothing.
    fn changed(&mut self) -> impl Future<Output = ()> + Send;
}
