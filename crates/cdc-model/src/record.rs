use std::sync::Arc;

use serde::de::DeserializeOwned;

use crate::event::change_of;
use crate::{
    Body, ChangeBody, ChangeEvent, Content, Cursor, Digest, Epoch, Error, EventId, ObjectId, Position,
    Sequence, Timestamp, json,
};

/// Where an event comes from and which way it came. Shared by all records of one origin and route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    source: ObjectId,
    epoch: Epoch,
    route: Vec<ObjectId>,
    fingerprint: Digest,
}

impl Origin {
    /// An origin. `route` names the objects whose logs the event has left, the source first; it is empty in the
    /// origin's own log.
    #[must_use]
    pub fn new(source: ObjectId, epoch: Epoch, route: Vec<ObjectId>) -> Arc<Self> {
        let mut text = format!("{source} {epoch}");
        for hop in &route {
            text.push(' ');
            text.push_str(hop.as_str());
        }
        let fingerprint = Digest::of(text.as_bytes());
        Arc::new(Self { source, epoch, route, fingerprint })
    }

    /// The object in which the event happened.
    #[must_use]
    pub const fn source(&self) -> &ObjectId {
        &self.source
    }

    /// That object's epoch.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The objects whose logs the event has left, the source first; empty in the origin's own log.
    #[must_use]
    pub fn route(&self) -> &[ObjectId] {
        &self.route
    }

    /// A digest of all of the above.
    #[must_use]
    pub const fn fingerprint(&self) -> Digest {
        self.fingerprint
    }

    /// The origin as the receiver of a hop from `sender` records it.
    #[must_use]
    pub fn via(&self, sender: &ObjectId) -> Arc<Self> {
        let mut route = self.route.clone();
        route.push(sender.clone());
        Self::new(self.source.clone(), self.epoch, route)
    }
}

/// One row of a log: its place there, where its event comes from, and the stored bytes of what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The place in the log being read.
    pub sequence: Sequence,
    /// When it was appended there; never decreases along a log.
    pub timestamp: Timestamp,
    /// The epoch of the log being read.
    pub epoch: Epoch,
    /// The event's source, its epoch and the way it came.
    pub origin: Arc<Origin>,
    /// The place in the origin's log.
    pub origin_sequence: Sequence,
    /// When it happened, by the origin's clock.
    pub origin_timestamp: Timestamp,
    /// What it says.
    pub body: Body,
}

impl Record {
    /// The cursor after this record.
    #[must_use]
    pub const fn cursor(&self) -> Cursor {
        Cursor { sequence: self.sequence, timestamp: self.timestamp, epoch: Some(self.epoch) }
    }

    /// The event's id, the same at every hop.
    #[must_use]
    pub fn id(&self) -> EventId {
        EventId::derive(&self.origin.source, self.origin.epoch, self.origin_sequence, self.origin_timestamp)
    }

    /// Whether the event happened in the object whose log is being read.
    #[must_use]
    pub fn is_own(&self) -> bool {
        self.origin.route.is_empty()
    }

    /// Where a log stands with this record, from where it stood before it.
    #[must_use]
    pub fn position_after(&self, before: Position) -> Position {
        Position { sequence: self.sequence, digest: self.digest(before.digest) }
    }

    /// The log's running digest after this record, from the one before it.
    ///
    /// Of an own event the row's bytes are its body; of a forwarded one the fingerprint of its origin and route,
    /// its place there and the body.
    #[must_use]
    pub fn digest(&self, before: Digest) -> Digest {
        if self.is_own() {
            return before.then(self.sequence, self.timestamp, &[self.body.as_str().as_bytes()]);
        }
        let place = self.origin_sequence.get().to_be_bytes();
        let time = self.origin_timestamp.get().to_be_bytes();
        let origin = self.origin.fingerprint.as_bytes();
        before.then(self.sequence, self.timestamp, &[origin, &place, &time, self.body.as_str().as_bytes()])
    }

