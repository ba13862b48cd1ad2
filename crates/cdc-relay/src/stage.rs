//! Stages: what a parent does with the events of its children before they go further.

mod count;
mod filter;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use cdc_model::{Body, Change, ChangeBody, DerivedFrom, Operation, Record, Sequence, Tag};
use serde_json::Value;
use serde_json::value::RawValue;

pub use count::{Aggregate, Count, GroupBy};
pub use filter::FilterStage;

use crate::Error;

/// One step of a parent's work on its children's events: the seed's `onChildEvent`.
///
/// A stage is pure: all it knows is its settings, the record and the state it looks up. State, outputs and cursor
/// commit in one transaction, so whatever a stage counts stays exact through every crash.
pub trait Stage: Send {
    /// Its name: the key of its state, and the collection of what it emits. Unique at its parent.
    fn name(&self) -> &str;

    /// Decides about one event of a child.
    ///
    /// # Errors
    ///
    /// [`StageError::Rejected`] parks this one event as a dead letter; [`StageError::Lookup`] ends the pass, which
    /// is run again.
    fn apply(&self, state: &mut StageState<'_>, record: &Record) -> Result<Outcome, StageError>;
}

/// What a stage decided.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// What becomes of the event itself.
    pub verdict: Verdict,
    /// New events of the parent.
    pub emit: Vec<Emit>,
}

impl From<Verdict> for Outcome {
    fn from(verdict: Verdict) -> Self {
        Self { verdict, emit: Vec::new() }
    }
}

/// What becomes of a child's event at its parent. It stays in the parent's log in every case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on to the next stage, and after the last one to the parent's own parent.
    Forward,
    /// It goes no further.
    Filtered,
    /// It goes no further because something emitted stands for it.
    Absorbed,
    /// A stage rejected it; it waits for an operator. Given by [`Stages::run`], not by stages.
    DeadLettered,
}

/// A new event of the parent, made by a stage.
#[derive(Clone, Debug, PartialEq)]
pub struct Emit {
    /// The collection, usually the stage's name.
    pub collection: String,
    /// The document.
    pub document_id: String,
    /// What happened to it.
    pub change: Change<Value>,
    /// What kind of output it is.
    pub tag: Option<Tag>,
    /// The event it was made from; of a merged one the last.
    pub derived_from: DerivedFrom,
}

impl Emit {
    /// The body to append to the parent's log as an event of its own.
    ///
    /// # Panics
    ///
    /// Never: JSON values serialise.
    #[must_use]
    pub fn to_body(&self) -> Body {
        let raw = |value: &Value| RawValue::from_string(value.to_string()).expect("a value's text is JSON");
        let (before, after) = (self.change.before().map(raw), self.change.after().map(raw));
        let paths = self.change.changed_fields().iter().map(|path| Cow::Borrowed(path.as_str()));
        let operation = self.change.operation();
        let mut body = ChangeBody::new(operation, self.collection.as_str(), self.document_id.as_str());
        body.tag = self.tag.clone();
        body.derived_from = Some(self.derived_from.clone());
        body.changed_fields = (operation == Operation::Update).then(|| paths.collect());
        body.before = before.as_deref();
        body.after = after.as_deref();
        body.to_body()
    }
}

/// Why a stage did not decide.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StageError {
    /// The stage cannot work with this event.
    #[error("the event is rejected: {reason}")]
    Rejected {
        /// What is wrong with it.
        reason: String,
    },
    /// Its state could not be read.
    #[error("state could not be read")]
    Lookup(#[source] LookupError),
}

/// Why a state row could not be read; whatever the caller's storage says.
pub type LookupError = Box<dyn std::error::Error + Send + Sync>;

/// The name of a state row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StateKey {
    /// The stage it belongs to.
    pub stage: String,
    /// Its key within the stage.
    pub key: String,
}

type Lookup<'a> = dyn FnMut(&StateKey) -> Result<Option<String>, LookupError> + 'a;
type Writes = BTreeMap<StateKey, Option<String>>;

/// A stage's view of its state: what is stored, under what this pass has written.
pub struct StageState<'a> {
    stage: &'a str,
    look_up: &'a mut Lookup<'a>,
    pass: &'a Writes,
    staged: &'a mut Writes,
}

impl StageState<'_> {
    /// The text under a key.
    ///
    /// # Errors
    ///
    /// [`StageError::Lookup`] when storage fails; hand it on.
    pub fn get(&mut self, key: &str) -> Result<Option<String>, StageError> {
        let key = self.key(key);
        match self.staged.get(&key).or_else(|| self.pass.get(&key)) {
            Some(written) => Ok(written.clone()),
            None => (self.look_up)(&key).map_err(StageError::Lookup),
        }
    }

    /// Writes the text under a key, with this event's outputs and the cursor or not at all.
    pub fn put(&mut self, key: &str, text: String) {
        self.staged.insert(self.key(key), Some(text));
    }

    /// Removes a key in the same way.
    pub fn remove(&mut self, key: &str) {
        self.staged.insert(self.key(key), None);
    }

    fn key(&self, key: &str) -> StateKey {
        StateKey { stage: self.stage.to_owned(), key: key.to_owned() }
    }
}

