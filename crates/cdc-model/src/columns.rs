use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::body::push_member;
use crate::{Body, ChangeBody, Content, Error, Operation, SchemaChange, json};

/// A body taken apart into the columns of the archive. [`BodyColumns::to_body`] puts the same bytes together again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BodyColumns {
    /// `change` or `schema`.
    pub kind: String,
    /// The operation of a change.
    pub operation: Option<String>,
    /// The table or collection.
    pub collection: String,
    /// The row or document of a change.
    pub document_id: Option<String>,
    /// JSON text of the full state before.
    pub before: Option<String>,
    /// JSON text of the full state after.
    pub after: Option<String>,
    /// The stored form keeps only the changed members of `before`.
    pub delta: bool,
    /// The paths an UPDATE changed.
    pub changed_fields: Option<Vec<String>>,
    /// For distributed tracing.
    pub correlation_id: Option<String>,
    /// JSON text of the tag.
    pub tag: Option<String>,
    /// JSON text of the transaction.
    pub transaction: Option<String>,
    /// The version of the table's schema.
    pub schema_version: Option<u32>,
    /// JSON text of the event a stage made this one from.
    pub derived_from: Option<String>,
    /// JSON text of a schema change.
    pub schema: Option<String>,
}

impl BodyColumns {
    pub(crate) fn of(body: &Body) -> Result<Self, Error> {
        let change = match body.content()? {
            Content::Change(change) => change,
            Content::Schema(schema) => {
                return Ok(Self {
                    kind: "schema".to_owned(),
                    collection: schema.collection.clone(),
                    schema: Some(json::text(&schema)),
                    ..Self::default()
                });
            }
        };
        Ok(Self {
            kind: "change".to_owned(),
            operation: Some(change.operation.as_str().to_owned()),
            before: change.full_before()?.map(Cow::into_owned),
            after: change.after.map(|after| after.get().to_owned()),
            delta: change.was.is_some(),
            changed_fields: change
                .changed_fields
                .map(|paths| paths.into_iter().map(Cow::into_owned).collect()),
            correlation_id: change.correlation_id.map(Cow::into_owned),
            tag: change.tag.as_ref().map(json::text),
            transaction: change.transaction.as_ref().map(json::text),
            schema_version: change.schema_version,
            derived_from: change.derived_from.as_ref().map(json::text),
            schema: None,
            collection: change.collection.into_owned(),
            document_id: Some(change.document_id.into_owned()),
        })
    }

    /// The body with exactly these columns, in canonical form.
    ///
    /// # Errors
    ///
    /// [`Error::Columns`], [`Error::Parse`] or [`Error::Json`] when the columns did not come from a body.
    pub fn to_body(&self) -> Result<Body, Error> {
        if self.kind == "schema" {
            let schema = self
                .schema
                .as_deref()
                .ok_or(Error::Columns { reason: "a schema change without `schema`" })?;
            let schema: SchemaChange = serde_json::from_str(schema).map_err(Error::json("schema change"))?;
            return Ok(Body::schema(schema));
        }
        let operation: Operation = self
            .operation
            .as_deref()
            .ok_or(Error::Columns { reason: "a change without `operation`" })?
            .parse()?;
        let document_id =
            self.document_id.as_deref().ok_or(Error::Columns { reason: "a change without `documentId`" })?;
        let mut body = ChangeBody::new(operation, self.collection.as_str(), document_id);
        body.schema_version = self.schema_version;
        body.tag = parsed(self.tag.as_deref(), "tag")?;
        body.transaction = parsed(self.transaction.as_deref(), "transaction")?;
        body.correlation_id = self.correlation_id.as_deref().map(Cow::Borrowed);
        body.derived_from = parsed(self.derived_from.as_deref(), "derivedFrom")?;
        let paths = self.changed_fields.as_ref();
        body.changed_fields =
            paths.map(|paths| paths.iter().map(|path| Cow::Borrowed(path.as_str())).collect());
        body.after = self.after.as_deref().map(raw).transpose()?;
        let before = self.before.as_deref().map(raw).transpose()?;
        let was = match (self.delta, before, body.after) {
            (false, ..) => None,
            (true, Some(before), Some(after)) => Some(difference(before, after)?),
            (true, ..) => {
                return Err(Error::Columns { reason: "`delta` without `before` and `after`" });
            }
        };
        match &was {
            Some(was) => body.was = Some(raw(was)?),
            None => body.before = before,
        }
        Ok(body.to_body())
    }
}

/// The members of `before` whose text differs from that in `after`, in the order of `before`.
fn difference(before: &RawValue, after: &RawValue) -> Result<String, Error> {
    let before = json::members(before.get()).map_err(Error::json("state before"))?;
    let after = json::members(after.get()).map_err(Error::json("state after"))?;
    let mut out = String::from("{");
    for (index, (name, old)) in before.iter().enumerate() {
        let same_place = after.get(index).filter(|(other, _)| other == name);
        let new = same_place.or_else(|| after.iter().find(|(other, _)| other == name));
        if new.is_none_or(|(_, new)| new.get() != old.get()) {
            push_member(&mut out, name, old.get());
        }
    }
    out.push('}');
    Ok(out)
}

fn raw(text: &str) -> Result<&RawValue, Error> {
    serde_json::from_str(text).map_err(Error::json("document"))
}

fn parsed<T: serde::de::DeserializeOwned>(
    text: Option<&str>,
    what: &'static str,
) -> Result<Option<T>, Error> {
    text.map(serde_json::from_str).transpose().map_err(Error::json(what))
}
