//! Everything the world knows of what must be true, apart from the system: what was written, what was answered and
//! what the logs have shown so far. Shares no code with the logs or the replay.

use std::collections::{BTreeMap, BTreeSet};

use cdc_model::{Answer, Cursor, ObjectId, Record};

use crate::documents::{Documents, Fact};
use crate::failure::{Broken, ensure};
use crate::known::{Burst, Copied, Doubt, Held, Known, Rewound, Row, number, row_hash};
use crate::random::Random;
use crate::topology::Place;
use crate::workload::{TABLES, Transaction, Workload};

/// What is known of a whole world.
#[derive(Debug)]
pub(crate) struct Oracle {
    pub(crate) places: Vec<Place>,
    pub(crate) objects: Vec<Known>,
    by_id: BTreeMap<ObjectId, usize>,
    /// Objects that something has happened to since they were looked at.
    pub(crate) dirty: BTreeSet<usize>,
    /// What was called settled since it was last checked: parent, child, and the child's position.
    pub(crate) claims: BTreeMap<(usize, usize), u64>,
    /// Counts steps: what is looked at twice in one moment is the same both times.
    pub(crate) moment: u64,
    /// The first promise found broken outside of a look.
    pub(crate) broken: Option<Broken>,
    turn: usize,
    pub(crate) begun: u64,
    pub(crate) commits: u64,
    pub(crate) facts: u64,
    pub(crate) records_read: u64,
    /// Databases that applications have begun anew.
    pub(crate) begun_anew: u64,
    /// Changes of captured tables.
    pub(crate) redesigns: u64,
}

impl Oracle {
    pub(crate) fn new(seed: u64, places: Vec<Place>) -> Self {
        let known = |at: usize| {
            let is_attached = places.get(at).is_some_and(|place| place.attached.is_some());
            Known::new(Workload::new(Random::stream(seed, "workload").branch(at), !is_attached))
        };
        let objects = (0..places.len()).map(known).collect::<Vec<_>>();
        let by_id = places.iter().enumerate().map(|(at, place)| (place.id.clone(), at)).collect();
        Self {
            places,
            objects,
            by_id,
            dirty: BTreeSet::new(),
            claims: BTreeMap::new(),
            moment: 0,
            broken: None,
            turn: 0,
            begun: 0,
            commits: 0,
            facts: 0,
            records_read: 0,
            begun_anew: 0,
            redesigns: 0,
        }
    }

    pub(crate) fn index(&self, id: &ObjectId) -> Option<usize> {
        self.by_id.get(id).copied()
    }

    /// The process that serves an object.
    pub(crate) fn host_of(&self, id: &ObjectId) -> Option<usize> {
        self.index(id).map(|at| self.place(at).host)
    }

    pub(crate) fn place(&self, at: usize) -> &Place {
        self.places.get(at).expect("an object of this world")
    }

    pub(crate) fn known(&mut self, at: usize) -> &mut Known {
        self.objects.get_mut(at).expect("an object of this world")
    }

    /// Draws the next transaction of an object. `None` while the end of the last is not known.
    pub(crate) fn begin(&mut self, at: usize) -> Option<Transaction> {
        let known = self.known(at);
        if known.doubt.is_some() {
            return None;
        }
        let transaction = known.workload.next(&known.documents);
        known.doubt = Some(Doubt { transaction: transaction.clone(), ended: false, told: false });
        self.begun += 1;
        Some(transaction)
    }

    /// An object's transaction has ended: committed, rolled back on purpose, or nobody knows how.
    pub(crate) fn ended(&mut self, at: usize, committed: Option<bool>) {
        self.dirty.insert(at);
        let is_normal = self.place(at).normal;
        let known = self.known(at);
        match committed {
            Some(true) if is_normal => {
                if let Some(doubt) = &mut known.doubt {
                    (doubt.ended, doubt.told) = (true, !doubt.transaction.facts.is_empty());
                }
            }
            // A look may have seen it already.
            Some(true) => self.settle_doubt(at, true),
            Some(false) => known.doubt = None,
            None => {
                if let Some(doubt) = &mut known.doubt {
                    doubt.ended = true;
                }
            }
        }
    }

