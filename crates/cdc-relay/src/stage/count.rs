use cdc_model::{
    Change, ChangeBody, DerivedFrom, Filter, ObjectId, Operation, Record, Tag, Timestamp, changed_fields,
};
use serde::{Deserialize, Serialize};

use super::{Emit, Outcome, Stage, StageError, StageState, Verdict};
use crate::Error;

/// The earliest and latest time a JavaScript date can hold: the window of a total.
const DATE_MAX_MS: i64 = 8_640_000_000_000_000;

/// What to count, as a plain value: `Aggregate::count().of("customers").operation(Operation::Update).per_hour()`.
///
/// ```
/// use cdc_model::Operation;
/// use cdc_relay::{Aggregate, GroupBy, Stage};
/// let stage = Aggregate::count()
///     .of("customers")
///     .operation(Operation::Update)
///     .per_hour()
///     .by(GroupBy::Source)
///     .stage("updates-per-hour")?;
/// assert_eq!(stage.name(), "updates-per-hour");
/// # Ok::<(), cdc_relay::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[must_use]
pub struct Aggregate {
    collections: Vec<String>,
    operations: Vec<Operation>,
    sources: Vec<ObjectId>,
    #[serde(rename = "window")]
    window_ms: Option<i64>,
    by: Option<GroupBy>,
    absorb: bool,
}

/// What each window is divided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum GroupBy {
    /// The event's collection.
    Collection,
    /// The event's operation.
    Operation,
    /// The object in which the event happened.
    Source,
}

impl Aggregate {
    /// Counts events, with the times of the first and last. Of everything, over all time, unless told otherwise.
    pub fn count() -> Self {
        Self::default()
    }

    /// Only events of this collection; given again, of that one too.
    pub fn of(mut self, collection: impl Into<String>) -> Self {
        self.collections.push(collection.into());
        self
    }

    /// Only events with this operation; given again, with that one too.
    pub fn operation(mut self, operation: Operation) -> Self {
        self.operations.push(operation);
        self
    }

    /// Only events that happened in this object; given again, in that one too.
    pub fn source(mut self, source: ObjectId) -> Self {
        self.sources.push(source);
        self
    }

    /// One count per window of this many milliseconds of event time, aligned to 1970-01-01T00:00Z.
    pub const fn per_ms(mut self, window_ms: i64) -> Self {
        self.window_ms = Some(window_ms);
        self
    }

    /// One count per minute of event time.
    pub const fn per_minute(self) -> Self {
        self.per_ms(60_000)
    }

    /// One count per hour of event time.
    pub const fn per_hour(self) -> Self {
        self.per_ms(3_600_000)
    }

    /// One count per day of event time, in UTC.
    pub const fn per_day(self) -> Self {
        self.per_ms(86_400_000)
    }

    /// One count per group.
    pub const fn by(mut self, group: GroupBy) -> Self {
        self.by = Some(group);
        self
    }

    /// Counted events go no further: the count stands for them. Without it they go on.
    pub const fn absorbing(mut self) -> Self {
        self.absorb = true;
        self
    }

    /// The stage of this name.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] when the window is not at least one millisecond and at most ten thousand years.
    pub fn stage(self, name: impl Into<String>) -> Result<Count, Error> {
        if let Some(window) = self.window_ms.filter(|ms| !(1..=315_576_000_000_000).contains(ms)) {
            return Err(Error::Setting {
                name: "window",
                value: window.to_string(),
                expected: "from 1 ms to 10000 years",
            });
        }
        let Self { collections, operations, sources, window_ms, by, absorb } = self;
        let filter = Filter { collections, operations, sources };
        Ok(Count { name: name.into(), filter, window_ms, by, absorb })
    }
}

/// A stage that counts. Each count is a document: collection = the stage's name, documentId = the window's begin
/// and the group, first an INSERT, then UPDATEs; its state row is that document.
#[derive(Clone, Debug)]
pub struct Count {
    name: String,
    filter: Filter,
    window_ms: Option<i64>,
    by: Option<GroupBy>,
    absorb: bool,
}

/// The document of one count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Counted {
    count: u64,
    first: Timestamp,
    last: Timestamp,
}

impl Stage for Count {
    fn name(&self) -> &str {
        &self.name
    }

    fn apply(&self, state: &mut StageState<'_>, record: &Record) -> Result<Outcome, StageError> {
        let rejected = |reason: String| StageError::Rejected { reason };
        let undecodable = |error: cdc_model::Error| rejected(error.to_string());
        if !self.filter.passes(record).map_err(undecodable)? {
            return Ok(Verdict::Forward.into());
        }
        let Some(body) = record.body.change().map_err(undecodable)? else {
            return Ok(Verdict::Forward.into());
        };
        let (from, to) = self.window(record.origin_timestamp);
        let document_id = self.document_id(from, &body, record);
        let unreadable = |error: serde_json::Error| rejected(format!("its count is unreadable: {error}"));
        let stored = state.get(&document_id)?;
        let before: Option<Counted> =
            stored.as_deref().map(serde_json::from_str).transpose().map_err(unreadable)?;
        let after = before.as_ref().map_or_else(
            || Counted { count: 1, first: record.origin_timestamp, last: record.origin_timestamp },
            |before| before.with(record.origin_timestamp),
        );
        state.put(&document_id, serde_json::to_string(&after).map_err(unreadable)?);
        let emit = Emit {
            collection: self.name.clone(),
            document_id,
            change: change(before.as_ref(), &after).map_err(unreadable)?,
            tag: Some(Tag::Aggregate { from, to }),
            derived_from: DerivedFrom {
                source: record.origin.source().clone(),
                epoch: record.origin.epoch(),
                sequence: record.origin_sequence,
            },
        };
        let verdict = if self.absorb { Verdict::Absorbed } else { Verdict::Forward };
        Ok(Outcome { verdict, emit: vec![emit] })
    }
}

impl Count {
    fn window(&self, at: Timestamp) -> (Timestamp, Timestamp) {
        let Some(length) = self.window_ms else {
            return (Timestamp::new(-DATE_MAX_MS), Timestamp::new(DATE_MAX_MS));
        };
        // Clamped to what a date can hold, so that no window leaves the range of its own type.
        let from = at.get().clamp(-DATE_MAX_MS, DATE_MAX_MS).div_euclid(length) * length;
        (Timestamp::new(from), Timestamp::new(from + length))
    }

    fn document_id(&self, from: Timestamp, body: &ChangeBody<'_>, record: &Record) -> String {
        let window = match self.window_ms {
            Some(_) => from.to_string(),
            None => "total".to_owned(),
        };
        match self.by {
            None => window,
            Some(GroupBy::Collection) => format!("{window}/{}", body.collection),
            Some(GroupBy::Operation) => format!("{window}/{}", body.operation),
            Some(GroupBy::Source) => format!("{window}/{}", record.origin.source().short()),
        }
    }
}

impl Counted {
    fn with(&self, at: Timestamp) -> Self {
        Self { count: self.count + 1, first: self.first.min(at), last: self.last.max(at) }
    }
}

fn change(before: Option<&Counted>, after: &Counted) -> Result<Change<serde_json::Value>, serde_json::Error> {
    let after = serde_json::to_value(after)?;
    let Some(before) = before else {
        return Ok(Change::Insert { after });
    };
    let before = serde_json::to_value(before)?;
    let changed_fields = changed_fields(&before, &after);
    Ok(Change::Update { before, after, changed_fields })
}
