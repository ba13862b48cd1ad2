use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Epoch, Error, ObjectId, Sequence, Timestamp, json};

/// What happened to a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Operation {
    /// It came into being.
    Insert,
    /// It changed.
    Update,
    /// It went.
    Delete,
}

impl Operation {
    /// Its wire name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Insert => "INSERT",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Operation {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        [Self::Insert, Self::Update, Self::Delete]
            .into_iter()
            .find(|operation| operation.as_str().eq_ignore_ascii_case(text))
            .ok_or_else(|| Error::parse(text, "an operation (INSERT, UPDATE or DELETE)"))
    }
}

/// Why an event is in the log when no application wrote it just then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Tag {
    /// The document was there when capture began.
    Snapshot,
    /// The change was found by comparison, not seen as it happened.
    Reconciled,
    /// A stage on the way changed the event.
    Mapped,
    /// The document is an aggregate over this window.
    #[serde(rename_all = "camelCase")]
    Aggregate {
        /// The window's begin, inclusive.
        from: Timestamp,
        /// The window's end, exclusive.
        to: Timestamp,
    },
}

/// The transaction an event was part of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Transaction {
    /// The same for all events of the transaction.
    pub id: String,
    /// The event's place in it, from 0.
    pub index: u32,
    /// How many events it has.
    pub count: u32,
    /// What its writer said of it as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<serde_json::Value>,
}

impl Transaction {
    /// The id of the transaction whose first row was appended at this place of its origin's log. Nothing else begins
    /// there, so that it is unique without being drawn or stored.
    #[must_use]
    pub fn id_at(epoch: Epoch, first: Sequence) -> String {
        format!("{epoch}-{first}")
    }
}

/// The event from which a stage made this one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DerivedFrom {
    /// Its origin.
    pub source: ObjectId,
    /// Its origin's epoch.
    pub epoch: Epoch,
    /// Its sequence there.
    pub sequence: Sequence,
}

/// A UUID-shaped event id, derived from (source, epoch, sequence, timestamp) and so the same at every hop.
///
/// Its first 48 bits are the timestamp in milliseconds, so ids sort by time; version 8 of RFC 9562.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EventId(u128);

impl EventId {
    /// The id of the event at this place of its origin's log.
    #[must_use]
    pub fn derive(source: &ObjectId, epoch: Epoch, sequence: Sequence, timestamp: Timestamp) -> Self {
        let place = format!("{source} {epoch}");
        let hash = crate::Digest::ZERO.then(sequence, timestamp, &[place.as_bytes()]);
        let hash = u128::from_be_bytes(*hash.as_bytes());
        let time = u128::from(timestamp.get().max(0).cast_unsigned()) & 0xffff_ffff_ffff;
        let low = u128::from(sequence.get()) & 0xfff;
        Self(time << 80 | 0x8 << 76 | low << 64 | 0b10 << 62 | hash & 0x3fff_ffff_ffff_ffff)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.0;
        let part = |shift: u32, bits: u32| id >> shift & ((1 << bits) - 1);
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            part(96, 32),
            part(80, 16),
            part(64, 16),
            part(48, 16),
            part(0, 48)
        )
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for EventId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let number = u128::from_str_radix(&text.replace('-', ""), 16).ok().map(Self);
        number
            .filter(|id| id.to_string() == text)
            .ok_or_else(|| Error::parse(text, "an event id (a lower-case UUID)"))
    }
}

impl TryFrom<String> for EventId {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<EventId> for String {
    fn from(id: EventId) -> Self {
        id.to_string()
    }
}

/// A document's states around a change. An INSERT has no `before` to forget, a DELETE no `after`.
#[derive(Clone, Debug, PartialEq)]
pub enum Change<T> {
    /// The document came into being.
    Insert {
        /// Its state after.
        after: T,
    },
    /// The document changed.
    Update {
        /// Its state before.
        before: T,
        /// Its state after.
        after: T,
        /// The paths that differ, as [`crate::changed_fields`] gives them.
        changed_fields: Vec<String>,
    },
    /// The document went.
    Delete {
        /// Its full last state.
        before: T,
    },
}

impl<T> Change<T> {
    /// The operation.
    pub const fn operation(&self) -> Operation {
        match self {
            Self::Insert { .. } => Operation::Insert,
            Self::Update { .. } => Operation::Update,
            Self::Delete { .. } => Operation::Delete,
        }
    }

    /// The state before, of an UPDATE or DELETE.
    pub const fn before(&self) -> Option<&T> {
        match self {
            Self::Insert { .. } => None,
            Self::Update { before, .. } | Self::Delete { before } => Some(before),
        }
    }

    /// The state after, of an INSERT or UPDATE.
    pub const fn after(&self) -> Option<&T> {
        match self {
            Self::Insert { after } | Self::Update { after, .. } => Some(after),
            Self::Delete { .. } => None,
        }
    }

