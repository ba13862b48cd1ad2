use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{BodyColumns, DerivedFrom, Error, Operation, SchemaChange, Tag, Transaction, json};

/// What a log row says, as stored: canonical JSON text, written once at the origin and never changed on its way.
///
/// Place, time, origin and route stand beside it in the [`Record`](crate::Record). Of an update of a captured
/// row it keeps only the changed columns of `before` (member `was`); [`ChangeBody::full_before`] gives the whole.
/// Clones share the text.
#[derive(Clone, PartialEq, Eq)]
pub struct Body(Arc<str>);

/// The decoded members of a change's body, borrowed from its text.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ChangeBody<'a> {
    /// What happened.
    pub operation: Operation,
    /// The table or collection.
    #[serde(borrow)]
    pub collection: Cow<'a, str>,
    /// The row or document.
    #[serde(borrow)]
    pub document_id: Cow<'a, str>,
    /// The version of the table's schema.
    #[serde(default)]
    pub schema_version: Option<u32>,
    /// Why the event is in the log.
    #[serde(default)]
    pub tag: Option<Tag>,
    /// The transaction it was part of.
    #[serde(default)]
    pub transaction: Option<Box<Transaction>>,
    /// For distributed tracing.
    #[serde(default)]
    pub correlation_id: Option<Cow<'a, str>>,
    /// The event from which a stage made this one.
    #[serde(default)]
    pub derived_from: Option<DerivedFrom>,
    /// The paths an UPDATE changed.
    #[serde(default)]
    pub changed_fields: Option<Vec<Cow<'a, str>>>,
    /// The full state before.
    #[serde(borrow, default, deserialize_with = "json::present", skip_serializing_if = "Option::is_none")]
    pub before: Option<&'a RawValue>,
    /// Only those columns of the state before that differ from `after`.
    #[serde(borrow, default, deserialize_with = "json::present", skip_serializing_if = "Option::is_none")]
    pub was: Option<&'a RawValue>,
    /// The full state after.
    #[serde(borrow, default, deserialize_with = "json::present", skip_serializing_if = "Option::is_none")]
    pub after: Option<&'a RawValue>,
}

impl<'a> ChangeBody<'a> {
    /// A body with the members every change has.
    #[must_use]
    pub fn new(
        operation: Operation,
        collection: impl Into<Cow<'a, str>>,
        document_id: impl Into<Cow<'a, str>>,
    ) -> Self {
        Self {
            operation,
            collection: collection.into(),
            document_id: document_id.into(),
            schema_version: None,
            tag: None,
            transaction: None,
            correlation_id: None,
            derived_from: None,
            changed_fields: None,
            before: None,
            was: None,
            after: None,
        }
    }

    /// The canonical text.
    #[must_use]
    pub fn to_body(&self) -> Body {
        let paths = self.changed_fields.as_ref().map(json::text);
        RawChange {
            operation: self.operation,
            collection: &self.collection,
            document_id: &self.document_id,
            schema_version: self.schema_version,
            tag: self.tag.as_ref(),
            transaction: self.transaction.as_deref(),
            correlation_id: self.correlation_id.as_deref(),
            derived_from: self.derived_from.as_ref(),
            changed_fields: paths.as_deref(),
            before: self.before.map(RawValue::get),
            was: self.was.map(RawValue::get),
            after: self.after.map(RawValue::get),
        }
        .to_body()
    }

