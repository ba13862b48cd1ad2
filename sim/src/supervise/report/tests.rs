use std::collections::BTreeMap;

use super::sites::Kind;
use super::*;
use crate::supervise::tally::Share;

fn report() -> Report {
    let counts = [("crashes", 1_204), ("lost acks", 77), ("messages", 90_000), ("partitions", 0)];
    let share = Share {
        runs: 40,
        simulated_ms: 7_500_000,
        process_cpu_ms: 100_000,
        crashes: 1_204,
        partitions: 0,
        lost_acks: 77,
    };
    let tally = Tally {
        runs: 40,
        failures: 1,
        simulated_ms: 7_500_000,
        transactions: 5_000,
        events: 12_345,
        rows: 60_000,
        commits: 1_000_000,
        counts: counts.map(|(kind, count)| (kind.to_owned(), count)).into(),
        by_runner: [(Runner::Core, share)].into(),
        process_wall_ms: 110_000,
        process_cpu_ms: 100_000,
        peak_rss_kib: 96 << 10,
        ..Tally::default()
    };
    let mut curve = Curve::default();
    (1..=40).for_each(|run| curve.push(Duration::from_secs(run + run / 10), run, u64::from(run > 30)));
    let rates = Rates::of(&tally, Duration::from_secs(60), 2);
    Report {
        origin: origin(),
        elapsed_ms: 61_000,
        interrupted: true,
        determinism: Some(Compared { seeds: 4, differing: 0 }),
        plans: Some(2),
        seeds: Some(38),
        tally,
        tally_ms: 60_000,
        rates,
        curve,
        mutants: mutants(),
        sites: vec![
            SiteRow { name: "log.append".to_owned(), kind: Kind::FaultPoint, passed: 1_000, fired: 0 },
            SiteRow { name: "link.begun-later".to_owned(), kind: Kind::Reached, passed: 3, fired: 0 },
        ],
        sites_matter: true,
        failures: failures(),
    }
}

fn origin() -> Origin {
    Origin {
        commit: "0123456789abcdef0123456789abcdef01234567".to_owned(),
        dirty: true,
        command: "sim swarm --minutes 1".to_owned(),
        began: "2026-11-22T22:28:28Z".to_owned(),
        cores: 2,
        jobs: 2,
        faults_in_code: true,
        runners: vec!["core".to_owned()],
        scenario: "swarm".to_owned(),
        first_seed: 1,
    }
}

fn mutants() -> Vec<Tried> {
    let caught = Tried {
        name: "rows-swapped".to_owned(),
        breaks: "rows <change> places".to_owned(),
        expected: vec!["in order".to_owned()],
        caught: Some(("in order".to_owned(), "seed 3".to_owned())),
        seeds: 3,
        acted: 2,
        unusable: 1,
        elsewise: BTreeMap::new(),
        took_ms: 900,
        stopped: false,
    };
    let elsewise = BTreeMap::from([("nothing panics".to_owned(), 2)]);
    let name = "ack-early".to_owned();
    vec![caught.clone(), Tried { name, caught: None, seeds: 60, unusable: 0, elsewise, ..caught }]
}

fn failures() -> Vec<Failed> {
    let breach = Breach {
        promise: "what is written arrives".to_owned(),
        saw: "object 0 holds 40 of 62 rows".to_owned(),
        story: "  1.000 ms  host 1 is up\n  9.000 ms  host 0 loses power".to_owned(),
        place: None,
    };
    let small = Small { story: "world 2 objects".to_owned(), replay: "again small".to_owned(), runs: 31 };
    let failed = Failed {
        label: "seed 17".to_owned(),
        runner: Runner::Core,
        breach,
        replay: "cargo xtask sim --seed 17".to_owned(),
        small: None,
        plan: FaultPlan::draw(17, Some(2)),
        wall: Duration::from_secs(1),
    };
    vec![failed.clone(), Failed { label: "a.json".to_owned(), small: Some(small), ..failed }]
}

#[test]
fn the_text_says_what_was_run_how_fast_and_what_was_found() {
    insta::assert_snapshot!(text::rendered(&report()));
}

#[test]
fn the_page_shows_the_same_and_needs_nothing_else() {
    let page = html::rendered(&report());
    assert!(!page.contains("<script") && !page.contains("http") && !page.contains("<change>"));
    insta::assert_snapshot!(page);
}

#[test]
fn a_report_without_findings_has_passed() {
    let mut report = report();
    assert_eq!(report.faults_found().len(), 3);
    report.sites_matter = false;
    assert_eq!(report.faults_found().len(), 2);
    report.tally.failures = 0;
    report.mutants.pop();
    assert_eq!(report.faults_found(), Vec::<&str>::new());
}

#[test]
fn a_curve_keeps_few_points_over_any_number_of_runs() {
    let mut curve = Curve::default();
    (1..=10_000).for_each(|run| curve.push(Duration::from_millis(run), run, 0));
    assert!((POINTS_MAX / 2..=POINTS_MAX).contains(&curve.points.len()), "{} points", curve.points.len());
    assert!(curve.points.is_sorted());
}

#[test]
fn figures_are_written_for_people() {
    assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1 000", "1 234 567"]);
    assert_eq!([1_500, 90_000, 7_500_000].map(time), ["1.5 s", "1.5 min", "2 h 05 min"]);
}
