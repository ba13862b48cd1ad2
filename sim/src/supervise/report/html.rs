//! The report as one page that needs nothing else.

use std::fmt::Write as _;

use super::svg::{bars, curve, escaped};
use super::{Failed, Report, faults_by_kind, grouped, text, time};
use crate::supervise::tally::Share;

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1c2430; --dim: #5c6675; --paper: #fbfbf9; --rule: #d9dce1; --go: #2f6f8f;
  --bad: #b23a2e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7ec; --dim: #98a2b1; --paper: #16191e; --rule: #333943;
  --go: #6fb3d2; --bad: #e87a6d; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 780px;
  margin: 2.5rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0 0 .3rem; } h2 { font-size: 1.1rem; margin: 2.4rem 0 .6rem; }
.note, dt { color: var(--dim); } .failed { color: var(--bad); }
dl { display: grid; grid-template-columns: 8rem 1fr; gap: .15rem 1rem; margin: 1rem 0; } dd { margin: 0; }
.tiles { display: flex; flex-wrap: wrap; gap: 1.6rem; margin: 1.4rem 0; }
.tiles b { display: block; font-size: 1.4rem; font-variant-numeric: tabular-nums; }
table { border-collapse: collapse; width: 100%; } th, td { text-align: left; padding: .25rem .8rem .25rem 0;
  border-bottom: 1px solid var(--rule); vertical-align: top; } th { color: var(--dim); font-weight: 500; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
pre { overflow-x: auto; border-left: 3px solid var(--rule); padding: .2rem 0 .2rem .9rem; font-size: 13px; }
code { font-size: 13px; } svg { max-width: 100%; height: auto; } svg text { fill: var(--ink); font-size: 12px; }
.end { text-anchor: end; } .value { fill: var(--dim); } .axis { stroke: var(--rule); fill: none; }
.bar { fill: var(--go); } .line { stroke: var(--go); fill: none; stroke-width: 2; }
rect.bad { fill: var(--bad); } polyline.bad { stroke: var(--bad); fill: none; stroke-width: 2; }
";

pub(super) fn rendered(report: &Report) -> String {
    let mut page = String::from("<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n");
    put(&mut page, "<title>Simulator report</title>");
    put(&mut page, &format!("<style>{STYLE}</style>"));
    head(report, &mut page);
    tiles(report, &mut page);
    runners(report, &mut page);
    put(&mut page, "<h2>Runs over time</h2>");
    put(&mut page, &curve(&report.curve));
    put(&mut page, "<h2>What went wrong on purpose</h2>\n<p class=\"note\">Bars are of magnitudes.</p>");
    put(
        &mut page,
        &bars(faults_by_kind(&report.tally).into_iter().map(|(kind, count)| (kind, count, false))),
    );
    mutants(report, &mut page);
    sites(report, &mut page);
    failures(&report.failures, &mut page);
    put(&mut page, "</html>");
    page
}

fn runners(report: &Report, page: &mut String) {
    put(
        page,
        "<table><tr><th>Runner<th>Runs<th>Processor<th>Simulated<th>Crashes<th>Partitions<th>Lost acks",
    );
    for (runner, share) in &report.tally.by_runner {
        let Share { runs, simulated_ms, process_cpu_ms, crashes, partitions, lost_acks } = *share;
        let times = format!("<td>{}<td>{}", time(process_cpu_ms), time(simulated_ms));
        let counts =
            [crashes, partitions, lost_acks].map(|count| format!("<td class=\"number\">{}", grouped(count)));
        let (name, counts) = (runner.name(), counts.concat());
        put(page, &format!("<tr><td>{name}<td class=\"number\">{}{times}{counts}", grouped(runs)));
    }
    put(page, "</table>");
}

fn put(page: &mut String, line: &str) {
    writeln!(page, "{line}").expect("a String takes every write");
}

fn head(report: &Report, page: &mut String) {
    let found = report.faults_found();
    let (class, verdict) = if found.is_empty() { ("passed", "Passed") } else { ("failed", "Failed") };
    let interrupted = if report.interrupted { ", interrupted" } else { "" };
    put(page, &format!("<h1 class=\"{class}\">{verdict}{interrupted}</h1>"));
    found.iter().for_each(|line| put(page, &format!("<div class=\"failed\">{}</div>", escaped(line))));
    let origin = &report.origin;
    let dirty = if origin.dirty { ", with changes that are not committed" } else { "" };
    let build = if origin.faults_in_code { "with" } else { "without" };
    put(page, "<dl>");
    for (name, value) in [
        ("Commit", format!("<code>{}</code>{dirty}", escaped(&origin.commit))),
        ("Command", format!("<code>{}</code>", escaped(&origin.command))),
        ("Began", format!("{}, took {}", escaped(&origin.began), time(report.elapsed_ms))),
        ("Machine", format!("{} cores, {} processes at a time", origin.cores, origin.jobs)),
        ("World", format!("{}, {build} faults planted in the code", escaped(&origin.scenario))),
        ("Runner", escaped(&origin.runners.join(", "))),
        (
            "Twice",
            report.determinism.map_or("no seeds".to_owned(), |compared| {
                format!("{} seeds, {} differing", compared.seeds, compared.differing)
            }),
        ),
        ("Plans", report.plans.unwrap_or_default().to_string()),
        ("Seeds", format!("{} from {}", grouped(report.seeds.unwrap_or_default()), origin.first_seed)),
    ] {
        put(page, &format!("<dt>{name}<dd>{value}"));
    }
    put(page, "</dl>");
}

fn tiles(report: &Report, page: &mut String) {
    let Report { tally, rates, .. } = report;
    put(page, "<div class=\"tiles\">");
    for (value, name) in [
        (grouped(tally.runs), "runs"),
        (grouped(tally.failures), "broke a promise"),
        (format!("{:.0}", rates.runs_per_hour_and_core), "runs an hour and core"),
        (format!("{:.0}x", rates.simulated_per_wall), "simulated over wall time"),
        (time(tally.simulated_ms), "simulated"),
        (grouped(tally.commits), "SQLite commits"),
        (format!("{:.0}", rates.commits_per_cpu_second), "commits a processor second"),
        (grouped(tally.events), "events written"),
        (grouped(tally.rows), "rows checked"),
        (format!("{} MiB", tally.peak_rss_kib / 1024), "largest process"),
    ] {
        put(page, &format!("<div><b>{value}</b>{name}</div>"));
    }
    put(page, "</div>");
}

fn mutants(report: &Report, page: &mut String) {
    if report.mutants.is_empty() {
        return;
    }
    let caught = report.mutants.iter().filter(|tried| tried.caught.is_some()).count();
    put(page, &format!("<h2>Mutants: {caught} of {} caught</h2>", report.mutants.len()));
    put(page, "<p class=\"note\">Seeds until each was caught by the promise that it breaks.</p>");
    put(
        page,
        &bars(report.mutants.iter().map(|tried| (tried.name.as_str(), tried.seeds, tried.caught.is_none()))),
    );
    put(page, "<table><tr><th>Mutant<th>What it does<th>What became of it");
    for tried in &report.mutants {
        let class = if tried.survived() { " class=\"failed\"" } else { "" };
        let line = text::mutant_line(tried);
        let end = line.split_once(": ").map_or("", |(_, end)| end);
        let (name, breaks) = (escaped(&tried.name), escaped(&tried.breaks));
        put(page, &format!("<tr{class}><td><code>{name}</code><td>{breaks}<td>{}", escaped(end)));
    }
    put(page, "</table>");
}

fn sites(report: &Report, page: &mut String) {
    if report.sites.is_empty() {
        return;
    }
    put(page, "<h2>Sites in the code</h2>\n<table><tr><th>Site<th>Passed<th>Failed on purpose<th>");
    for row in &report.sites {
        let (class, missed) =
            if row.is_missed() { (" class=\"failed\"", row.kind.missed()) } else { ("", "") };
        let (passed, fired) = (grouped(row.passed), grouped(row.fired));
        let counts = format!("<td class=\"number\">{passed}<td class=\"number\">{fired}");
        put(page, &format!("<tr{class}><td><code>{}</code>{counts}<td>{missed}", escaped(&row.name)));
    }
    put(page, "</table>");
}

fn failures(all: &[Failed], page: &mut String) {
    if !all.is_empty() {
        put(page, "<h2>Broken promises</h2>");
    }
    for Failed { label, runner, breach, replay, small, plan: _, wall: _ } in all {
        let title = format!("{label} ({}): {}", runner.name(), breach.promise);
        put(page, &format!("<details><summary class=\"failed\">{}</summary>", escaped(&title)));
        put(page, &format!("<p>{}</p>\n<p><code>{}</code></p>", escaped(&breach.saw), escaped(replay)));
        if let Some(small) = small {
            put(page, &format!("<p>Made smaller: <code>{}</code></p>", escaped(&small.replay)));
            put(page, &format!("<pre>{}</pre>", escaped(&small.story)));
        }
        put(page, &format!("<pre>{}</pre>\n</details>", escaped(&breach.story)));
    }
}