    /// Somebody writes a document beside others. Gives its id.
    pub(crate) fn begin_burst(&mut self, at: usize) -> String {
        self.begun += 1;
        let id = self.begun.to_string();
        self.known(at).bursts.insert(id.clone(), Burst::Open);
        id
    }

    /// It was written or given up on purpose; `None` when nobody knows.
    pub(crate) fn burst_ended(&mut self, at: usize, id: &str, written: Option<bool>) {
        self.dirty.insert(at);
        // A look may have seen it already.
        let (Some(burst), Some(written)) = (self.known(at).bursts.get_mut(id), written) else { return };
        *burst = if written { Burst::Written } else { Burst::GivenUp };
    }

    /// The log shows a document that was written beside others; gives whether that may be.
    pub(crate) fn burst_shown(&mut self, at: usize, id: &str) -> bool {
        let shown = self.known(at).bursts.remove(id);
        shown.map_or_else(|| self.is_rewound(at), |burst| burst != Burst::GivenUp)
    }

    /// The process of an object is gone: whatever ran has ended.
    pub(crate) fn crashed(&mut self, at: usize) {
        self.ended(at, None);
    }

    /// Whether a transaction runs whose end was not told so far.
    pub(crate) fn is_writing(&self, at: usize) -> bool {
        self.objects.get(at).is_some_and(|known| known.doubt.as_ref().is_some_and(|doubt| !doubt.ended))
    }

    /// The facts that a running or doubtful transaction may add.
    pub(crate) fn doubtful(&self, at: usize) -> Option<&[Fact]> {
        self.objects.get(at)?.doubt.as_ref().map(|doubt| doubt.transaction.facts.as_slice())
    }

    /// Whether somebody was told of a commit that no look has seen so far.
    pub(crate) fn is_told(&self, at: usize) -> bool {
        self.objects.get(at).is_some_and(|known| known.doubt.as_ref().is_some_and(|doubt| doubt.told))
    }

    /// The application of an attached object has looked which of its transactions was the last that committed. It has
    /// ended whatever ran before, and made durable what it saw.
    pub(crate) fn last_committed(&mut self, at: usize, number: u32) {
        self.known(at).unsettled = false;
        let doubted = self.known(at).doubt.as_ref().map(|doubt| doubt.transaction.number);
        self.ended(at, doubted.map(|doubted| doubted == number));
    }

    /// A commit of an application failed: what it has left in the database may be seen and lost with the power.
    pub(crate) fn is_unsettled(&mut self, at: usize) {
        self.known(at).unsettled = true;
    }

    /// The power went that an object's files, or its application's database, were on.
    pub(crate) fn lost_power(&mut self, at: usize) {
        if self.place(at).normal {
            let known = self.known(at);
            known.doubt.iter_mut().for_each(|doubt| doubt.told = false);
            let told = known.bursts.values_mut().filter(|burst| **burst == Burst::Written);
            told.for_each(|burst| *burst = Burst::Open);
        }
        let Some(habits) = self.place(at).attached else { return };
        if self.known(at).unsettled || habits.is_weak() {
            self.loosen(at);
        }
        self.known(at).distrusted = habits.is_reckless();
    }

    /// Whether an application begins anew because nobody knows what its database is worth. It asks once.
    pub(crate) fn distrusts(&mut self, at: usize) -> bool {
        let distrusts = std::mem::take(&mut self.known(at).distrusted);
        self.begun_anew += u64::from(distrusts);
        distrusts
    }

    /// From now on an object's own rows need only continue each other: its database is no more what its transactions
    /// have made it.
    pub(crate) fn loosen(&mut self, at: usize) {
        let known = self.known(at);
        known.doubt = None;
        if known.loose.is_none() {
            let mut documents = Documents::default();
            for own in known.shown.keys().copied().collect::<Vec<_>>() {
                known.fact_of(own).into_iter().for_each(|fact| documents.apply(fact));
            }
            known.loose = Some(documents.only(&TABLES));
        }
    }

    pub(crate) fn is_loose(&self, at: usize) -> bool {
        self.objects.get(at).is_some_and(|known| known.loose.is_some())
    }

