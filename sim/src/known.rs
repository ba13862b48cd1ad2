//! What is known of one object, apart from the system: what was written to it, and what its log has shown so far.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use cdc_model::Cursor;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::documents::{Documents, Fact};
use crate::workload::{Transaction, Workload};

/// What is known of one object.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) workload: Workload,
    /// What its own transactions committed, in order.
    pub(crate) written: Vec<Fact>,
    /// By the place of its first fact: how many facts a transaction has, and its number.
    pub(crate) transactions: BTreeMap<usize, (usize, u32)>,
    /// The id that the log has given to the newest of several events.
    pub(crate) transaction_id: Option<String>,
    /// What that adds up to.
    pub(crate) documents: Documents,
    /// A transaction that runs, or whose end nobody was told.
    pub(crate) doubt: Option<Doubt>,
    /// How many of the facts its log has shown.
    pub(crate) own_seen: usize,
    /// What its own rows say, by their place in its log.
    pub(crate) shown: BTreeMap<u64, Shown>,
    /// Its log, row by row, as it was first seen.
    pub(crate) rows: Vec<Row>,
    /// When the newest of them was appended.
    pub(crate) newest: i64,
    /// By child: how far it has come here.
    pub(crate) taken: BTreeMap<usize, Taken>,
    /// By child: the most that was answered.
    pub(crate) answered: BTreeMap<usize, u64>,
    /// By child: the most that was called settled in an answer.
    pub(crate) settled: BTreeMap<usize, u64>,
    /// By child: the mark its log had when it was looked at.
    pub(crate) marks: BTreeMap<usize, u64>,
    /// The cursor of the one who reads along.
    pub(crate) read_to: Cursor,
    /// Rows he was given that its log has not shown so far: their places and what they hash to.
    pub(crate) read: VecDeque<(u64, u64)>,
    /// What its stage has counted, by the documents it wrote.
    pub(crate) counted: Documents,
    /// Documents that were written beside others at the same time and that its log has not shown so far.
    pub(crate) bursts: BTreeMap<String, Burst>,
    /// The documents that its consumer wrote.
    pub(crate) echoed: BTreeSet<String>,
    /// The moment at which its log was last known to its end.
    pub(crate) known_at: u64,
    /// What an older copy of its files was put in the place of, if that was done.
    pub(crate) rewound: Option<Rewound>,
    /// Where its log ended, and what it had written, when its files were copied.
    pub(crate) copy: Option<Copied>,
    /// Whether its application does not know how its last transaction ended.
    pub(crate) unsettled: bool,
    /// Whether the power went that its application's database was on, which is written without syncs.
    pub(crate) distrusted: bool,
    /// What its own rows add up to, since these are all that is known of its tables.
    pub(crate) loose: Option<Documents>,
    /// Whether its tables were written around capture: until that is found, a change may not continue the one before it.
    pub(crate) is_bypassed: bool,
}

/// What an own row says.
#[derive(Debug)]
pub(crate) enum Shown {
    /// This one of the facts that were written.
    Written(usize),
    /// What a stage wrote, or what was found in a database that lost something.
    Found(Fact),
}

#[derive(Debug)]
pub(crate) struct Doubt {
    pub(crate) transaction: Transaction,
    pub(crate) ended: bool,
    /// Its application was told that it committed, which the log shows once it is on disk.
    pub(crate) told: bool,
}

/// What an object was when its files were copied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Copied {
    pub(crate) rows: usize,
    pub(crate) own_seen: usize,
}

impl Copied {
    /// What an object begins with.
    pub(crate) const NOTHING: Self = Self { rows: 0, own_seen: 0 };
}

/// The history that a rewind took back.
#[derive(Debug)]
pub(crate) struct Rewound {
    /// The rows that both histories have.
    pub(crate) fork: usize,
    pub(crate) rows: Vec<Row>,
}

/// One row of a log: whose event it is and what its bytes hash to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) origin: usize,
    pub(crate) origin_sequence: u64,
    pub(crate) hash: u64,
    /// When the event happened, by its origin's clock, in milliseconds.
    pub(crate) timestamp: i64,
    pub(crate) class: Class,
    /// Why a stage of the object in whose log it lies lets it go no further, if one does.
    pub(crate) kept_back: Option<KeptBack>,
}

/// Why an event goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeptBack {
    Filtered,
    /// A stage cannot work with it: it waits for an operator.
    DeadLettered,
}

