use std::borrow::Borrow;
use std::collections::BTreeMap;

use cdc_model::{Epoch, ObjectId, Record, Sequence, Timestamp};

/// How many findings an audit lists, and how many gaps it keeps open; the rest are counted.
pub const FINDINGS_MAX: usize = 1000;

/// What is wrong with the order of some records.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finding {
    /// Nothing was seen between two positions.
    Gap {
        /// The last position before it.
        after: Sequence,
        /// The first position behind it.
        next: Sequence,
    },
    /// The position had been seen.
    Repeat {
        /// The position.
        at: Sequence,
    },
    /// The record came after later ones.
    Disorder {
        /// The record's place.
        at: Sequence,
        /// The highest place seen before it.
        after: Sequence,
    },
    /// The log's time is less than that of the record before.
    TimeBackwards {
        /// The record's place.
        at: Sequence,
    },
    /// The origin's place is not beyond the one that the same origin's record before had: an event is there twice,
    /// or events of one origin changed places.
    OriginBackwards {
        /// The record's place.
        at: Sequence,
        /// The origin.
        source: ObjectId,
        /// The record's place at its origin.
        origin_sequence: Sequence,
    },
}

/// Checks that records come in order, each once and none missing. Takes whole logs; a filtered replay has gaps.
#[derive(Clone, Debug, Default)]
pub struct Audit {
    highest: Sequence,
    timestamp: Option<Timestamp>,
    records: u64,
    findings: Vec<Finding>,
    findings_total: u64,
    /// What was not seen yet below `highest`: position before, position behind.
    open: BTreeMap<Sequence, Sequence>,
    origins: BTreeMap<(ObjectId, Epoch), Sequence>,
}

impl Audit {
    /// An audit of the records after this position.
    #[must_use]
    pub fn after(sequence: Sequence) -> Self {
        Self { highest: sequence, ..Self::default() }
    }

    /// Looks at one more record.
    pub fn take(&mut self, record: &Record) {
        self.records += 1;
        let at = record.sequence;
        if self.take_place(at) {
            self.take_origin(record);
            if self.timestamp.is_some_and(|before| record.timestamp < before) {
                self.find(Finding::TimeBackwards { at });
            }
            self.timestamp = Some(record.timestamp);
        }
    }

    /// How many records were looked at.
    #[must_use]
    pub const fn records(&self) -> u64 {
        self.records
    }

    /// How many faults there are, listed or not.
    #[must_use]
    pub fn faults(&self) -> u64 {
        self.findings_total.saturating_add(u64::try_from(self.open.len()).unwrap_or(u64::MAX))
    }

    /// The faults: first what was out of place as it came, then the gaps that nothing has filled.
    pub fn findings(&self) -> impl Iterator<Item = Finding> {
        let gaps = self.open.iter().map(|(after, next)| Finding::Gap { after: *after, next: *next });
        self.findings.iter().cloned().chain(gaps)
    }

    /// Whether the record is the next or leaves a gap; only then its time and origin are compared.
    fn take_place(&mut self, at: Sequence) -> bool {
        let after = self.highest;
        if at > after {
            if at != after.next() {
                self.open_gap(after, at);
            }
            self.highest = at;
            return true;
        }
        let gap = self.open.range(..at).next_back().map(|(after, next)| (*after, *next));
        let Some((before, next)) = gap.filter(|(_, next)| at < *next) else {
            self.find(Finding::Repeat { at });
            return false;
        };
        self.find(Finding::Disorder { at, after });
        self.open.remove(&before);
        for (after, next) in [(before, at), (at, next)] {
            if next > after.next() {
                self.open_gap(after, next);
            }
        }
        false
    }

    fn take_origin(&mut self, record: &Record) {
        let (source, origin_sequence) = (record.origin.source().clone(), record.origin_sequence);
        let last = self.origins.entry((source, record.origin.epoch())).or_default();
        if origin_sequence > *last {
            *last = origin_sequence;
            return;
        }
        let source = record.origin.source().clone();
        self.find(Finding::OriginBackwards { at: record.sequence, source, origin_sequence });
    }

    fn open_gap(&mut self, after: Sequence, next: Sequence) {
        if self.open.len() < FINDINGS_MAX {
            self.open.insert(after, next);
        } else {
            self.findings_total += 1;
        }
    }

    fn find(&mut self, finding: Finding) {
        self.findings_total += 1;
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        }
    }
}

/// Audits records that are at hand, which must begin after `after`.
pub fn audit(after: Sequence, records: impl IntoIterator<Item: Borrow<Record>>) -> Audit {
    let mut audit = Audit::after(after);
    records.into_iter().for_each(|record| audit.take(record.borrow()));
    audit
}
