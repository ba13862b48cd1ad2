//! Sums over runs.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::child::{Ran, Verdict};
use crate::runner::Runner;

/// What runs amount to together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Tally {
    pub(super) runs: u64,
    pub(super) failures: u64,
    pub(super) simulated_ms: u64,
    pub(super) steps: u64,
    pub(super) transactions: u64,
    pub(super) events: u64,
    pub(super) rows: u64,
    pub(super) commits: u64,
    /// By kind.
    pub(super) counts: BTreeMap<String, u64>,
    /// What each runner had a part in.
    pub(super) by_runner: BTreeMap<Runner, Share>,
    /// How often passed, how often fired.
    pub(super) sites: BTreeMap<String, (u64, u64)>,
    /// Of the processes together; they ran side by side.
    pub(super) process_wall_ms: u64,
    pub(super) process_cpu_ms: u64,
    /// Of the largest process.
    pub(super) peak_rss_kib: u64,
}

/// The runs of one runner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Share {
    pub(super) runs: u64,
    pub(super) simulated_ms: u64,
    pub(super) process_cpu_ms: u64,
    pub(super) crashes: u64,
    pub(super) partitions: u64,
    pub(super) lost_acks: u64,
}

impl Tally {
    /// Adds a run that was not stopped.
    pub(super) fn add(&mut self, runner: Runner, ran: &Ran) {
        let Ran { verdict, measured, process, wall } = ran;
        self.runs += 1;
        self.failures += u64::from(matches!(verdict, Verdict::Broken(_)));
        self.simulated_ms += measured.simulated_ms;
        self.steps += measured.steps;
        self.transactions += measured.transactions;
        self.events += measured.events;
        self.rows += measured.rows;
        self.commits += measured.commits;
        let share = self.by_runner.entry(runner).or_default();
        let counted = |kind: &str| measured.counts.get(kind).copied().unwrap_or_default();
        *share = Share {
            runs: share.runs + 1,
            simulated_ms: share.simulated_ms + measured.simulated_ms,
            process_cpu_ms: share.process_cpu_ms + process.cpu_ms,
            crashes: share.crashes + counted("crashes"),
            partitions: share.partitions + counted("partitions"),
            lost_acks: share.lost_acks + counted("lost acks"),
        };
        for (kind, count) in &measured.counts {
            *self.counts.entry(kind.clone()).or_default() += count;
        }
        for (site, (passed, fired)) in &measured.sites {
            let sum = self.sites.entry(site.clone()).or_default();
            *sum = (sum.0 + passed, sum.1 + fired);
        }
        self.process_wall_ms += milliseconds(*wall);
        self.process_cpu_ms += process.cpu_ms;
        self.peak_rss_kib = self.peak_rss_kib.max(process.peak_rss_kib);
    }

    /// How often a kind occurred.
    pub(super) fn count(&self, kind: &str) -> u64 {
        self.counts.get(kind).copied().unwrap_or_default()
    }
}

/// Whole milliseconds.
pub(super) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A quotient for people; zero when there is nothing to divide by.
#[expect(clippy::as_conversions, reason = "people read at most six digits of it")]
pub(super) fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}
