use cdc_model::{Cursor, Filter, Operation, Record};
use cdc_replay::{Error, Folded, Replay, fold};
use proptest::prelude::*;

use crate::world::{Memory, cut_logs, expected, inserts, log, ready, seq, source, steps, time};

/// What folding these at hand gives.
fn documents<'a>(records: impl IntoIterator<Item = &'a Record>) -> cdc_model::Fold {
    fold(records).unwrap().documents
}

proptest! {
    #[test]
    fn a_fold_up_to_any_position_or_moment_is_that_of_the_prefix((log, cut) in cut_logs(), end in 95..150_i64) {
        let (cold, hot) = cut.tiers(&log);
        let replay = || Replay::new().cold(&cold).hot(&hot).batch_size(3);
        for n in 0..=log.len() {
            let folded = ready(replay().until(seq(u64::try_from(n).unwrap())).fold()).unwrap();
            prop_assert_eq!(&folded.documents, &documents(&log[..n]));
            prop_assert_eq!((folded.records, folded.broken), (u64::try_from(n).unwrap(), 0));
        }
        let folded = ready(replay().until(time(end)).fold()).unwrap();
        prop_assert_eq!(folded.documents, documents(log.iter().filter(|r| r.timestamp < time(end))));
    }

    #[test]
    fn a_fold_goes_on_where_an_earlier_one_ended(
        (log, cut) in cut_logs(),
        at in any::<prop::sample::Index>(),
        filter in prop_oneof![Just(Filter::ALL), Just(Filter::collection("c1")), Just(Filter::source(source(1)))],
    ) {
        let (cold, hot) = cut.tiers(&log);
        let replay = || Replay::new().cold(&cold).hot(&hot).filter(filter.clone()).batch_size(3);
        let at = seq(u64::try_from(at.index(log.len() + 1)).unwrap());
        let half = ready(replay().until(at).fold()).unwrap();
        prop_assert_eq!(half.cursor.sequence, at);
        let whole = ready(replay().fold()).unwrap();
        let resumed = ready(replay().fold_onto(half)).unwrap();
        prop_assert_eq!(&resumed, &whole);
        prop_assert_eq!(whole.documents, documents(&expected(&log, Cursor::START, None, &filter)));
    }

    #[test]
    fn a_fold_of_a_log_with_a_lost_record_says_where_it_breaks(steps in steps(2..30), lost in any::<prop::sample::Index>()) {
        let mut log = log(&steps);
        let lost = log.remove(lost.index(log.len()));
        let folded = fold(&log).unwrap();
        let change = lost.body.change().unwrap().unwrap();
        let next = log.iter().find(|record| {
            let other = record.body.change().unwrap().unwrap();
            record.sequence > lost.sequence
                && record.origin.source() == lost.origin.source()
                && (&other.collection, &other.document_id) == (&change.collection, &change.document_id)
        });
        prop_assert_eq!(folded.first_break.map(|broken| broken.at), next.map(|record| record.sequence));
        prop_assert_eq!(folded.broken, u64::from(next.is_some()));
    }
}

#[test]
fn a_fold_by_operation_is_refused_because_it_would_be_wrong() {
    let hot = Memory::dense(&log(&[(0, 0, 0, 0, false); 3]));
    let replay = Replay::new().hot(&hot).filter(Filter::operation(Operation::Insert));
    assert!(matches!(ready(replay.fold()), Err(Error::FoldByOperation)));
}

#[test]
fn a_fold_keeps_the_first_break_and_counts_all() {
    let folded = fold(inserts(1..=4)).unwrap();
    assert_eq!((folded.broken, folded.first_break.unwrap().at), (3, seq(2)));
}

#[test]
fn a_fold_of_nothing_stays_where_it_was() {
    let hot = Memory::dense(&log(&[(0, 0, 0, 0, false); 3]));
    let cursor = Cursor::after(seq(3));
    let folded = ready(Replay::new().hot(&hot).after(cursor).fold()).unwrap();
    assert_eq!(folded, Folded { cursor, ..Folded::default() });
}