    /// The changed paths, of an UPDATE.
    #[must_use]
    pub fn changed_fields(&self) -> &[String] {
        match self {
            Self::Update { changed_fields, .. } => changed_fields,
            Self::Insert { .. } | Self::Delete { .. } => &[],
        }
    }
}

/// A change event with decoded documents. Its JSON is the wire form: camelCase, absent members left out.
///
/// ```
/// use cdc_model::{ChangeEvent, Operation};
/// #[derive(serde::Deserialize)]
/// struct Customer { tier: String }
/// let event: ChangeEvent<Customer> = serde_json::from_str(r#"{
///     "id": "018d0a7e-f200-8001-8000-00000000abcd", "operation": "UPDATE", "collection": "customers",
///     "documentId": "42", "timestamp": 1705276800000, "sequence": 1,
///     "before": {"tier": "free"}, "after": {"tier": "pro"}, "changedFields": ["tier"]
/// }"#)?;
/// assert_eq!(event.change.operation(), Operation::Update);
/// assert_eq!(event.change.after().unwrap().tier, "pro");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    try_from = "Wire<T>",
    into = "Wire<T>",
    bound(serialize = "T: Serialize + Clone", deserialize = "T: Deserialize<'de>")
)]
pub struct ChangeEvent<T = serde_json::Value> {
    /// Unique and the same at every hop.
    pub id: EventId,
    /// The table or collection.
    pub collection: String,
    /// The row or document.
    pub document_id: String,
    /// When it happened, by the origin's clock.
    pub timestamp: Timestamp,
    /// The place in the origin's log.
    pub sequence: Sequence,
    /// The operation with the states it has.
    pub change: Change<T>,
    /// The originating object.
    pub source: Option<ObjectId>,
    /// For distributed tracing.
    pub correlation_id: Option<String>,
    /// Why the event is in the log, when no application wrote it just then.
    pub tag: Option<Tag>,
    /// The transaction it was part of.
    pub transaction: Option<Transaction>,
    /// The version of the table's schema it was captured under.
    pub schema_version: Option<u32>,
    /// The event from which a stage made this one.
    pub derived_from: Option<DerivedFrom>,
}

/// The flat shape of the wire.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "T: Deserialize<'de>"))]
struct Wire<T> {
    id: EventId,
    operation: Operation,
    collection: String,
    document_id: String,
    timestamp: Timestamp,
    sequence: Sequence,
    #[serde(default, deserialize_with = "json::present", skip_serializing_if = "Option::is_none")]
    before: Option<T>,
    #[serde(default, deserialize_with = "json::present", skip_serializing_if = "Option::is_none")]
    after: Option<T>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    changed_fields: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    source: Option<ObjectId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    correlation_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tag: Option<Tag>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    transaction: Option<Transaction>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    schema_version: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    derived_from: Option<DerivedFrom>,
}

/// Puts the states an operation has in their places; the first that is missing is named.
pub(crate) fn change_of<T>(
    operation: Operation,
    before: Option<T>,
    after: Option<T>,
    changed_fields: Option<Vec<String>>,
) -> Result<Change<T>, &'static str> {
    Ok(match operation {
        Operation::Insert => Change::Insert { after: after.ok_or("after")? },
        Operation::Update => Change::Update {
            before: before.ok_or("before")?,
            after: after.ok_or("after")?,
            changed_fields: changed_fields.ok_or("changedFields")?,
        },
        Operation::Delete => Change::Delete { before: before.ok_or("before")? },
    })
}

impl<T> TryFrom<Wire<T>> for ChangeEvent<T> {
    type Error = Error;

    fn try_from(wire: Wire<T>) -> Result<Self, Error> {
        let change =
            change_of(wire.operation, wire.before, wire.after, wire.changed_fields).map_err(|member| {
                Error::MissingState {
                    operation: wire.operation.as_str(),
                    collection: wire.collection.clone(),
                    document_id: wire.document_id.clone(),
                    member,
                }
            })?;
        Ok(Self {
            id: wire.id,
            collection: wire.collection,
            document_id: wire.document_id,
            timestamp: wire.timestamp,
            sequence: wire.sequence,
            change,
            source: wire.source,
            correlation_id: wire.correlation_id,
            tag: wire.tag,
            transaction: wire.transaction,
            schema_version: wire.schema_version,
            derived_from: wire.derived_from,
        })
    }
}

impl<T> From<ChangeEvent<T>> for Wire<T> {
    fn from(event: ChangeEvent<T>) -> Self {
        let operation = event.change.operation();
        let (before, after, changed_fields) = match event.change {
            Change::Insert { after } => (None, Some(after), None),
            Change::Update { before, after, changed_fields } => {
                (Some(before), Some(after), Some(changed_fields))
            }
            Change::Delete { before } => (Some(before), None, None),
        };
        Self {
            id: event.id,
            operation,
            collection: event.collection,
            document_id: event.document_id,
            timestamp: event.timestamp,
            sequence: event.sequence,
            before,
            after,
            changed_fields,
            source: event.source,
            correlation_id: event.correlation_id,
            tag: event.tag,
            transaction: event.transaction,
            schema_version: event.schema_version,
            derived_from: event.derived_from,
        }
    }
}
