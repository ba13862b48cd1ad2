use std::io;

use crate::failure::Failure;

/// Who asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Somebody at the keyboard.
    Interrupt,
    /// A supervisor.
    Terminate,
}

impl Stop {
    /// How a command that runs until stopped ends: Ctrl-C is told apart, an orderly end asked for is a success.
    pub(crate) const fn outcome(self) -> Result<(), Failure> {
        match self {
            Self::Interrupt => Err(Failure::Interrupted),
            Self::Terminate => Ok(()),
        }
    }
}

/// The signals that ask the process to stop.
#[derive(Debug)]
pub(crate) struct Signals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    pub(crate) fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let (interrupt, terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        Ok(Self { interrupt, terminate })
    }

    /// Completes when somebody asks to stop. Nothing is lost when the future is dropped.
    pub(crate) async fn stop(&mut self) -> Stop {
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => Stop::Interrupt,
            _ = self.terminate.recv() => Stop::Terminate,
        }
    }
}

#[cfg(not(unix))]
impl Signals {
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {})
    }

    /// Completes when somebody asks to stop.
    pub(crate) async fn stop(&mut self) -> Stop {
        match tokio::signal::ctrl_c().await {
            Ok(()) => Stop::Interrupt,
            Err(_) => std::future::pending().await,
        }
    }
}

impl Signals {
    /// Runs `work` unless somebody asks to stop first.
    pub(crate) async fn until<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Stop> {
        tokio::select! {
            biased;
            stop = self.stop() => Err(stop),
            done = work => Ok(done),
        }
    }
}
