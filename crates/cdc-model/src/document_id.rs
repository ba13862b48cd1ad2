use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::{Error, Value, ValueRef, json};

/// How a table's key becomes a `documentId`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyShape {
    /// The key column turns text that looks like a number into a number (INTEGER, NUMERIC or REAL affinity, or
    /// the row id), so that the integer 7 and the text `7` cannot both be keys.
    pub numeric: bool,
}

/// The id of a document from its key values.
///
/// One integer key in decimal (where `shape.numeric`), one text key verbatim unless it starts with `[`; anything
/// else a canonical JSON array of typed values. Two different keys of one table never share an id. A key with
/// NULLs is told apart by the row id, which the caller appends to `key`.
#[must_use]
pub fn document_id(key: &[ValueRef<'_>], shape: KeyShape) -> String {
    match *key {
        [ValueRef::Integer(number)] if shape.numeric => return itoa::Buffer::new().format(number).to_owned(),
        [ValueRef::Text(text)] if !text.starts_with(b"[") => {
            if let Ok(text) = std::str::from_utf8(text) {
                return text.to_owned();
            }
        }
        _ => {}
    }
    let mut id = String::from("[");
    for (index, value) in key.iter().enumerate() {
        if index > 0 {
            id.push(',');
        }
        value.write_json(&mut id, usize::MAX);
    }
    id.push(']');
    id
}

/// The key values that [`document_id`] made an id of.
///
/// # Errors
///
/// [`Error::Json`] or [`Error::Parse`] when it made no such id.
pub fn document_key(id: &str, shape: KeyShape) -> Result<Vec<Value>, Error> {
    if id.starts_with('[') {
        let values: Vec<&RawValue> = serde_json::from_str(id).map_err(Error::json("document id"))?;
        return values.into_iter().map(|value| Value::from_json(value.get())).collect();
    }
    let number = id.parse::<i64>().ok().filter(|number| shape.numeric && number.to_string() == id);
    Ok(vec![number.map_or_else(|| Value::Text(id.as_bytes().to_vec()), Value::Integer)])
}

/// A column name as a segment of a changed-field path: dots and backslashes are escaped.
fn segment(name: &str) -> Cow<'_, str> {
    if !name.contains(['.', '\\']) {
        return Cow::Borrowed(name);
    }
    let mut segment = String::with_capacity(name.len() + 2);
    for char in name.chars() {
        if char == '.' || char == '\\' {
            segment.push('\\');
        }
        segment.push(char);
    }
    Cow::Owned(segment)
}

/// The paths at which two documents differ: dotted leaf paths, arrays whole, an added or removed key at the
/// topmost difference, dots in keys escaped, sorted. Identical documents give an empty list; documents that are
/// not both objects and differ give `$`.
#[must_use]
pub fn changed_fields(before: &serde_json::Value, after: &serde_json::Value) -> Vec<String> {
    use serde_json::Value::Object;
    let mut paths = Vec::new();
    match (before, after) {
        (Object(_), Object(_)) => differences(&mut String::new(), before, after, &mut paths),
        _ if before == after => {}
        _ => paths.push("$".to_owned()),
    }
    paths.sort_unstable();
    paths
}

fn differences(
    path: &mut String,
    before: &serde_json::Value,
    after: &serde_json::Value,
    paths: &mut Vec<String>,
) {
    let (serde_json::Value::Object(before), serde_json::Value::Object(after)) = (before, after) else {
        if before != after {
            paths.push(path.clone());
        }
        return;
    };
    let added = after.keys().filter(|key| !before.contains_key(*key));
    for key in before.keys().chain(added) {
        let len = path.len();
        if len > 0 {
            path.push('.');
        }
        path.push_str(&segment(key));
        match (before.get(key), after.get(key)) {
            (Some(before), Some(after)) => differences(path, before, after, paths),
            _ => paths.push(path.clone()),
        }
        path.truncate(len);
    }
}

/// The names of changed columns as changed-field paths, sorted, as a JSON array.
#[must_use]
pub fn changed_columns_json<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut paths: Vec<_> = names.map(segment).collect();
    paths.sort_unstable();
    let mut out = String::from("[");
    for (index, path) in paths.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        json::push_json_string(&mut out, path);
    }
    out.push(']');
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn ids_are_plain_where_that_is_unambiguous() {
        use ValueRef::{Blob, Integer, Null, Real, Text};
        let (numeric, text) = (KeyShape { numeric: true }, KeyShape { numeric: false });
        for (key, shape, id) in [
            (&[Integer(42)][..], numeric, "42"),
            (&[Integer(42)], text, "[42]"),
            (&[Text(b"42")], text, "42"),
            (&[Text(b"[42]")], text, r#"["[42]"]"#),
            (&[Text(b"")], text, ""),
            (&[Text(b"\xff")], text, r#"[{"$text":"/w=="}]"#),
            (&[Blob(b"a")], text, r#"[{"$blob":"YQ=="}]"#),
            (&[Real(1.0)], numeric, "[1.0]"),
            (&[Integer(1), Text(b"x")], numeric, r#"[1,"x"]"#),
            (&[Null, Integer(5)], text, "[null,5]"),
        ] {
            assert_eq!(document_id(key, shape), id);
            let back = document_key(id, shape).unwrap();
            assert!(back.iter().zip(key).all(|(back, key)| back.as_ref().unwrap().same(key)), "{id}");
            assert_eq!(back.len(), key.len());
        }
    }

    #[test]
    fn changed_fields_are_leaf_paths() {
        for (before, after, paths) in [
            (json!({"a": 1}), json!({"a": 1}), &[][..]),
            (json!({"a": 1, "b": 2}), json!({"a": 1, "b": 3}), &["b"]),
            (
                json!({"customer": {"tier": "free", "n": 1}}),
                json!({"customer": {"tier": "pro", "n": 1}}),
                &["customer.tier"],
            ),
            (json!({"tags": [1, 2]}), json!({"tags": [1, 3]}), &["tags"]),
            (json!({"a": {"b": 1}}), json!({}), &["a"]),
            (json!({}), json!({"z": 1, "a": {"b": 1}}), &["a", "z"]),
            (json!({"a": null}), json!({"a": 1}), &["a"]),
            (json!({"a": null}), json!({}), &["a"]),
            (json!({"a": {"b": 1}}), json!({"a": 7}), &["a"]),
            (json!({"a.b": 1, "c\\": 1}), json!({"a.b": 2, "c\\": 2}), &["a\\.b", "c\\\\"]),
            (json!({"n": 1}), json!({"n": 1.0}), &["n"]),
            (json!(1), json!(2), &["$"]),
        ] {
            assert_eq!(changed_fields(&before, &after), paths, "{before} {after}");
        }
    }

    proptest! {
        #[test]
        fn different_keys_never_share_an_id(a in any::<Vec<u8>>(), b in any::<Vec<u8>>(), m in any::<i64>(), n in any::<i64>()) {
            let shape = KeyShape { numeric: false };
            let keys = [vec![ValueRef::Text(&a)], vec![ValueRef::Text(&b)], vec![ValueRef::Blob(&a)],
                vec![ValueRef::Integer(m)], vec![ValueRef::Text(&a), ValueRef::Integer(n)], vec![ValueRef::Integer(n), ValueRef::Text(&a)]];
            for (i, x) in keys.iter().enumerate() {
                for (j, y) in keys.iter().enumerate() {
                    let same = x.len() == y.len() && x.iter().zip(y).all(|(x, y)| x.same(y));
                    prop_assert_eq!(document_id(x, shape) == document_id(y, shape), same, "{} {}", i, j);
                }
            }
        }
    }
}
