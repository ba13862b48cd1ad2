use std::collections::BTreeSet;

use cdc_replay::{FINDINGS_MAX, Finding, audit};
use proptest::prelude::*;

use crate::world::{inserts, log, seq, source, steps, time};

/// Audits records with these places whose origins and times are in order.
fn findings(after: u64, places: &[u64]) -> Vec<Finding> {
    audit(seq(after), inserts(places.iter().copied())).findings().collect()
}

#[test]
fn gaps_repeats_and_disorder_are_told_apart() {
    let gap = |after, next| Finding::Gap { after: seq(after), next: seq(next) };
    let repeat = |at| Finding::Repeat { at: seq(at) };
    let disorder = |at, after| Finding::Disorder { at: seq(at), after: seq(after) };
    for (after, places, found) in [
        (0, vec![], vec![]),
        (0, vec![1, 2, 3], vec![]),
        (9, vec![10, 11], vec![]),
        (0, vec![2, 3], vec![gap(0, 2)]),
        (0, vec![1, 2, 5, 6, 9], vec![gap(2, 5), gap(6, 9)]),
        (0, vec![1, 2, 2, 3, 1], vec![repeat(2), repeat(1)]),
        (0, vec![1, 3, 2, 4], vec![disorder(2, 3)]),
        (0, vec![1, 6, 3, 3, 7], vec![disorder(3, 6), repeat(3), gap(1, 3), gap(3, 6)]),
        (0, vec![4, 1, 2, 3], vec![disorder(1, 4), disorder(2, 4), disorder(3, 4)]),
        (9, vec![9, 10], vec![repeat(9)]),
    ] {
        assert_eq!(findings(after, &places), found, "{places:?} after {after}");
    }
}

#[test]
fn an_event_that_is_there_twice_and_a_time_that_goes_back_are_found() {
    let mut log = inserts(1..=5);
    log[2].origin_sequence = seq(2);
    log[4].timestamp = time(1);
    let found = audit(seq(0), &log);
    let twice = Finding::OriginBackwards { at: seq(3), source: source(0), origin_sequence: seq(2) };
    assert_eq!(found.findings().collect::<Vec<_>>(), [twice, Finding::TimeBackwards { at: seq(5) }]);
    assert_eq!((found.faults(), found.records()), (2, 5));
}

#[test]
fn findings_are_bounded_and_all_counted() {
    let every_second: Vec<u64> = (1..=3000).map(|n| n * 2).collect();
    let found = audit(seq(0), inserts(every_second));
    assert_eq!((found.faults(), found.findings().count()), (3000, FINDINGS_MAX));
    let found = audit(seq(0), inserts([1; 3001]));
    assert_eq!((found.faults(), found.findings().count()), (3000, FINDINGS_MAX));
}

proptest! {
    #[test]
    fn what_is_missing_at_the_end_is_exactly_what_the_gaps_name(places in prop::collection::vec(1..40_u64, 0..60)) {
        let seen: BTreeSet<u64> = places.iter().copied().collect();
        let mut missing = BTreeSet::new();
        let (mut repeats, mut disorders, mut others) = (0, 0, 0);
        for finding in findings(0, &places) {
            match finding {
                Finding::Gap { after, next } => missing.extend(after.get() + 1..next.get()),
                Finding::Repeat { .. } => repeats += 1,
                Finding::Disorder { .. } => disorders += 1,
                Finding::TimeBackwards { .. } | Finding::OriginBackwards { .. } => others += 1,
                _ => others += 1,
            }
        }
        let highest = seen.last().copied().unwrap_or(0);
        prop_assert_eq!(missing, (1..=highest).filter(|n| !seen.contains(n)).collect::<BTreeSet<_>>());
        prop_assert_eq!((repeats, others), (places.len() - seen.len(), 0));
        let mut first: Vec<u64> = vec![];
        let out_of_order = places.iter().filter(|n| {
            let is_new = !first.contains(n);
            let late = is_new && first.iter().any(|other| other > n);
            first.push(**n);
            late
        });
        prop_assert_eq!(disorders, out_of_order.count());
    }

    #[test]
    fn a_log_in_order_has_no_faults(steps in steps(0..50)) {
        prop_assert_eq!(audit(seq(0), log(&steps)).faults(), 0);
    }
}