    /// Decodes the change into the caller's document type; `None` for a schema change.
    ///
    /// # Errors
    ///
    /// [`Error::Json`] when a document does not fit `T`, [`Error::MissingState`] when the body lacks one.
    pub fn event<T: DeserializeOwned>(&self) -> Result<Option<ChangeEvent<T>>, Error> {
        let Some(body) = self.body.change()? else {
            return Ok(None);
        };
        let decode = |text: &str| serde_json::from_str::<T>(text).map_err(Error::json("document"));
        let before = body.full_before()?.as_deref().map(decode).transpose()?;
        let after = body.after.map(|after| decode(after.get())).transpose()?;
        let paths = body.changed_fields.map(|paths| paths.into_iter().map(Into::into).collect());
        let change =
            change_of(body.operation, before, after, paths).map_err(|member| Error::MissingState {
                operation: body.operation.as_str(),
                collection: body.collection.clone().into_owned(),
                document_id: body.document_id.clone().into_owned(),
                member,
            })?;
        Ok(Some(ChangeEvent {
            id: self.id(),
            collection: body.collection.into_owned(),
            document_id: body.document_id.into_owned(),
            timestamp: self.origin_timestamp,
            sequence: self.origin_sequence,
            change,
            source: Some(self.origin.source.clone()),
            correlation_id: body.correlation_id.map(Into::into),
            tag: body.tag,
            transaction: body.transaction.map(|transaction| *transaction),
            schema_version: body.schema_version,
            derived_from: body.derived_from,
        }))
    }

    /// The record as one line of NDJSON (without the line feed): the event's members, `originEpoch`, `route` and
    /// `cursor`. Documents are the stored bytes, undecoded.
    ///
    /// # Errors
    ///
    /// [`Error::Json`] when the body does not decode.
    pub fn to_json(&self) -> Result<String, Error> {
        let mut out = String::with_capacity(self.body.as_str().len() + 400);
        out.push('{');
        match self.body.content()? {
            Content::Change(body) => self.push_change(&mut out, &body)?,
            Content::Schema(schema) => {
                push(&mut out, "schema", &schema);
                push(&mut out, "timestamp", &self.origin_timestamp);
                push(&mut out, "sequence", &self.origin_sequence);
                push(&mut out, "source", &self.origin.source);
            }
        }
        push(&mut out, "originEpoch", &self.origin.epoch);
        if !self.origin.route.is_empty() {
            push(&mut out, "route", &self.origin.route);
        }
        push(&mut out, "cursor", &self.cursor());
        out.push('}');
        Ok(out)
    }

    fn push_change(&self, out: &mut String, body: &ChangeBody<'_>) -> Result<(), Error> {
        push(out, "id", &self.id());
        push(out, "operation", &body.operation);
        push(out, "collection", &body.collection);
        push(out, "documentId", &body.document_id);
        push(out, "timestamp", &self.origin_timestamp);
        push(out, "sequence", &self.origin_sequence);
        if let Some(before) = body.full_before()? {
            push_raw(out, "before", &before);
        }
        if let Some(after) = body.after {
            push_raw(out, "after", after.get());
        }
        push_some(out, "changedFields", body.changed_fields.as_ref());
        push(out, "source", &self.origin.source);
        push_some(out, "correlationId", body.correlation_id.as_ref());
        push_some(out, "tag", body.tag.as_ref());
        push_some(out, "transaction", body.transaction.as_ref());
        push_some(out, "schemaVersion", body.schema_version.as_ref());
        push_some(out, "derivedFrom", body.derived_from.as_ref());
        Ok(())
    }
}

pub(crate) fn push_raw(out: &mut String, name: &str, raw: &str) {
    json::push_name(out, name);
    out.push_str(raw);
}

pub(crate) fn push(out: &mut String, name: &str, value: &impl serde::Serialize) {
    push_raw(out, name, &json::text(value));
}

fn push_some(out: &mut String, name: &str, value: Option<&impl serde::Serialize>) {
    if let Some(value) = value {
        push(out, name, value);
    }
}
