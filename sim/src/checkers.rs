use cdc_model::Answer;
use cdc_relay::{Sender, Stop};
use rusqlite::Connection;

use crate::documents::{Documents, Fact};
use crate::failure::{Broken, ensure};
use crate::rows::{self, LogRow};
use crate::trace::Trace;
use crate::workload::{TABLES, Transaction};

/// Everything the world knows of what must be true, apart from the system: what was written, and what was seen.
#[derive(Debug)]
pub(crate) struct Checkers {
    child: String,
    /// What the child's log must say, from its first row.
    written: Vec<Fact>,
    /// What the child's tables and emitted documents must be.
    documents: Documents,
    /// What the parent may say: the same, or the history before the child was rewound.
    history: Vec<Fact>,
    rewound: Option<usize>,
    child_seen: usize,
    parent_seen: usize,
    /// The most the parent ever held; it never holds less again.
    parent_most: usize,
    /// What the parent's log adds up to.
    fold: Documents,
    mark: i64,
    acked: usize,
}

impl Checkers {
    pub(crate) fn new(child: String) -> Self {
        let written: Vec<_> = TABLES.iter().map(|table| Fact::Schema((*table).to_owned())).collect();
        Self {
            child,
            history: written.clone(),
            written,
            documents: Documents::default(),
            rewound: None,
            child_seen: 0,
            parent_seen: 0,
            parent_most: 0,
            fold: Documents::default(),
            mark: 0,
            acked: 0,
        }
    }

    pub(crate) const fn documents(&self) -> &Documents {
        &self.documents
    }

    /// How many events the child's log must hold.
    pub(crate) const fn written(&self) -> usize {
        self.written.len()
    }

    /// How many events the parent's log holds, as last seen.
    pub(crate) const fn taken(&self) -> usize {
        self.parent_seen
    }

    /// A transaction was committed.
    pub(crate) fn committed(&mut self, transaction: &Transaction) {
        for fact in &transaction.facts {
            self.documents.apply(fact);
            self.written.push(fact.clone());
        }
        if self.rewound.is_none() {
            self.history.extend(transaction.facts.iter().cloned());
        }
    }

    /// The child was put back to where its log ended after so many events, on purpose.
    pub(crate) fn rewind(&mut self, to: usize) {
        self.rewound = Some(to);
        self.written.truncate(to);
        self.documents = Documents::of(&self.written);
    }

    /// The child's link was made anew from what is stored of it.
    pub(crate) const fn child_reopened(&mut self) {
        self.child_seen = 0;
        self.acked = 0;
    }

    /// The parent was opened again; its whole log is held against the history once more.
    pub(crate) fn parent_reopened(&mut self) {
        self.parent_seen = 0;
        self.fold = Documents::default();
    }

    /// Captured or not written: the child's log holds exactly what was committed, in order, and its tables what
    /// that adds up to.
    pub(crate) fn check_child(&mut self, file: &Connection, trace: &mut Trace) -> Result<(), Broken> {
        const PROMISE: &str = "captured or not written";
        for row in rows::log(file, signed(self.child_seen))? {
            trace.absorb(&row.body);
            let own = row.origin.is_none() && row.sequence == signed(self.child_seen) + 1;
            ensure(own, PROMISE, || format!("the child's row after {} is {row:?}", self.child_seen))?;
            let (found, meant) = (rows::fact(&row)?, self.written.get(self.child_seen));
            ensure(Some(&found) == meant, PROMISE, || {
                format!("the child's row {} is {found:?}, written was {meant:?}", row.sequence)
            })?;
            self.child_seen += 1;
        }
        let (seen, written) = (self.child_seen, self.written.len());
        ensure(seen == written, PROMISE, || format!("the child's log ends at {seen} of {written}"))?;
        let difference = rows::live(file)?.difference(&self.documents.only(&TABLES));
        ensure(difference.is_none(), PROMISE, || format!("live and expected row differ: {difference:?}"))
    }

    /// Order, once, nothing lost or invented, unbroken chains, marks that cover exactly what is there.
    pub(crate) fn check_parent(&mut self, file: &Connection, trace: &mut Trace) -> Result<(), Broken> {
        for row in rows::log(file, signed(self.parent_seen))? {
            trace.absorb(&row.body);
            self.check_taken(&row)?;
        }
        let (seen, most) = (self.parent_seen, self.parent_most);
        ensure(seen >= most, "what is stored stays", || format!("the parent held {most}, now {seen}"))?;
        self.parent_most = seen;
        let mark = rows::mark(file, &self.child)?;
        ensure(mark >= self.mark, "marks never move back", || format!("from {} to {mark}", self.mark))?;
        ensure(mark == signed(seen), "a mark covers what is stored", || {
            format!("the mark is {mark}, the parent holds {seen}")
        })?;
        self.mark = mark;
        check_conserved(file, seen)
    }

