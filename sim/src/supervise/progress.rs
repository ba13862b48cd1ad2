use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::tally::{Tally, milliseconds, ratio};

/// How often a line is printed where no terminal shows the state.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// What a person sees meanwhile, on the standard error.
#[derive(Debug)]
pub(super) struct Progress {
    bar: ProgressBar,
    phase: &'static str,
    said: Instant,
}

impl Progress {
    pub(super) fn new() -> Self {
        let bar = ProgressBar::new_spinner();
        bar.set_style(
            ProgressStyle::with_template("{spinner} {elapsed} {wide_msg}").expect("a sound template"),
        );
        Self { bar, phase: "", said: Instant::now() }
    }

    /// Something else begins.
    pub(super) fn begin(&mut self, phase: &'static str) {
        self.phase = phase;
        self.said = Instant::now();
    }

    /// A line that stays.
    pub(super) fn say(&self, line: &str) {
        self.bar.suspend(|| eprintln!("{line}"));
    }

    /// How far it is: runs done, of how many if that is known.
    pub(super) fn show(&mut self, done: u64, of: Option<u64>, rest: &str) {
        let of = of.map(|of| format!("/{of}")).unwrap_or_default();
        let line = format!("{} {done}{of}  {rest}", self.phase);
        if !self.bar.is_hidden() {
            self.bar.set_message(line);
            self.bar.tick();
        } else if self.said.elapsed() >= LINE_EVERY {
            self.said = Instant::now();
            eprintln!("{line}");
        }
    }

    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }
}

/// The figures beside it.
pub(super) fn figures(tally: &Tally, elapsed: Duration) -> String {
    let elapsed = milliseconds(elapsed);
    format!(
        "{:.0} runs/h  simulated/wall {:.1}  crashes {}  partitions {}  lost acks {}  commits/s {:.0}  failures {}",
        ratio(tally.runs * 3_600_000, elapsed),
        ratio(tally.simulated_ms, elapsed),
        tally.count("crashes"),
        tally.count("partitions"),
        tally.count("lost acks"),
        ratio(tally.commits * 1_000, elapsed),
        tally.failures,
    )
}
