//! What a swarm found out, as a value; written as text, JSON and a page.

mod html;
mod sites;
mod svg;
mod text;
pub(super) use text::mutant_line;

use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use sim::FaultPlan;

use super::Error;
use super::mutate::Tried;
use super::plans::write_file;
use super::tally::{Tally, milliseconds, ratio};
use crate::line::Breach;
use crate::runner::Runner;

use sites::SiteRow;
pub(super) use sites::rows_of_ours;

/// Points of the curve, at most.
const POINTS_MAX: usize = 200;

/// What was run, where and how it ended.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    pub(super) origin: Origin,
    pub(super) elapsed_ms: u64,
    /// Somebody asked it to end.
    pub(super) interrupted: bool,
    /// Seeds that were run twice.
    pub(super) determinism: Option<Compared>,
    /// Stored plans that were run.
    pub(super) plans: Option<u64>,
    /// Seeds that were run.
    pub(super) seeds: Option<u64>,
    /// Over all runs without a mutant.
    pub(super) tally: Tally,
    /// How long those took.
    pub(super) tally_ms: u64,
    pub(super) rates: Rates,
    /// Runs over time.
    pub(super) curve: Curve,
    pub(super) mutants: Vec<Tried>,
    pub(super) sites: Vec<SiteRow>,
    /// Whether a site that was missed is a failure.
    pub(super) sites_matter: bool,
    pub(super) failures: Vec<Failed>,
}

/// Where a report comes from.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Origin {
    pub(super) commit: String,
    /// The commit alone does not say what was run.
    pub(super) dirty: bool,
    pub(super) command: String,
    pub(super) began: String,
    pub(super) cores: usize,
    pub(super) jobs: usize,
    /// Whether the build has the faults that the code plants into itself.
    pub(super) faults_in_code: bool,
    pub(super) runners: Vec<String>,
    pub(super) scenario: String,
    pub(super) first_seed: u64,
}

/// Runs that were made twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Compared {
    pub(super) seeds: u64,
    pub(super) differing: u64,
}

/// How fast.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Rates {
    pub(super) runs_per_hour: f64,
    pub(super) runs_per_hour_and_core: f64,
    /// Simulated time that passes while a second passes here.
    pub(super) simulated_per_wall: f64,
    /// The same for one process.
    pub(super) simulated_per_wall_and_process: f64,
    /// SQLite transactions that wrote, for each second of processor time.
    pub(super) commits_per_cpu_second: f64,
}

impl Rates {
    pub(super) fn of(tally: &Tally, elapsed: Duration, cores_used: usize) -> Self {
        let elapsed = milliseconds(elapsed);
        let cores = u64::try_from(cores_used).unwrap_or(u64::MAX);
        Self {
            runs_per_hour: ratio(tally.runs * 3_600_000, elapsed),
            runs_per_hour_and_core: ratio(tally.runs * 3_600_000, elapsed.saturating_mul(cores)),
            simulated_per_wall: ratio(tally.simulated_ms, elapsed),
            simulated_per_wall_and_process: ratio(tally.simulated_ms, tally.process_wall_ms),
            commits_per_cpu_second: ratio(tally.commits * 1_000, tally.process_cpu_ms),
        }
    }
}

/// Runs over time, with ever fewer points the longer it gets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Curve {
    /// Milliseconds since the beginning, runs done by then, failures by then.
    pub(super) points: Vec<(u64, u64, u64)>,
    #[serde(skip)]
    every: u64,
}

impl Curve {
    /// The state at a time that is not before the last.
    pub(super) fn push(&mut self, at: Duration, runs: u64, failures: u64) {
        self.every = self.every.max(1);
        if !runs.is_multiple_of(self.every) {
            return;
        }
        self.points.push((milliseconds(at), runs, failures));
        if self.points.len() > POINTS_MAX {
            self.every *= 2;
            self.points.retain(|(_, runs, _)| runs.is_multiple_of(self.every));
        }
    }
}

/// A run that broke a promise.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Failed {
    /// `seed 17`, or the file of the plan.
    pub(super) label: String,
    pub(super) runner: Runner,
    pub(super) breach: Breach,
    /// The command that shows it again.
    pub(super) replay: String,
    /// What became of it when it was made smaller.
    pub(super) small: Option<Small>,
    #[serde(skip)]
    pub(super) plan: FaultPlan,
    /// How long it took.
    #[serde(skip)]
    pub(super) wall: Duration,
}

/// A failure made smaller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Small {
    pub(super) story: String,
    pub(super) replay: String,
    pub(super) runs: u64,
}

impl Report {
    /// What keeps the run from having passed, a line each.
    pub(super) fn faults_found(&self) -> Vec<String> {
        let mut found = Vec::new();
        let differing = self.determinism.map_or(0, |compared| compared.differing);
        if differing > 0 {
            found.push(format!("seeds that gave another run the second time: {differing}"));
        }
        if self.tally.failures > 0 {
            found.push(format!("runs that broke a promise: {}", self.tally.failures));
        }
        let survivors = self.mutants.iter().filter(|tried| tried.survived());
        found.extend(survivors.map(|tried| format!("the mutant {} was not caught", tried.name)));
        if self.sites_matter {
            let missed = self.sites.iter().filter(|row| row.is_missed());
            found.extend(missed.map(|row| format!("{} {}", row.name, row.kind.missed())));
        }
        found
    }

    /// Writes `report.txt`, `report.json` and `report.html` into a folder, and returns the text.
    pub(super) fn write(&self, folder: &Path) -> Result<String, Error> {
        let text = text::rendered(self);
        write_file(&folder.join("report.txt"), &text)?;
        let json = serde_json::to_string_pretty(self).expect("a report has a form in JSON");
        write_file(&folder.join("report.json"), &format!("{json}\n"))?;
        write_file(&folder.join("report.html"), &html::rendered(self))?;
        Ok(text)
    }
}

/// Counts of what went wrong on purpose, the most frequent first; what merely happened is left out.
fn faults_by_kind(tally: &Tally) -> Vec<(&str, u64)> {
    const NO_FAULTS: [&str; 11] = [
        "looks",
        "messages",
        "store requests",
        "failed openings",
        "steps",
        "records read along",
        "claims of settled",
        "claims never held",
        "rot noticed",
        "rot where nobody reads",
        "rot that took the end of a WAL",
    ];
    let counts = tally.counts.iter().map(|(kind, count)| (kind.as_str(), *count));
    let mut faults: Vec<_> = counts.filter(|(kind, count)| *count > 0 && !NO_FAULTS.contains(kind)).collect();
    faults.sort_by_key(|(kind, count)| (std::cmp::Reverse(*count), *kind));
    faults
}

/// `1 234 567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// `2 h 05 min`, `3.4 min` or `12.5 s`.
fn time(milliseconds: u64) -> String {
    match milliseconds {
        0..60_000 => format!("{:.1} s", ratio(milliseconds, 1_000)),
        60_000..3_600_000 => format!("{:.1} min", ratio(milliseconds, 60_000)),
        _ => format!("{} h {:02} min", milliseconds / 3_600_000, milliseconds / 60_000 % 60),
    }
}

#[cfg(test)]
mod tests;
