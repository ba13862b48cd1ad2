use std::collections::VecDeque;

use cdc_model::{Sequence, mutant};

/// Which of a subscriber's positions are covered by which of this log's own, until those are settled.
///
/// A receiver notes, in the transaction of each batch, the child's mark and its own tail after it; when its own
/// log is settled up to some sequence, the map says up to where the child's is. A stage notes its cursor and the
/// tail after its outputs in the same way: what it absorbed is settled when what covers it is.
///
/// Bounded: when full, every second entry goes. That can only make an answer later, never wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AckMap {
    settled: Sequence,
    entries_max: usize,
    entries: VecDeque<Covered>,
}

/// The subscriber's position `upto` is covered by the log's own positions up to `own`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Covered {
    /// The subscriber's position.
    pub upto: Sequence,
    /// This log's own.
    pub own: Sequence,
}

impl AckMap {
    /// An empty map. `settled` is what was settled before, `entries_max` bounds its memory. After a restart,
    /// note the stored rows again, oldest first.
    ///
    /// # Panics
    ///
    /// If `entries_max` is less than 2.
    #[must_use]
    pub fn new(settled: Sequence, entries_max: usize) -> Self {
        assert!(entries_max >= 2, "an ack map needs room for two entries");
        Self { settled, entries_max, entries: VecDeque::new() }
    }

    /// Notes that everything of the subscriber up to `upto` lies at or below `own` in this log.
    ///
    /// # Panics
    ///
    /// If `own` goes back: a log's tail never does.
    pub fn note(&mut self, covered: Covered) {
        if let Some(last) = self.entries.back_mut() {
            assert!(covered.own >= last.own, "the log's own tail went back");
            if covered.upto <= last.upto {
                return;
            }
            if covered.own == last.own {
                last.upto = covered.upto;
                return;
            }
        } else if covered.upto <= self.settled {
            return;
        }
        self.entries.push_back(covered);
        if self.entries.len() > self.entries_max {
            self.thin();
        }
    }

    /// Drops every second entry but keeps the newest.
    fn thin(&mut self) {
        let newest = self.entries.len() - 1;
        let mut index = 0;
        self.entries.retain(|_| {
            let keep = (newest - index).is_multiple_of(2);
            index += 1;
            keep
        });
    }

    /// This log is settled up to `own`. Returns the subscriber's settled position, which never goes back.
    pub fn settle(&mut self, own: Sequence) -> Sequence {
        while let Some(first) =
            self.entries.front().filter(|entry| entry.own <= own || mutant!("settled-when-stored"))
        {
            self.settled = first.upto;
            self.entries.pop_front();
        }
        self.settled
    }

    /// The subscriber's settled position.
    #[must_use]
    pub const fn settled(&self) -> Sequence {
        self.settled
    }

    /// What waits to be settled, oldest first: the rows to store.
    pub fn waiting(&self) -> impl Iterator<Item = Covered> + '_ {
        self.entries.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn covered((upto, own): (u64, u64)) -> Covered {
        Covered { upto: Sequence::new(upto), own: Sequence::new(own) }
    }

    #[test]
    fn a_position_is_settled_only_once_everything_under_it_is() {
        let mut acks = AckMap::new(Sequence::ZERO, 8);
        for pair in [(3, 10), (5, 10), (7, 12), (7, 15), (9, 20)] {
            acks.note(covered(pair));
        }
        for (own, settled) in [(0, 0), (9, 0), (10, 5), (11, 5), (12, 7), (3, 7), (19, 7), (99, 9)] {
            assert_eq!(acks.settle(Sequence::new(own)).get(), settled, "own {own}");
        }
        assert_eq!(acks.waiting().count(), 0);
    }

    proptest! {
        #[test]
        fn thinning_delays_but_never_overstates(
            steps in prop::collection::vec((0_u64..4, 0_u64..4, prop::option::of(0_u64..200)), 1..80),
            entries_max in 2_usize..6,
        ) {
            let (mut acks, mut exact) = (AckMap::new(Sequence::ZERO, entries_max), Vec::new());
            let (mut upto, mut own, mut settled_own) = (0, 0, 0);
            for (more, grown, settle) in steps {
                (upto, own) = (upto + more, own + grown);
                acks.note(covered((upto, own)));
                exact.push((upto, own));
                if let Some(settle) = settle {
                    settled_own = settled_own.max(settle.min(own));
                    let said = acks.settle(Sequence::new(settled_own)).get();
                    let truth = exact.iter().filter(|(_, own)| *own <= settled_own).map(|(upto, _)| *upto).max();
                    prop_assert!(said <= truth.unwrap_or(0));
                }
                prop_assert!(acks.waiting().count() <= entries_max);
            }
            prop_assert_eq!(acks.settle(Sequence::new(own)).get(), upto);
        }
    }
}
