//! The one line that a process prints about its run, and how another process reads it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sim::{Failure, Outcome};

/// What a run amounts to, as read back. Runners may count other things than ours does; what is missing is zero.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Measured {
    pub(crate) trace: u64,
    pub(crate) steps: u64,
    pub(crate) simulated_ms: u64,
    pub(crate) transactions: u64,
    pub(crate) events: u64,
    pub(crate) rows: u64,
    pub(crate) commits: u64,
    pub(crate) counts: BTreeMap<String, u64>,
    /// How often passed, how often fired.
    pub(crate) sites: BTreeMap<String, (u64, u64)>,
}

/// A promise that was not kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Breach {
    pub(crate) promise: String,
    pub(crate) saw: String,
    pub(crate) story: String,
    /// Where it panicked, if it did: two panics at two places are two failures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) place: Option<String>,
}

impl Breach {
    /// Whether both are the same failure, as far as one can tell.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        (&self.promise, &self.place) == (&other.promise, &other.place)
    }
}

/// What the run took from the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Process {
    pub(crate) cpu_ms: u64,
    pub(crate) peak_rss_kib: u64,
}

/// The line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Line<O = Measured> {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) failure: Option<Breach>,
    pub(crate) outcome: O,
    pub(crate) process: Process,
}

/// What this process prints at its end.
pub(crate) fn written(done: &Result<Outcome, Box<Failure>>) -> String {
    let process = Process::of_this_one();
    let line = match done {
        Ok(outcome) => Line { failure: None, outcome, process },
        Err(failure) => {
            let Failure { seed: _, promise, saw, story, outcome } = &**failure;
            let (promise, saw, story) = ((*promise).to_owned(), saw.clone(), story.clone());
            Line { failure: Some(Breach { promise, saw, story, place: None }), outcome, process }
        }
    };
    serde_json::to_string(&line).expect("an outcome has a form in JSON")
}

/// What another process printed: its last line that is one of ours.
pub(crate) fn read(printed: &str) -> Option<Line> {
    printed.lines().rev().find_map(|line| serde_json::from_str(line).ok())
}

impl Process {
    /// Zero where the system does not say.
    fn of_this_one() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        Self { cpu_ms: cpu_ms(&stat), peak_rss_kib: peak_rss_kib(&status) }
    }
}

fn peak_rss_kib(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

/// The 14th and 15th field, in hundredths of a second; the second one is a name and may hold anything.
fn cpu_ms(stat: &str) -> u64 {
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let times = after_name.split_whitespace().skip(11).take(2);
    times.filter_map(|field| field.parse::<u64>().ok()).sum::<u64>() * 10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_reads_back_whoever_printed_before_it() {
        let outcome = Outcome { trace: u64::MAX, steps: 3, ..Outcome::default() };
        let kept = read(&format!("a warning\n{}\n", written(&Ok(outcome.clone())))).expect("a line");
        assert_eq!((kept.failure, kept.outcome.trace, kept.outcome.steps), (None, u64::MAX, 3));
        let (saw, story) = ("it".to_owned(), "a\nb".to_owned());
        let broken = Failure { seed: 1, promise: "p", saw, story, outcome };
        let broken = read(&written(&Err(Box::new(broken)))).expect("a line");
        let breach = broken.failure.expect("a failure");
        assert_eq!((breach.promise.as_str(), breach.story.as_str()), ("p", "a\nb"));
        assert_eq!(broken.outcome.steps, 3);
        assert_eq!(read("thread main panicked\n"), None);
    }

    #[test]
    fn the_system_says_what_a_process_took() {
        assert_eq!(peak_rss_kib("VmPeak:\t 9 kB\nVmHWM:\t  5120 kB\n"), 5120);
        assert_eq!(cpu_ms("1 (a) b) R 1 1 1 0 -1 0 10 0 0 0 250 31 0 0 20"), 2810);
        assert_eq!((peak_rss_kib(""), cpu_ms("")), (0, 0));
    }
}