impl fmt::Debug for StageState<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StageState").field("stage", &self.stage).finish_non_exhaustive()
    }
}

/// The stages of one parent, in order: a subscriber of its log.
pub struct Stages(Vec<Box<dyn Stage>>);

/// What one run of the stages over a range of the log writes, in one transaction with the cursor.
#[derive(Clone, Debug, Default, PartialEq)]
#[must_use = "a pass does nothing until it is committed"]
pub struct Pass {
    /// The last record looked at: the cursor to store.
    pub through: Option<Sequence>,
    /// What becomes of each child's event; the parent's own events are not listed.
    pub verdicts: Vec<(Sequence, Verdict)>,
    /// The events to append to the parent's log. Updates of one aggregate are merged into one.
    pub emit: Vec<Emit>,
    /// The state rows to write, or to remove where `None`.
    pub writes: BTreeMap<StateKey, Option<String>>,
    /// Events that a stage rejected, with its name and reason.
    pub dead_letters: Vec<DeadLetter>,
}

/// An event that a stage rejected. Nothing of what any stage did with it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its place in the parent's log.
    pub sequence: Sequence,
    /// The stage.
    pub stage: String,
    /// Why.
    pub reason: String,
}

impl Stages {
    /// Stages in the order in which an event passes them.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] when a name is empty or given twice.
    pub fn new(stages: Vec<Box<dyn Stage>>) -> Result<Self, Error> {
        let mut names = BTreeSet::new();
        for stage in &stages {
            if stage.name().is_empty() || !names.insert(stage.name()) {
                return Err(Error::Setting {
                    name: "stage",
                    value: format!("{:?}", stage.name()),
                    expected: "a name that no other stage here has",
                });
            }
        }
        Ok(Self(stages))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Runs the stages over the next rows of the parent's log. Only events of children pass through stages; the
    /// parent's own, stage outputs among them, do not, so nothing feeds back. Schema changes go on untouched.
    ///
    /// # Errors
    ///
    /// [`Error::StageState`] when `look_up` fails. Nothing of the pass may be kept then.
    pub fn run<'r>(
        &self,
        records: impl IntoIterator<Item = &'r Record>,
        mut look_up: impl FnMut(&StateKey) -> Result<Option<String>, LookupError>,
    ) -> Result<Pass, Error> {
        let mut pass = Pass::default();
        for record in records {
            pass.through = Some(record.sequence);
            if record.is_own() {
                continue;
            }
            let verdict = match record.body.is_schema() {
                true => Verdict::Forward,
                false => self.decide(record, &mut look_up, &mut pass)?,
            };
            pass.verdicts.push((record.sequence, verdict));
        }
        Ok(pass)
    }

    fn decide(&self, record: &Record, look_up: &mut Lookup<'_>, pass: &mut Pass) -> Result<Verdict, Error> {
        let (mut staged, mut emitted) = (Writes::new(), Vec::new());
        let mut verdict = Verdict::Forward;
        for stage in &self.0 {
            let mut read = |key: &StateKey| look_up(key);
            let mut state = StageState {
                stage: stage.name(),
                look_up: &mut read,
                pass: &pass.writes,
                staged: &mut staged,
            };
            match stage.apply(&mut state, record) {
                Ok(outcome) => {
                    emitted.extend(outcome.emit);
                    verdict = outcome.verdict;
                }
                Err(StageError::Lookup(source)) => {
                    return Err(Error::StageState { stage: stage.name().to_owned(), source });
                }
                Err(StageError::Rejected { reason }) => {
                    let stage = stage.name().to_owned();
                    pass.dead_letters.push(DeadLetter { sequence: record.sequence, stage, reason });
                    return Ok(Verdict::DeadLettered);
                }
            }
            if verdict != Verdict::Forward {
                break;
            }
        }
        pass.writes.append(&mut staged);
        for emit in emitted {
            pass.push(emit);
        }
        Ok(verdict)
    }
}

impl fmt::Debug for Stages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|stage| stage.name())).finish()
    }
}

impl Pass {
    /// Adds an output. An update of an aggregate replaces the aggregate's earlier output of the same pass.
    fn push(&mut self, emit: Emit) {
        let is_aggregate = matches!(emit.tag, Some(Tag::Aggregate { .. }));
        let same = |earlier: &&mut Emit| {
            earlier.collection == emit.collection
                && earlier.document_id == emit.document_id
                && earlier.tag == emit.tag
        };
        let earlier = self.emit.iter_mut().rev().find(same).filter(|_| is_aggregate);
        match (earlier, emit) {
            (
                Some(Emit { change: Change::Insert { after }, derived_from, .. }),
                Emit { change: Change::Update { after: newer, .. }, derived_from: last, .. },
            ) => (*after, *derived_from) = (newer, last),
            (
                Some(Emit { change: Change::Update { before, after, changed_fields }, derived_from, .. }),
                Emit { change: Change::Update { after: newer, .. }, derived_from: last, .. },
            ) => {
                *changed_fields = cdc_model::changed_fields(before, &newer);
                (*after, *derived_from) = (newer, last);
            }
            (_, emit) => self.emit.push(emit),
        }
    }
}