    fn check_taken(&mut self, row: &LogRow) -> Result<(), Broken> {
        const PROMISE: &str = "every event once, in its origin's order";
        let next = signed(self.parent_seen) + 1;
        let from_child =
            row.origin.as_ref().is_some_and(|(source, route)| (source, route) == (&self.child, &self.child));
        let at = from_child && row.sequence == next && row.origin_sequence == Some(next);
        ensure(at, PROMISE, || format!("after {} comes {row:?}", self.parent_seen))?;
        let (found, meant) = (rows::fact(row)?, self.history.get(self.parent_seen));
        ensure(Some(&found) == meant, PROMISE, || {
            format!("the parent's {next} is {found:?}, written was {meant:?}")
        })?;
        if let Fact::Change { collection, document, before, .. } = &found {
            let known = self.fold.get(collection, document);
            ensure(before.as_ref() == known, "before continues after", || {
                format!("{next} says before {before:?}, known was {known:?}")
            })?;
        }
        self.fold.apply(&found);
        self.parent_seen += 1;
        Ok(())
    }

    /// What an answer claims lies in the parent's file already.
    pub(crate) fn check_answer(&self, answer: &Answer) -> Result<(), Broken> {
        let mark = answer.mark.map_or(0, |mark| mark.sequence.as_i64());
        let stored = signed(self.parent_seen);
        ensure(mark <= stored, "acknowledged is durable", || format!("answered {mark}, durable is {stored}"))
    }

    /// What the child believes acknowledged lies in the parent's log, and is never taken back.
    pub(crate) fn check_sender(&mut self, sender: &Sender, stop: Option<&Stop>) -> Result<(), Broken> {
        if self.rewound.is_none() {
            let name = stop.map(|stop| format!("{stop:?}"));
            ensure(stop.is_none(), "a sound link goes on", || name.unwrap_or_default())?;
        }
        let acked = usize::try_from(sender.acked().sequence.get()).unwrap_or(usize::MAX);
        ensure(acked <= self.parent_most, "acknowledged is durable", || {
            format!("the child believes {acked}, the parent holds {}", self.parent_most)
        })?;
        ensure(acked >= self.acked, "marks never move back", || format!("acked {} to {acked}", self.acked))?;
        self.acked = acked;
        Ok(())
    }

    /// Some time after healing: everything has arrived, is acknowledged, and adds up to the child's documents.
    pub(crate) fn check_arrived(&self) -> Result<(), Broken> {
        let (written, seen, acked) = (self.written.len(), self.parent_seen, self.acked);
        ensure(seen == written && acked == written, "what is written arrives", || {
            format!("of {written} the parent holds {seen}, the child knows of {acked}")
        })?;
        let difference = self.fold.difference(&self.documents);
        ensure(difference.is_none(), "the fold is the live table", || format!("{difference:?}"))
    }

    /// Some time after healing: a rewind that the parent saw has stopped the link, and nothing else moved.
    pub(crate) fn check_rewind_found(&self, stop: Option<&Stop>) -> Result<(), Broken> {
        let typed = matches!(stop, Some(Stop::Rewound { .. } | Stop::Diverged { .. }));
        ensure(typed, "a rewound log is detected", || format!("the link's stop is {stop:?}"))
    }
}

/// received = stored + duplicate + looped + late + refused, and the rows are what was stored.
fn check_conserved(file: &Connection, rows: usize) -> Result<(), Broken> {
    const PROMISE: &str = "what is received is accounted for";
    let names = ["stored", "duplicate", "looped", "late", "refused"];
    let counted = names.iter().map(|name| rows::counter(file, name)).collect::<Result<Vec<_>, _>>()?;
    let received = rows::counter(file, "received")?;
    ensure(received == counted.iter().sum::<i64>(), PROMISE, || format!("{received} received, {counted:?}"))?;
    let stored = counted.first().copied().unwrap_or_default();
    ensure(stored == signed(rows), PROMISE, || format!("{stored} counted as stored, {rows} rows"))
}

fn signed(count: usize) -> i64 {
    i64::try_from(count).expect("a run writes few events")
}
