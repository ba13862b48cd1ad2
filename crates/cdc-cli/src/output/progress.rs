use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use cdc::{Env as _, Progress, Tokio};

/// Nothing is shown before this has passed.
const PATIENCE: Duration = Duration::from_secs(2);

/// And then not more often than this.
const PAUSE: Duration = Duration::from_millis(200);

/// A line on the terminal that says how far something is. Gone when dropped; nothing at all without a terminal.
#[derive(Debug)]
pub(crate) struct ProgressLine {
    env: Tokio,
    started: Duration,
    next: Duration,
    terminal: bool,
    shown: bool,
}

impl ProgressLine {
    /// Events that go to the same terminal are progress enough.
    pub(crate) fn beside_events(env: &Tokio) -> Self {
        let mut line = Self::new(env);
        line.terminal &= !io::stdout().is_terminal();
        line
    }

    pub(crate) fn new(env: &Tokio) -> Self {
        let started = env.now();
        let next = started + PATIENCE;
        Self { env: env.clone(), started, next, terminal: io::stderr().is_terminal(), shown: false }
    }

    /// `what` is counted.
    pub(crate) fn show(&mut self, progress: &Progress, what: &str) {
        let now = self.env.now();
        if !self.terminal || now < self.next {
            return;
        }
        self.next = now + PAUSE;
        self.shown = true;
        let rest = progress.eta(now.saturating_sub(self.started)).unwrap_or_default();
        let line = format!(
            "\r\u{1b}[2K{}% of {} {what}, {} events, about {} s left",
            progress.percent(),
            progress.total,
            progress.records,
            rest.as_secs()
        );
        // A terminal that cannot be written shows nothing, which is no reason to stop.
        drop(io::stderr().write_all(line.as_bytes()));
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        if self.shown {
            drop(io::stderr().write_all(b"\r\x1b[2K"));
        }
    }
}
