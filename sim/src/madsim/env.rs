use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use ::madsim::net::{TcpListener, TcpStream};
use ::madsim::time::{Sleep, TimeHandle};
use cdc::Env;
use cdc_model::{Clock, Entropy};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::machine::Machine;
use crate::schedule::Schedule;
use crate::watch::SimWatch;
use crate::world::HostIndex;

/// The environment of one life of one host: its tasks are those of the node that calls.
#[derive(Clone)]
pub(super) struct MadsimEnv {
    time: TimeHandle,
    host: HostIndex,
    machine: Machine,
    schedule: Schedule,
}

impl MadsimEnv {
    pub(super) const fn new(time: TimeHandle, host: HostIndex, machine: Machine, schedule: Schedule) -> Self {
        Self { time, host, machine, schedule }
    }
}

impl Env for MadsimEnv {
    type Conn = Conn;
    type Listener = TcpListener;
    type Watch = SimWatch<Self>;

    fn now(&self) -> Duration {
        self.time.elapsed()
    }

    fn clock(&self) -> Clock {
        let time = self.time.clone();
        self.machine.clock(move || time.elapsed())
    }

    fn entropy(&self) -> Entropy {
        self.machine.entropy()
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send {
        Pause { sleep: self.time.sleep(duration), waits: None }
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(::madsim::task::spawn(self.schedule.task(self.host, task)));
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

    async fn accept(&self, listener: &mut TcpListener) -> io::Result<(Conn, SocketAddr)> {
        let (stream, from) = listener.accept().await?;
        Ok((Conn::of(stream), from))
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<Conn> {
        TcpStream::connect(address).await.map(Conn::of)
    }

    fn watch(&self, database: &Path) -> SimWatch<Self> {
        SimWatch::new(self.clone(), self.machine.clone(), database)
    }
}

impl fmt::Debug for MadsimEnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MadsimEnv").field("host", &self.host).finish_non_exhaustive()
    }
}

/// A pause that leaves next to nothing behind when it is given up. madsim keeps the waker of every poll, and with it the
/// task, until the time has come.
struct Pause {
    sleep: Sleep,
    waits: Option<Arc<Waits>>,
}

/// Who waits for the end of a pause.
#[derive(Default)]
struct Waits(Mutex<Option<Waker>>);

impl Waits {
    fn set(&self, waker: Option<Waker>) -> Option<Waker> {
        std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), waker)
    }
}

impl Wake for Waits {
    fn wake(self: Arc<Self>) {
        if let Some(waker) = self.set(None) {
            waker.wake();
        }
    }
}

impl Future for Pause {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.sleep.is_elapsed() {
            return Poll::Ready(());
        }
        let is_set = self.waits.is_some();
        let waits = Arc::clone(self.waits.get_or_insert_default());
        drop(waits.set(Some(context.waker().clone())));
        if is_set {
            return Poll::Pending;
        }
        Pin::new(&mut self.sleep).poll(&mut Context::from_waker(&Waker::from(waits)))
    }
}

impl Drop for Pause {
    fn drop(&mut self) {
        if let Some(waits) = &self.waits {
            drop(waits.set(None));
        }
    }
}

/// A connection that is flushed only when there is something to flush: madsim sends a message each time.
#[derive(Debug)]
pub(super) struct Conn {
    stream: TcpStream,
    is_written: bool,
}

impl Conn {
    const fn of(stream: TcpStream) -> Self {
        Self { stream, is_written: false }
    }
}

impl AsyncRead for Conn {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl AsyncWrite for Conn {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.is_written = true;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match std::mem::take(&mut self.is_written) {
            true => Pin::new(&mut self.stream).poll_flush(context),
            false => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
