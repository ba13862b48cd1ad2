use serde::{Deserialize, Serialize};

use crate::Verdict;

/// What became of the child events a parent has stored; the sums must agree.
///
/// stored = forwarded + filtered + absorbed + dead-lettered + abandoned + pending.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Forwarded {
    /// Events of children appended to the log.
    pub stored: u64,
    /// Of these, taken by the parent's own parent.
    pub forwarded: u64,
    /// Kept back by a stage or by the link's filter.
    pub filtered: u64,
    /// Taken into an aggregate or replaced by a stage's output.
    pub absorbed: u64,
    /// Parked because a stage rejected them.
    pub dead_lettered: u64,
    /// Left behind on an explicit act.
    pub abandoned: u64,
    /// Not decided or not taken yet.
    pub pending: u64,
}

impl Forwarded {
    /// Whether the sums agree.
    #[must_use]
    pub const fn is_conserved(&self) -> bool {
        self.stored
            == self.forwarded
                + self.filtered
                + self.absorbed
                + self.dead_lettered
                + self.abandoned
                + self.pending
    }

    /// Counts `stored` more events of children; they are pending.
    pub const fn store(&mut self, stored: u64) {
        self.stored += stored;
        self.pending += stored;
    }

    /// Counts what a stage decided about one pending event. A forwarded one stays pending until the parent's
    /// parent has taken it.
    ///
    /// # Panics
    ///
    /// If no event is pending.
    pub const fn decide(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Forward => return,
            Verdict::Filtered => self.filtered += 1,
            Verdict::Absorbed => self.absorbed += 1,
            Verdict::DeadLettered => self.dead_lettered += 1,
        }
        self.take_pending(1);
    }

    /// Counts pending events that the parent's parent has taken, and those the link's filter kept back.
    ///
    /// # Panics
    ///
    /// If fewer events are pending.
    pub const fn acknowledge(&mut self, forwarded: u64, filtered: u64) {
        self.forwarded += forwarded;
        self.filtered += filtered;
        self.take_pending(forwarded + filtered);
    }

    /// Counts pending events left behind on an explicit act.
    ///
    /// # Panics
    ///
    /// If fewer events are pending.
    pub const fn abandon(&mut self, abandoned: u64) {
        self.abandoned += abandoned;
        self.take_pending(abandoned);
    }

    const fn take_pending(&mut self, events: u64) {
        assert!(events <= self.pending, "more events were decided than stored");
        self.pending -= events;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_keeps_the_sums_and_a_lost_event_breaks_them() {
        let mut counts = Forwarded::default();
        counts.store(7);
        for verdict in [Verdict::Forward, Verdict::Filtered, Verdict::Absorbed, Verdict::DeadLettered] {
            counts.decide(verdict);
            assert!(counts.is_conserved(), "{counts:?}");
        }
        counts.acknowledge(2, 1);
        counts.abandon(1);
        assert!(counts.is_conserved() && counts.pending == 0, "{counts:?}");
        counts.stored += 1;
        assert!(!counts.is_conserved());
    }
}
