use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hyper::rt::{Executor, Read, ReadBufCursor, Sleep, Timer, Write};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::Env;

/// Bytes read at a time.
const READ_BYTES: usize = 16 << 10;

/// An environment's connection as hyper reads and writes it.
#[derive(Debug)]
pub(super) struct Io<C>(pub(super) C);

impl<C: AsyncRead + Unpin> Read for Io<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut into: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        // hyper's buffer is filled through a copy: without it this needs unsafe code.
        let mut bytes = [0_u8; READ_BYTES];
        let room = bytes.len().min(into.remaining());
        let mut part = ReadBuf::new(bytes.get_mut(..room).unwrap_or_default());
        ready!(Pin::new(&mut self.0).poll_read(cx, &mut part))?;
        into.put_slice(part.filled());
        Poll::Ready(Ok(()))
    }
}

impl<C: AsyncWrite + Unpin> Write for Io<C> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, slices)
    }
}

/// Runs hyper's tasks where the environment runs its own.
#[derive(Clone, Debug)]
pub(super) struct Spawner<E>(Arc<E>);

impl<E: Env> Spawner<E> {
    pub(super) fn new(env: &E) -> Self {
        Self(Arc::new(env.clone()))
    }
}

impl<E: Env, F: Future<Output = ()> + Send + 'static> Executor<F> for Spawner<E> {
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}

/// The environment's time in hyper's terms.
#[derive(Clone, Debug)]
pub(super) struct Ticker<E> {
    env: E,
    /// Stands for the environment's time zero. Which instant it is does not matter: only differences are used.
    zero: Instant,
}

impl<E: Env> Ticker<E> {
    pub(super) fn new(env: E) -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "an arbitrary beginning; time itself is the environment's"
        )]
        let zero = Instant::now();
        Self { env, zero }
    }
}

impl<E: Env> Timer for Ticker<E> {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        let env = self.env.clone();
        Box::pin(Sleeping(Mutex::new(Some(Box::pin(async move { env.sleep(duration).await })))))
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        self.sleep(deadline.saturating_duration_since(self.now()))
    }

    fn now(&self) -> Instant {
        self.zero + self.env.now()
    }
}

/// A sleep that hyper may share between threads, which it never does: the lock is only for the type. It asks again after
/// the end: `None` has ended.
struct Sleeping(Mutex<Option<Pin<Box<dyn Future<Output = ()> + Send>>>>);

impl Sleep for Sleeping {}

impl Future for Sleeping {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(going) = sleep {
            ready!(going.as_mut().poll(cx));
            *sleep = None;
        }
        Poll::Ready(())
    }
}
