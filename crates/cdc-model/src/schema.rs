use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::body::push_member;
use crate::{Error, json};

/// A table's shape as one version of it was captured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SchemaChange {
    /// The table.
    pub collection: String,
    /// Counts up from 1 per table.
    pub version: u32,
    /// The columns in order; empty when the table is gone.
    pub columns: Vec<SchemaColumn>,
    /// The name the table had before: its documents go over to this collection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renamed_from: Option<String>,
    /// What became of every document there is, in this order, without an event of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<ColumnChange>,
}

/// One column of a [`SchemaChange`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SchemaColumn {
    /// Its name.
    pub name: String,
    /// Its declared type; empty when none is declared.
    #[serde(rename = "type")]
    pub declared_type: String,
    /// Its place in the primary key, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<u32>,
}

/// What one `ALTER TABLE` did to every row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub enum ColumnChange {
    /// A column was added at the end, with this value.
    Added {
        /// Its name.
        name: String,
        /// The JSON of its default.
        value: JsonText,
    },
    /// A column was dropped.
    Dropped {
        /// Its name.
        name: String,
    },
    /// A column got another name.
    Renamed {
        /// What it was called.
        from: String,
        /// What it is called.
        to: String,
    },
}

/// JSON text that is kept as it was written.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JsonText(Box<RawValue>);

impl JsonText {
    /// Takes JSON text.
    ///
    /// # Errors
    ///
    /// [`Error::Json`] when it is not.
    pub fn new(text: String) -> Result<Self, Error> {
        RawValue::from_string(text).map(Self).map_err(Error::json("value"))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.get()
    }
}

impl PartialEq for JsonText {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for JsonText {}

impl SchemaChange {
    /// A document of the table as it is after the change, from what it was before.
    ///
    /// # Errors
    ///
    /// [`Error::Json`] when the document is not a JSON object.
    pub fn reshape(&self, document: &str) -> Result<String, Error> {
        let members = json::members(document).map_err(Error::json("document"))?;
        let mut members: Vec<(&str, &str)> =
            members.iter().map(|(name, value)| (name.as_str(), value.get())).collect();
        for change in &self.changes {
            match change {
                ColumnChange::Added { name, value } => {
                    match members.iter_mut().find(|(member, _)| member == name) {
                        // A comparison has brought it already.
                        Some(member) => member.1 = value.as_str(),
                        None => members.push((name, value.as_str())),
                    }
                }
                ColumnChange::Dropped { name } => members.retain(|(member, _)| member != name),
                ColumnChange::Renamed { from, to } => {
                    members
                        .iter_mut()
                        .filter(|(member, _)| member == from)
                        .for_each(|(member, _)| *member = to);
                }
            }
        }
        let mut out = String::with_capacity(document.len() + 32);
        out.push('{');
        for (name, value) in members {
            push_member(&mut out, name, value);
        }
        out.push('}');
        Ok(out)
    }

    /// How the rows of a table come from those of its earlier shape, as far as the columns tell: columns dropped, one
    /// renamed in its place, columns added at the end, whose defaults `default` gives. Empty when they do not tell, which
    /// is no loss: every row is compared after a change.
    #[must_use]
    pub fn guess(
        old: &[SchemaColumn],
        new: &[SchemaColumn],
        mut default: impl FnMut(&str) -> Option<JsonText>,
    ) -> Vec<ColumnChange> {
        let mut changes = Vec::new();
        let has = |columns: &[SchemaColumn], name: &str| columns.iter().any(|column| column.name == name);
        let mut left: Vec<&SchemaColumn> = Vec::new();
        for (at, column) in old.iter().enumerate() {
            let renamed = new.get(at).filter(|to| old.len() == new.len() && !has(old, &to.name));
            match renamed {
                _ if has(new, &column.name) => left.push(column),
                Some(to) if to.declared_type == column.declared_type && to.key == column.key => {
                    changes.push(ColumnChange::Renamed { from: column.name.clone(), to: to.name.clone() });
                    left.push(to);
                }
                _ => changes.push(ColumnChange::Dropped { name: column.name.clone() }),
            }
        }
        for column in new.get(left.len()..).unwrap_or_default() {
            let Some(value) = default(&column.name) else { return Vec::new() };
            changes.push(ColumnChange::Added { name: column.name.clone(), value });
            left.push(column);
        }
        let same = left.iter().map(|column| &column.name).eq(new.iter().map(|column| &column.name));
        if same { changes } else { Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(names: &str) -> Vec<SchemaColumn> {
        let column = |name: &str| SchemaColumn {
            name: name.to_owned(),
            declared_type: "TEXT".to_owned(),
            key: (name == "id").then_some(1),
        };
        names.split_whitespace().map(column).collect()
    }

    #[test]
    fn documents_are_reshaped_as_the_columns_tell() {
        for (old, new, before, after) in [
            ("id a", "id a b", r#"{"id":1,"a":2.0}"#, r#"{"id":1,"a":2.0,"b":7}"#),
            ("id a b", "id b", r#"{"id":1,"a":2,"b":3}"#, r#"{"id":1,"b":3}"#),
            ("id a b", "id x b", r#"{"id":1,"a":2,"b":3}"#, r#"{"id":1,"x":2,"b":3}"#),
            ("id a b", "id b c d", r#"{"id":1,"a":2,"b":3}"#, r#"{"id":1,"b":3,"c":7,"d":7}"#),
            // What the columns do not tell is left to the comparison.
            ("id a b", "id b a", r#"{"id":1,"a":2,"b":3}"#, r#"{"id":1,"a":2,"b":3}"#),
            ("id a b", "id c a b", r#"{"id":1,"a":2,"b":3}"#, r#"{"id":1,"a":2,"b":3}"#),
            ("id a", "id a secret", r#"{"id":1,"a":2}"#, r#"{"id":1,"a":2}"#),
        ] {
            let seven = |name: &str| (name != "secret").then(|| JsonText::new("7".to_owned()).unwrap());
            let changes = SchemaChange::guess(&columns(old), &columns(new), seven);
            let schema = SchemaChange { changes, ..SchemaChange::default() };
            assert_eq!(schema.reshape(before).unwrap(), after, "{old} -> {new}");
            let text = serde_json::to_string(&schema).unwrap();
            assert_eq!(serde_json::from_str::<SchemaChange>(&text).unwrap(), schema);
        }
    }
}
