//! The report for a terminal.

use std::fmt::Write as _;

use super::{Failed, Report, faults_by_kind, grouped, time};
use crate::supervise::mutate::Tried;
use crate::supervise::tally::Share;

/// Failures that are told whole.
const STORIES_MAX: usize = 3;

pub(super) fn rendered(report: &Report) -> String {
    let mut text = String::new();
    head(report, &mut text);
    figures(report, &mut text);
    let faults = faults_by_kind(&report.tally);
    if !faults.is_empty() {
        put(&mut text, "\nwhat went wrong on purpose");
        faults.iter().for_each(|(kind, count)| put(&mut text, &format!("  {:>12}  {kind}", grouped(*count))));
    }
    if !report.mutants.is_empty() {
        let caught = report.mutants.iter().filter(|tried| tried.caught.is_some()).count();
        put(&mut text, &format!("\nmutants: {caught} of {} caught", report.mutants.len()));
        report.mutants.iter().for_each(|tried| put(&mut text, &format!("  {}", mutant_line(tried))));
    }
    let missed: Vec<_> = report.sites.iter().filter(|row| row.is_missed()).collect();
    if report.origin.faults_in_code && report.tally.runs > 0 {
        put(
            &mut text,
            &format!("\nsites: {} of {} passed", report.sites.len() - missed.len(), report.sites.len()),
        );
        missed.iter().for_each(|row| put(&mut text, &format!("  {} {}", row.name, row.kind.missed())));
    }
    failures(&report.failures, &mut text);
    text
}

fn put(text: &mut String, line: &str) {
    writeln!(text, "{line}").expect("a String takes every write");
}

fn head(report: &Report, text: &mut String) {
    let found = report.faults_found();
    let verdict = if found.is_empty() { "passed" } else { "FAILED" };
    let interrupted = if report.interrupted { ", interrupted" } else { "" };
    put(text, &format!("simulator: {verdict}{interrupted}"));
    found.iter().for_each(|line| put(text, &format!("  {line}")));
    let origin = &report.origin;
    let dirty = if origin.dirty { ", with changes that are not committed" } else { "" };
    put(text, &format!("\ncommit     {}{dirty}", origin.commit));
    put(text, &format!("command    {}", origin.command));
    put(text, &format!("began      {}, took {}", origin.began, time(report.elapsed_ms)));
    put(text, &format!("machine    {} cores, {} processes at a time", origin.cores, origin.jobs));
    let build =
        if origin.faults_in_code { "with faults planted in the code" } else { "without faults in the code" };
    put(text, &format!("world      {}, run by {}, {build}", origin.scenario, origin.runners.join(" and ")));
}

fn figures(report: &Report, text: &mut String) {
    let Report { tally, rates, .. } = report;
    put(text, "");
    if let Some(compared) = report.determinism {
        put(text, &format!("twice      {} seeds, {} differing", compared.seeds, compared.differing));
    }
    if let Some(plans) = report.plans {
        put(text, &format!("plans      {plans}"));
    }
    if let Some(seeds) = report.seeds {
        put(text, &format!("seeds      {} from {}", grouped(seeds), report.origin.first_seed));
    }
    put(
        text,
        &format!(
            "runs       {} in {}, {} failed",
            grouped(tally.runs),
            time(report.tally_ms),
            tally.failures
        ),
    );
    for (runner, share) in &tally.by_runner {
        let Share { runs, process_cpu_ms, crashes, partitions, lost_acks, .. } = *share;
        let (crashes, partitions, lost) = (grouped(crashes), grouped(partitions), grouped(lost_acks));
        let (runner, runs, cpu) = (runner.name(), grouped(runs), time(process_cpu_ms));
        let met = format!("{crashes} crashes, {partitions} partitions, {lost} lost acks");
        put(text, &format!("  {runner:<8} {runs} runs, {cpu} of processor; {met}"));
    }
    let (hour, core) = (rates.runs_per_hour, rates.runs_per_hour_and_core);
    put(text, &format!("speed      {hour:.0} runs/h, {core:.0} runs/h and core"));
    let (all, one) = (rates.simulated_per_wall, rates.simulated_per_wall_and_process);
    let simulated = time(tally.simulated_ms);
    put(text, &format!("simulated  {simulated}, {all:.1} times the wall's, {one:.1} times in one process"));
    let cpu = rates.commits_per_cpu_second;
    put(text, &format!("commits    {}, {cpu:.0} for a second of processor", grouped(tally.commits)));
    let (writes, events) = (grouped(tally.transactions), grouped(tally.events));
    put(
        text,
        &format!("written    {writes} transactions, {events} events; {} rows checked", grouped(tally.rows)),
    );
    put(text, &format!("memory     {} MiB in the largest process", tally.peak_rss_kib / 1024));
}

/// One line on a mutant.
pub(in crate::supervise) fn mutant_line(tried: &Tried) -> String {
    let Tried { name, seeds, acted, .. } = tried;
    let end = match &tried.caught {
        Some((promise, by)) => format!("caught by {by} ({seeds} run): {promise}"),
        None if tried.stopped => format!("not decided after {seeds} seeds"),
        None => {
            format!("SURVIVED {seeds} seeds, acted in {acted}; expected: {}", tried.expected.join(", or "))
        }
    };
    let other: Vec<_> =
        tried.elsewise.iter().map(|(promise, count)| format!("{promise}: {count} times")).collect();
    let other =
        if other.is_empty() { String::new() } else { format!(" (noticed elsewise {})", other.join("; ")) };
    let unusable = tried.unusable;
    let unusable =
        if unusable == 0 { String::new() } else { format!(" (seeds that fail without it: {unusable})") };
    format!("{name}: {end}{other}{unusable}")
}

fn failures(all: &[Failed], text: &mut String) {
    for (order, failed) in all.iter().enumerate() {
        let Failed { label, runner, breach, replay, small, plan: _, wall: _ } = failed;
        let runner = runner.name();
        put(text, &format!("\n{label} ({runner}): {}: {}", breach.promise, breach.saw));
        put(text, &format!("  again: {replay}"));
        match small {
            Some(small) => {
                small.story.lines().for_each(|line| put(text, &format!("  {line}")));
                put(text, &format!("  made smaller in {} runs; again: {}", small.runs, small.replay));
            }
            None if order < STORIES_MAX => {
                breach.story.lines().for_each(|line| put(text, &format!("  {line}")));
            }
            None => {}
        }
    }
}
