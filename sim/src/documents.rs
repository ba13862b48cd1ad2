use std::collections::BTreeMap;

use rusqlite::types::Value as Sqlite;
use serde_json::{Value, json};

/// What a log row is to say, as the workload knows it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Fact {
    /// A table has a new shape, and its documents became others: as the row says it.
    Schema { collection: String, changes: Vec<Value> },
    /// A document came, changed or went.
    Change { collection: String, document: String, before: Option<Value>, after: Option<Value> },
}

/// Documents by collection and id: what the tables must hold, or what a log adds up to.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Documents(BTreeMap<(String, String), Value>);

impl Documents {
    /// What a history adds up to.
    pub(crate) fn of(facts: &[Fact]) -> Self {
        let mut documents = Self::default();
        facts.iter().for_each(|fact| documents.apply(fact));
        documents
    }

    pub(crate) fn get(&self, collection: &str, document: &str) -> Option<&Value> {
        self.0.get(&(collection.to_owned(), document.to_owned()))
    }

    /// Collection, id and state of each.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str, &Value)> {
        self.0.iter().map(|((collection, id), document)| (collection.as_str(), id.as_str(), document))
    }

    /// The ids of one collection in the order of integer keys, other keys in their own.
    pub(crate) fn ids(&self, collection: &str) -> Vec<String> {
        let mut ids: Vec<_> =
            self.0.keys().filter(|key| key.0 == collection).map(|key| key.1.clone()).collect();
        ids.sort_by_key(|id| (id.parse::<i64>().unwrap_or(i64::MAX), id.clone()));
        ids
    }

    pub(crate) fn apply(&mut self, fact: &Fact) {
        let (collection, document, after) = match fact {
            Fact::Change { collection, document, after, .. } => (collection, document, after),
            Fact::Schema { collection, changes } => {
                changes.iter().for_each(|change| self.reshape(collection, change));
                return;
            }
        };
        let key = (collection.clone(), document.clone());
        match after {
            Some(after) => self.0.insert(key, after.clone()),
            None => self.0.remove(&key),
        };
    }

    fn reshape(&mut self, collection: &str, change: &Value) {
        let said = |kind: &str, member: &str| change.get(kind).and_then(|said| said.get(member)).cloned();
        let name = |kind: &str, member: &str| Some(said(kind, member)?.as_str()?.to_owned());
        for (_, document) in self.0.iter_mut().filter(|(key, _)| key.0 == collection) {
            let Some(members) = document.as_object_mut() else { continue };
            if let Some((added, value)) = name("added", "name").zip(said("added", "value")) {
                members.insert(added, value);
            }
            if let Some(dropped) = name("dropped", "name") {
                members.remove(&dropped);
            }
            if let Some((from, to)) = name("renamed", "from").zip(name("renamed", "to"))
                && let Some(value) = members.remove(&from)
            {
                members.insert(to, value);
            }
        }
    }

    /// Brings a document to a state and gives the fact that says so; `None` where there is nothing to say.
    pub(crate) fn set(&mut self, collection: &str, document: &str, after: Option<Value>) -> Option<Fact> {
        let before = self.get(collection, document).cloned();
        if before.is_none() && after.is_none() {
            return None;
        }
        let fact =
            Fact::Change { collection: collection.to_owned(), document: document.to_owned(), before, after };
        self.apply(&fact);
        Some(fact)
    }

    /// Only these collections.
    pub(crate) fn only(&self, collections: &[&str]) -> Self {
        let kept = self.0.iter().filter(|(key, _)| collections.contains(&key.0.as_str()));
        Self(kept.map(|(key, document)| (key.clone(), document.clone())).collect())
    }

    /// The first document in which two differ.
    pub(crate) fn difference(&self, other: &Self) -> Option<String> {
        let keys = self.0.keys().chain(other.0.keys());
        let differs = keys.into_iter().find(|key| self.0.get(*key) != other.0.get(*key));
        differs.map(|key| format!("{key:?}: {:?} and {:?}", self.0.get(key), other.0.get(key)))
    }
}

/// A row's value as documents write it. BLOBs do not occur in this world.
pub(crate) fn rendered(value: &Sqlite) -> Value {
    const PLAIN_MAX: u64 = 9_007_199_254_740_991;
    match value {
        Sqlite::Null => Value::Null,
        Sqlite::Integer(i) if i.unsigned_abs() > PLAIN_MAX => json!({ "$int": i.to_string() }),
        Sqlite::Integer(i) => json!(i),
        Sqlite::Real(r) => json!(r),
        Sqlite::Text(t) => json!(t),
        Sqlite::Blob(_) => Value::Bool(false),
    }
}
