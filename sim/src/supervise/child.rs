//! One run in a process of its own.

use std::io::{self, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use sim::FaultPlan;

use crate::line::{self, Breach, Line, Measured, Process};
use crate::runner::Runner;

/// Bytes of a line that is believed.
const LINE_BYTES_MAX: u64 = 64 << 20;

/// Bytes that are kept of what a process prints on its standard error.
const TAIL_BYTES_MAX: usize = 16 << 10;

/// How often a running process is held against its time and our end.
const ASKED_EVERY: Duration = Duration::from_millis(200);

/// What SIGINT and SIGTERM are: who gets them with us is not at fault.
const ASKED_TO_END: [i32; 2] = [2, 15];

pub(super) const ENDS: &str = "every run ends";
pub(super) const NO_PANIC: &str = "nothing panics";
pub(super) const NO_SIGNAL: &str = "no run is ended by a signal";
pub(super) const STARTS: &str = "every run starts and reports";

/// Starts processes of this program.
#[derive(Clone, Debug)]
pub(super) struct Children {
    program: PathBuf,
    /// The longest that one may take.
    timeout: Duration,
    /// Set when all of them are to end.
    stop: Arc<AtomicBool>,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Kept,
    Broken(Breach),
    /// We were asked to end before it did.
    Stopped,
}

/// A run that is over.
#[derive(Clone, Debug)]
pub(super) struct Ran {
    pub(super) verdict: Verdict,
    pub(super) measured: Measured,
    pub(super) process: Process,
    pub(super) wall: Duration,
}

impl Children {
    /// The running program even if its file is replaced meanwhile, where the system has such a name for it.
    pub(super) fn new(timeout: Duration, stop: Arc<AtomicBool>) -> Self {
        let running = PathBuf::from("/proc/self/exe");
        let program = if running.exists() { running } else { std::env::current_exe().unwrap_or(running) };
        Self { program, timeout, stop }
    }

    /// The same with another time.
    pub(super) fn with_timeout(&self, timeout: Duration) -> Self {
        Self { timeout, ..self.clone() }
    }

    /// Whether all are to end.
    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Runs a plan to its end, or to ours.
    pub(super) fn run(&self, plan: &FaultPlan, runner: Runner) -> Ran {
        let began = Instant::now();
        let plan = serde_json::to_vec(plan).expect("a plan has a form in JSON");
        let (verdict, line) = match self.start(runner).and_then(|child| self.attend(child, &plan, began)) {
            Ok(end) => judge(end, self),
            Err(error) => (broken(STARTS, error.to_string(), String::new()), None),
        };
        let Line { failure: _, outcome: measured, process } = line.unwrap_or_default();
        Ran { verdict, measured, process, wall: began.elapsed() }
    }

    fn start(&self, runner: Runner) -> io::Result<Child> {
        let mut command = Command::new(&self.program);
        command.arg0("sim").args(["run", "--json", "--plan", "-", "--runner", runner.name()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
    }

    /// Reads what it prints until it has ended by itself or too late.
    fn attend(&self, mut child: Child, plan: &[u8], began: Instant) -> io::Result<End> {
        let (input, output, errors) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (tell, told) = mpsc::channel();
        std::thread::scope(|scope| {
            let printed = scope.spawn(move || {
                let text = output.map(|from| all_of(from.take(LINE_BYTES_MAX))).unwrap_or_default();
                // The other end has gone when nobody waits any more.
                tell.send(()).unwrap_or_default();
                text
            });
            let tail = scope.spawn(move || errors.map(tail_of).unwrap_or_default());
            // One that does not read its plan says so by how it ends.
            drop(input.map(|mut input| input.write_all(plan)));
            let mut cut = None;
            while cut.is_none() && told.recv_timeout(ASKED_EVERY) == Err(mpsc::RecvTimeoutError::Timeout) {
                cut = self.reason_to_cut(began);
            }
            if cut.is_some() {
                child.kill()?;
            }
            let status = child.wait()?;
            let text = |thread: std::thread::ScopedJoinHandle<'_, String>| thread.join().unwrap_or_default();
            Ok(End { cut, status, printed: text(printed), tail: text(tail) })
        })
    }

    fn reason_to_cut(&self, began: Instant) -> Option<Cut> {
        let late = began.elapsed() > self.timeout;
        if self.is_stopped() { Some(Cut::Stopped) } else { late.then_some(Cut::Late) }
    }
}

/// Why we end it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    Stopped,
    Late,
}

struct End {
    cut: Option<Cut>,
    status: ExitStatus,
    printed: String,
    tail: String,
}

fn judge(end: End, children: &Children) -> (Verdict, Option<Line>) {
    let End { cut, status, printed, tail } = end;
    let signal = status.signal();
    match cut {
        Some(Cut::Stopped) => return (Verdict::Stopped, None),
        Some(Cut::Late) => {
            let seconds = children.timeout.as_secs();
            let saw = format!("still running after {seconds} s and killed; --timeout gives it longer");
            return (broken(ENDS, saw, tail), None);
        }
        None if signal.is_some_and(|signal| ASKED_TO_END.contains(&signal)) => {
            return (Verdict::Stopped, None);
        }
        None => {}
    }
    if let Some(line) = line::read(&printed) {
        let verdict = line.failure.clone().map_or(Verdict::Kept, Verdict::Broken);
        return (verdict, Some(line));
    }
    let verdict = match (signal, panic_in(&tail)) {
        (_, Some((place, message))) => {
            let saw = format!("{message} ({place})");
            Verdict::Broken(Breach { promise: NO_PANIC.to_owned(), saw, story: tail, place: Some(place) })
        }
        (Some(signal), None) => {
            broken(NO_SIGNAL, format!("signal {signal}; 9 may be for want of memory"), tail)
        }
        (None, None) => broken(STARTS, format!("{status} without a line"), format!("{printed}{tail}")),
    };
    (verdict, None)
}

fn broken(promise: &str, saw: String, story: String) -> Verdict {
    Verdict::Broken(Breach { promise: promise.to_owned(), saw, story, place: None })
}

/// Where the first panic was, and what it said.
fn panic_in(tail: &str) -> Option<(String, String)> {
    let mut lines = tail.lines();
    let place = lines.find_map(|line| line.split_once(" panicked at ").map(|(_, place)| place))?;
    let message = lines.take_while(|line| !line.starts_with("note: run with")).collect::<Vec<_>>().join(" ");
    Some((place.trim_end_matches(':').to_owned(), message))
}

fn all_of(mut from: impl Read) -> String {
    let mut bytes = Vec::new();
    // What came before an error is judged by itself.
    drop(from.read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

fn tail_of(mut from: impl Read) -> String {
    let mut tail = Vec::new();
    let mut part = [0; 4096];
    while let Ok(length @ 1..) = from.read(&mut part) {
        tail.extend_from_slice(part.get(..length).unwrap_or_default());
        tail.drain(..tail.len().saturating_sub(TAIL_BYTES_MAX));
    }
    String::from_utf8_lossy(&tail).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(raw: i32, printed: &str, tail: &str) -> End {
        let status = ExitStatus::from_raw(raw);
        End { cut: None, status, printed: printed.to_owned(), tail: tail.to_owned() }
    }

    fn judged(end: End) -> Result<(), Option<(String, Option<String>)>> {
        let children = Children::new(Duration::from_secs(7), Arc::default());
        match judge(end, &children).0 {
            Verdict::Kept => Ok(()),
            Verdict::Stopped => Err(None),
            Verdict::Broken(breach) => Err(Some((breach.promise, breach.place))),
        }
    }

    #[test]
    fn an_end_is_judged_by_the_line_then_by_a_panic_then_by_the_status() {
        let kept = r#"{"outcome":{"steps":1},"process":{}}"#;
        let failed = r#"{"failure":{"promise":"p","saw":"s","story":""},"outcome":{},"process":{}}"#;
        let panic = "\nthread 'main' panicked at sim/src/a.rs:3:4:\nno\nnote: run with `RUST_BACKTRACE=1`\n";
        let broken =
            |promise: &str, place: Option<&str>| Err(Some((promise.to_owned(), place.map(str::to_owned))));
        for (end, expected) in [
            (ended(0, kept, "a warning"), Ok(())),
            (ended(1 << 8, failed, ""), broken("p", None)),
            (ended(101 << 8, "", panic), broken(NO_PANIC, Some("sim/src/a.rs:3:4"))),
            (ended(6, "", panic), broken(NO_PANIC, Some("sim/src/a.rs:3:4"))),
            (ended(9, "", ""), broken(NO_SIGNAL, None)),
            (ended(2 << 8, "", "error: no"), broken(STARTS, None)),
            (ended(2, "", ""), Err(None)),
            (End { cut: Some(Cut::Stopped), ..ended(9, kept, "") }, Err(None)),
            (End { cut: Some(Cut::Late), ..ended(9, "", "") }, broken(ENDS, None)),
        ] {
            assert_eq!(judged(end), expected);
        }
        let message = panic_in(panic).expect("a panic").1;
        assert_eq!(message, "no");
    }

    #[test]
    fn of_what_is_printed_on_the_standard_error_the_end_is_kept() {
        let long = format!("{}end", "x".repeat(3 * TAIL_BYTES_MAX));
        let tail = tail_of(long.as_bytes());
        assert!(tail.len() == TAIL_BYTES_MAX && tail.ends_with("xend"), "{} bytes", tail.len());
    }
}