/// What a row is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Schema,
    /// A row of a captured table.
    Captured,
    /// A document without a table.
    Emitted,
    /// An output of a stage that counts.
    Counted,
    /// What a consumer wrote beside its checkpoint.
    Echo,
}

/// How far a child's log has come in its parent's.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    /// How many of the child's rows are decided.
    pub(crate) through: usize,
    /// Of each row taken: its place in the child's log and in the parent's.
    pub(crate) pairs: Vec<(u64, u64)>,
    /// Which history of a rewound child it follows, once that is decided: both may begin alike.
    pub(crate) old: Option<bool>,
    /// The moment at which the row that is next was there, if that is to be decided when the child's log is known as
    /// it was then.
    pub(crate) waits_since: Option<u64>,
}

/// What became of a document that was written beside others at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Burst {
    /// Nobody was told, or not yet.
    Open,
    Written,
    GivenUp,
}

/// What became of a parent's row that was held against its child's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    Taken(Class),
    /// The child's log is not known so far.
    NotKnown,
}

impl Row {
    pub(crate) fn is_same_event(self, other: Self) -> bool {
        (self.origin, self.origin_sequence, self.hash) == (other.origin, other.origin_sequence, other.hash)
    }
}

impl Known {
    pub(crate) fn new(workload: Workload) -> Self {
        Self {
            workload,
            written: Vec::new(),
            transactions: BTreeMap::new(),
            transaction_id: None,
            documents: Documents::default(),
            doubt: None,
            own_seen: 0,
            shown: BTreeMap::new(),
            rows: Vec::new(),
            newest: i64::MIN,
            taken: BTreeMap::new(),
            answered: BTreeMap::new(),
            settled: BTreeMap::new(),
            marks: BTreeMap::new(),
            read_to: Cursor::START,
            read: VecDeque::new(),
            counted: Documents::default(),
            bursts: BTreeMap::new(),
            echoed: BTreeSet::new(),
            known_at: 0,
            rewound: None,
            copy: None,
            unsettled: false,
            distrusted: false,
            loose: None,
            is_bypassed: false,
        }
    }

    /// What may come next at the parent, which has decided about `through` rows: the place and row in the log as it
    /// is, and in the history that a rewind took back. The flag says which, where they differ.
    pub(crate) fn histories(
        &self,
        through: usize,
        old: Option<bool>,
    ) -> Vec<(Option<bool>, usize, Option<Row>)> {
        let next = |rows: &[Row]| {
            let kept = rows.iter().enumerate().skip(through).find(|(_, row)| row.kept_back.is_none());
            kept.map_or((rows.len(), None), |(at, row)| (at, Some(*row)))
        };
        let mut histories = Vec::new();
        if old != Some(true) {
            let (at, row) = next(&self.rows);
            let is_decided = self.rewound.as_ref().is_some_and(|rewound| at >= rewound.fork);
            histories.push((is_decided.then_some(false).or(old), at, row));
        }
        if let Some(rewound) = self.rewound.as_ref().filter(|_| old != Some(false)) {
            let (at, row) = next(&rewound.rows);
            histories.push(((at >= rewound.fork).then_some(true).or(old), at, row));
        }
        histories
    }

    /// What an own row says.
    pub(crate) fn fact_of(&self, own: u64) -> Option<&Fact> {
        match self.shown.get(&own)? {
            Shown::Written(at) => self.written.get(*at),
            Shown::Found(fact) => Some(fact),
        }
    }

    /// The last of the first `upto` rows that goes on to the parent; 0 when none does.
    pub(crate) fn last_sent(&self, upto: u64) -> u64 {
        let first = self.rows.iter().take(usize::try_from(upto).unwrap_or(usize::MAX));
        number(
            first.collect::<Vec<_>>().iter().rposition(|row| row.kept_back.is_none()).map_or(0, |at| at + 1),
        )
    }

    /// How many of the rows a parent that has decided about `through` of them need not wait for any more.
    pub(crate) fn decided(&self, through: usize) -> usize {
        let kept_back = self.rows.iter().skip(through).take_while(|row| row.kept_back.is_some()).count();
        through + kept_back
    }
}

/// What a row hashes to: its bytes, and when its event happened.
pub(crate) fn row_hash(body: &str, timestamp: i64) -> u64 {
    xxh3_64_with_seed(body.as_bytes(), timestamp.cast_unsigned())
}

pub(crate) fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