    /// Whether something consumes its log with effects in its own database.
    pub(crate) fn is_consumed(&self, at: usize) -> bool {
        self.place(at).consumes && !self.is_attached(at)
    }

    /// Whether an application writes the object.
    pub(crate) fn is_attached(&self, at: usize) -> bool {
        self.place(at).attached.is_some()
    }

    /// The log has shown whether the doubtful transaction is in it.
    pub(crate) fn settle_doubt(&mut self, at: usize, committed: bool) {
        let known = self.known(at);
        let Some(doubt) = known.doubt.take_if(|doubt| committed || doubt.ended) else { return };
        if committed {
            let facts = doubt.transaction.facts;
            facts.iter().for_each(|fact| known.documents.apply(fact));
            let count = number(facts.len());
            if count > 0 {
                let told = (facts.len(), doubt.transaction.number);
                known.transactions.insert(known.written.len(), told);
            }
            known.written.extend(facts);
            self.facts += count;
            self.commits += 1;
        }
    }

    /// A parent has answered a child: what it says is durable must be, from now on.
    pub(crate) fn answered(&mut self, parent: &ObjectId, child: &ObjectId, answer: &Answer) {
        let (Some(parent), Some(child)) = (self.index(parent), self.index(child)) else { return };
        let mark = answer.mark.map_or(0, |mark| mark.sequence.get());
        let known = self.known(parent);
        let most = known.answered.entry(child).or_default();
        *most = mark.max(*most);
        let settled = known.settled.entry(child).or_default();
        if answer.settled.get() > *settled {
            *settled = answer.settled.get();
            self.claims.insert((parent, child), answer.settled.get());
        }
        self.dirty.insert(parent);
    }

    /// Where the one who reads along goes on; `None` for a log that was rewound.
    pub(crate) fn reads_after(&self, at: usize) -> Option<Cursor> {
        self.objects.get(at).filter(|known| known.rewound.is_none()).map(|known| known.read_to)
    }

    /// How far one has come who read a log before it was rewound.
    pub(crate) fn reads_from_before(&self, at: usize) -> Option<Cursor> {
        self.objects.get(at).filter(|known| known.rewound.is_some()).map(|known| known.read_to)
    }

    /// The one who reads along was given these records: the next ones, each once.
    pub(crate) fn read(&mut self, at: usize, records: &[Record], cursor: Cursor) {
        let known = self.known(at);
        if known.rewound.is_some() {
            return;
        }
        let mut next = known.read_to.sequence.get() + 1;
        let mut expected = true;
        for record in records {
            expected &= record.sequence.get() == next;
            known.read.push_back((next, row_hash(record.body.as_str(), record.origin_timestamp.get())));
            next += 1;
        }
        expected &= cursor.sequence.get() + 1 == next;
        let from = std::mem::replace(&mut known.read_to, cursor);
        self.records_read += number(records.len());
        self.dirty.insert(at);
        self.note(ensure(expected, "a replay gives each record once, in order", || {
            let given: Vec<_> = records.iter().map(|record| record.sequence.get()).collect();
            format!("object {at}: after {from:?} it gave {given:?} up to {cursor:?}")
        }));
    }