    /// The whole state before: as stored, or `after` with the members of `was` put back in place.
    ///
    /// # Errors
    ///
    /// [`Error::Json`] when `was` or the `after` under it is not an object.
    pub fn full_before(&self) -> Result<Option<Cow<'a, str>>, Error> {
        let (Some(was), Some(after)) = (self.was, self.after) else {
            return Ok(self.before.map(|before| Cow::Borrowed(before.get())));
        };
        let was = json::members(was.get()).map_err(Error::json("`was` of an update"))?;
        let after = json::members(after.get()).map_err(Error::json("`after` of an update"))?;
        let mut out = String::from("{");
        for (name, value) in &after {
            let old = was.iter().find(|(changed, _)| changed == name);
            push_member(&mut out, name, old.map_or(value.get(), |(_, old)| old.get()));
        }
        out.push('}');
        Ok(Some(Cow::Owned(out)))
    }

    /// Whether the states are those the operation must and may have.
    fn check(&self) -> Result<(), Error> {
        let has =
            (self.before.is_some(), self.was.is_some(), self.after.is_some(), self.changed_fields.is_some());
        let member = match (self.operation, has) {
            (Operation::Insert, (false, false, true, false))
            | (Operation::Update, (true, false, true, true) | (false, true, true, true))
            | (Operation::Delete, (true, false, false, false)) => return Ok(()),
            (Operation::Insert, (.., false, _)) | (Operation::Update, (.., false, _)) => "after",
            (Operation::Update, (false, false, ..)) | (Operation::Delete, (false, ..)) => "before",
            (Operation::Update, (.., false)) => "changedFields",
            _ => return Err(Error::NotCanonical),
        };
        Err(Error::MissingState {
            operation: self.operation.as_str(),
            collection: self.collection.chars().take(100).collect(),
            document_id: self.document_id.chars().take(100).collect(),
            member,
        })
    }
}

/// The members of a change as texts that are JSON already: what writes the canonical form, the only place that does.
#[derive(Clone, Copy, Debug)]
pub struct RawChange<'a> {
    /// What happened.
    pub operation: Operation,
    /// The table or collection.
    pub collection: &'a str,
    /// The row or document.
    pub document_id: &'a str,
    /// The version of the table's schema.
    pub schema_version: Option<u32>,
    /// Why the event is in the log.
    pub tag: Option<&'a Tag>,
    /// The transaction it was part of.
    pub transaction: Option<&'a Transaction>,
    /// For distributed tracing.
    pub correlation_id: Option<&'a str>,
    /// The event from which a stage made this one.
    pub derived_from: Option<&'a DerivedFrom>,
    /// JSON array of the paths an UPDATE changed.
    pub changed_fields: Option<&'a str>,
    /// JSON of the full state before.
    pub before: Option<&'a str>,
    /// JSON of the changed columns before.
    pub was: Option<&'a str>,
    /// JSON of the full state after.
    pub after: Option<&'a str>,
}

impl<'a> RawChange<'a> {
    /// A change with the members every change has.
    #[must_use]
    pub const fn new(operation: Operation, collection: &'a str, document_id: &'a str) -> Self {
        Self {
            operation,
            collection,
            document_id,
            schema_version: None,
            tag: None,
            transaction: None,
            correlation_id: None,
            derived_from: None,
            changed_fields: None,
            before: None,
            was: None,
            after: None,
        }
    }

    /// The canonical text. The raw members are taken as they are; they must be JSON.
    #[must_use]
    pub fn to_body(&self) -> Body {
        let len = |text: Option<&str>| text.map_or(0, str::len);
        let states = len(self.before) + len(self.was) + len(self.after) + len(self.changed_fields);
        let mut out = String::with_capacity(128 + self.collection.len() + self.document_id.len() + states);
        out.push_str("{\"operation\":\"");
        out.push_str(self.operation.as_str());
        out.push_str("\",\"collection\":");
        json::push_json_string(&mut out, self.collection);
        out.push_str(",\"documentId\":");
        json::push_json_string(&mut out, self.document_id);
        let mut raw = |name: &str, text: Option<&str>| {
            if let Some(text) = text {
                json::push_name(&mut out, name);
                out.push_str(text);
            }
        };
        raw("schemaVersion", self.schema_version.map(|version| version.to_string()).as_deref());
        raw("tag", self.tag.map(json::text).as_deref());
        raw("transaction", self.transaction.map(json::text).as_deref());
        raw("correlationId", self.correlation_id.map(|id| json::text(&id)).as_deref());
        raw("derivedFrom", self.derived_from.map(json::text).as_deref());
        raw("changedFields", self.changed_fields);
        raw("before", self.before);
        raw("was", self.was);
        raw("after", self.after);
        out.push('}');
        Body(out.into())
    }
}

pub(crate) fn push_member(out: &mut String, name: &str, raw: &str) {
    if !out.ends_with('{') {
        out.push(',');
    }
    json::push_json_string(out, name);
    out.push(':');
    out.push_str(raw);
}