    /// The object's ancestors, nearest first.
    pub(crate) fn above(&self, at: usize) -> impl Iterator<Item = usize> + '_ {
        std::iter::successors(self.place(at).parent, |at| self.place(*at).parent)
    }

    /// An object's files are those of its copy again, on purpose.
    pub(crate) fn rewind(&mut self, at: usize) {
        let forks = self.objects.iter().map(|known| known.rewound.as_ref().map(|rewound| rewound.fork));
        let forks: Vec<Option<usize>> = forks.collect();
        let known = self.known(at);
        let Some(Copied { rows: fork, own_seen }) = known.copy else { return };
        let rows = known.rows.clone();
        known.rows.truncate(fork);
        known.shown.retain(|own, _| *own <= number(fork));
        known.own_seen = own_seen;
        known.written.truncate(own_seen);
        known.transactions.split_off(&own_seen);
        known.documents = Documents::of(&known.written);
        known.counted = Documents::default();
        known.bursts.clear();
        known.doubt = None;
        known.rewound = Some(Rewound { fork, rows });
        known.newest = i64::MIN;
        known.read.clear();
        known.answered.clear();
        known.settled.clear();
        known.marks.clear();
        for (child, taken) in &mut known.taken {
            taken.pairs.retain(|(_, own)| usize::try_from(*own).is_ok_and(|own| own <= fork));
            taken.through = taken.pairs.last().map_or(0, |(own, _)| usize::try_from(*own).unwrap_or(0));
            // What it still holds may be of both histories of a child that was rewound itself.
            let fork = forks.get(*child).copied().flatten();
            taken.old = taken.old.filter(|_| fork.is_some_and(|fork| taken.through > fork));
        }
    }

    /// An object's files are copied as they are now.
    pub(crate) fn copied(&mut self, at: usize) {
        let known = self.known(at);
        known.copy = Some(Copied { rows: known.rows.len(), own_seen: known.own_seen });
    }

    /// An object that something has happened to since it was looked at, each in its turn.
    pub(crate) fn next_dirty(&mut self) -> Option<usize> {
        let next = self.dirty.range(self.turn..).next().or_else(|| self.dirty.first()).copied()?;
        self.turn = next + 1;
        Some(next)
    }

    pub(crate) fn any_rewound(&self) -> bool {
        self.objects.iter().any(|known| known.rewound.is_some())
    }

    /// Whether everything of an object must arrive at its parent in the end.
    pub(crate) fn is_sound(&self, at: usize) -> bool {
        !self.is_rewound(at) && !self.place(at).parent.is_some_and(|parent| self.is_rewound(parent))
    }

    pub(crate) fn is_rewound(&self, at: usize) -> bool {
        self.objects.get(at).is_some_and(|known| known.rewound.is_some())
    }

    /// Notes the first promise found broken outside of a look.
    pub(crate) fn note(&mut self, checked: Result<(), Broken>) {
        if let (None, Err(broken)) = (&self.broken, checked) {
            self.broken = Some(broken);
        }
    }

    /// Holds a parent's row against its child's log: it must be the next that was not kept back.
    pub(crate) fn take(&mut self, parent: usize, child: usize, row: Row, own: u64) -> Result<Held, Broken> {
        const PROMISE: &str = "every event once, in its origin's order";
        let mut taken = self.known(parent).taken.remove(&child).unwrap_or_default();
        let (now, known_at) = (self.moment, self.known(child).known_at);
        let histories = self.known(child).histories(taken.through, taken.old);
        let is_it = |next: &Option<Row>| next.is_some_and(|next| next.is_same_event(row));
        let mut found = histories.iter().filter(|(_, _, next)| is_it(next));
        let unseen = histories.iter().find(|(old, _, next)| next.is_none() && *old != Some(true));
        let held = match (found.next(), found.next()) {
            // The log as it is may begin as what a rewind took back did.
            (Some((Some(true), ..)), _)
                if taken.old.is_none()
                    && unseen.is_some()
                    && known_at < *taken.waits_since.get_or_insert(now) =>
            {
                self.dirty.insert(child);
                Ok(Held::NotKnown)
            }
            (Some((old, at, Some(next))), other) => {
                taken.through = at + 1;
                taken.pairs.push((number(at + 1), own));
                if other.is_none_or(|(_, other, _)| other != at) {
                    taken.old = *old;
                }
                taken.waits_since = None;
                Ok(Held::Taken(next.class))
            }
            _ => {
                let (_, at, next) = self.known(child).histories(taken.through, taken.old).swap_remove(0);
                match next {
                    // A history that was taken back does not go on.
                    None if taken.old == Some(true) => ensure(false, PROMISE, || {
                        format!("row {own} of object {parent} is {row:?}, of {child} it followed a history that ended")
                    })
                    .map(|()| Held::NotKnown),
                    None => Ok(Held::NotKnown),
                    Some(next) => ensure(false, PROMISE, || {
                        format!("row {own} of object {parent} is {row:?}; the next of {child}, its {at}th, is {next:?}")
                    })
                    .map(|()| Held::NotKnown),
                }
            }
        };
        self.known(parent).taken.insert(child, taken);
        held
    }
}