/// What a body says, decoded.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Content<'a> {
    /// A document changed.
    Change(ChangeBody<'a>),
    /// A table changed its shape.
    Schema(SchemaChange),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SchemaBody {
    schema: SchemaChange,
}

impl Body {
    /// The body of a schema change.
    ///
    /// # Panics
    ///
    /// Never: all members have string keys.
    #[must_use]
    pub fn schema(schema: SchemaChange) -> Self {
        Self(
            serde_json::to_string(&SchemaBody { schema }).expect("members with string keys serialise").into(),
        )
    }

    /// Takes a body from outside: it must decode, be consistent and be in canonical form.
    ///
    /// # Errors
    ///
    /// [`Error::Json`], [`Error::MissingState`] or [`Error::NotCanonical`].
    pub fn parse(text: &str) -> Result<Self, Error> {
        let body = Self(text.into());
        if let Content::Change(change) = body.content()? {
            change.check()?;
        }
        if body.columns()?.to_body()? != body {
            return Err(Error::NotCanonical);
        }
        Ok(body)
    }

    /// Takes a body that this project stored or rendered itself. It is decoded on demand.
    #[must_use]
    pub fn from_stored(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// The canonical text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is a schema change; decided by the canonical prefix alone.
    #[must_use]
    pub fn is_schema(&self) -> bool {
        self.0.starts_with("{\"schema\":")
    }

    /// Decodes it.
    ///
    /// # Errors
    ///
    /// [`Error::Json`] when the text is not a body.
    pub fn content(&self) -> Result<Content<'_>, Error> {
        if self.is_schema() {
            let body: SchemaBody = serde_json::from_str(&self.0).map_err(Error::json("schema change"))?;
            return Ok(Content::Schema(body.schema));
        }
        serde_json::from_str(&self.0).map(Content::Change).map_err(Error::json("change"))
    }

    /// Decodes it if it is a change.
    ///
    /// # Errors
    ///
    /// [`Error::Json`] when the text is not a body.
    pub fn change(&self) -> Result<Option<ChangeBody<'_>>, Error> {
        Ok(match self.content()? {
            Content::Change(change) => Some(change),
            Content::Schema(_) => None,
        })
    }

    /// The same change as one of a transaction, and with a correlation id unless it has its own. A schema change stays
    /// as it is.
    ///
    /// # Panics
    ///
    /// When it says already of which transaction it is.
    #[must_use]
    pub fn within(&self, transaction: Option<&Transaction>, correlation_id: Option<&str>) -> Self {
        if self.is_schema() {
            return self.clone();
        }
        let (head, rest) = self.0.split_at(head_len(self.0.as_bytes()));
        assert!(!rest.starts_with(",\"transaction\":"), "an event is of one transaction");
        let mut out = String::with_capacity(self.0.len() + 96);
        out.push_str(head);
        if let Some(transaction) = transaction {
            json::push_name(&mut out, "transaction");
            out.push_str(&json::text(transaction));
        }
        if let Some(id) = correlation_id.filter(|_| !rest.starts_with(",\"correlationId\":")) {
            json::push_name(&mut out, "correlationId");
            json::push_json_string(&mut out, id);
        }
        out.push_str(rest);
        Self(out.into())
    }

    /// Takes it apart into the columns of the archive.
    ///
    /// # Errors
    ///
    /// [`Error::Json`] when the text is not a body.
    pub fn columns(&self) -> Result<BodyColumns, Error> {
        BodyColumns::of(self)
    }
}

/// The members of a change before `transaction`, in their order.
const HEAD: [&[u8]; 5] =
    [b"\"operation\":", b"\"collection\":", b"\"documentId\":", b"\"schemaVersion\":", b"\"tag\":"];

/// Where the head of a canonical change ends.
fn head_len(text: &[u8]) -> usize {
    HEAD.iter().fold(0, |at, name| {
        let is_next = text.get(at + 1..).is_some_and(|rest| rest.starts_with(name));
        if is_next { member_end(text, at + 1) } else { at }
    })
}

/// Where the member of an object ends that begins here.
fn member_end(text: &[u8], from: usize) -> usize {
    let (mut at, mut depth, mut in_string) = (from, 0_usize, false);
    while let Some(byte) = text.get(at) {
        match byte {
            b'\\' => at += 1,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => depth += 1,
            b',' | b'}' | b']' if depth == 0 => return at,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        at += 1;
    }
    at
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
