//! One event as one line for people: `customers/42 UPDATE tier: free → pro`.

use std::fmt;

use cdc::{ChangeBody, Content, Operation, Record, SchemaChange, Tag};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::text::brief;
use super::{Paint, View};
use crate::failure::Failure;

/// A value in a diff or a row is cut after this many characters.
const VALUE_CHARS_MAX: usize = 60;

/// Fields shown of a row that came or went; fields shown of a diff.
const ROW_FIELDS_MAX: usize = 8;
const DIFF_FIELDS_MAX: usize = 16;

/// Names are cut after this many characters.
const NAME_CHARS_MAX: usize = 120;

pub(super) fn line(record: &Record, view: &View, paint: Paint) -> Result<String, Failure> {
    let mut line = String::new();
    if view.placed {
        let place = format!("{:>6}  {}  ", record.sequence, record.origin_timestamp);
        line.push_str(&paint.dim(&place));
    }
    if record.origin.source() != &view.of {
        line.push_str(&paint.cyan(record.origin.source().short()));
        line.push(' ');
    }
    match record.body.content()? {
        Content::Change(change) => push_change(&mut line, &change, paint)?,
        Content::Schema(schema) => push_schema(&mut line, &schema, paint),
        _ => line.push_str(&brief(record.body.as_str(), NAME_CHARS_MAX)),
    }
    Ok(line)
}

fn push_change(line: &mut String, change: &ChangeBody<'_>, paint: Paint) -> Result<(), Failure> {
    let name = format!("{}/{}", change.collection, change.document_id);
    line.push_str(&paint.bold(&brief(&name, NAME_CHARS_MAX)));
    let before = change.full_before()?;
    let (before, after) = (before.as_deref(), change.after.map(RawValue::get));
    let (operation, what) = match change.operation {
        Operation::Insert => (paint.green("INSERT"), row(after.unwrap_or("null"), paint)),
        Operation::Delete => (paint.red("DELETE"), row(before.unwrap_or("null"), paint)),
        Operation::Update => {
            let paths = change.changed_fields.iter().flatten().map(AsRef::as_ref);
            (paint.yellow("UPDATE"), diff(paths, before.unwrap_or("null"), after.unwrap_or("null"), paint))
        }
    };
    line.push_str(&format!(" {operation} {what}"));
    match &change.tag {
        Some(Tag::Snapshot) => line.push_str(&paint.dim(" (snapshot)")),
        Some(Tag::Reconciled) => line.push_str(&paint.dim(" (reconciled)")),
        Some(Tag::Mapped) => line.push_str(&paint.dim(" (mapped)")),
        Some(Tag::Aggregate { from, to }) => line.push_str(&paint.dim(&format!(" (from {from} to {to})"))),
        None => {}
    }
    Ok(())
}

fn push_schema(line: &mut String, schema: &SchemaChange, paint: Paint) {
    let columns = schema.columns.iter().map(|column| {
        let name = brief(&column.name, NAME_CHARS_MAX);
        let kind = brief(&column.declared_type, NAME_CHARS_MAX);
        let key = if column.key.is_some() { " key" } else { "" };
        if kind.is_empty() { format!("{name}{key}") } else { format!("{name} {kind}{key}") }
    });
    let columns: Vec<_> = columns.collect();
    let columns = if columns.is_empty() { "dropped".to_owned() } else { columns.join(", ") };
    let name = paint.bold(&brief(&schema.collection, NAME_CHARS_MAX));
    line.push_str(&format!("{name} {} v{} {columns}", paint.cyan("SCHEMA"), schema.version));
}

/// A row that came or went: its first fields.
fn row(json: &str, paint: Paint) -> String {
    let Some(members) = Members::of(json) else { return value(json) };
    let count = members.0.len();
    let field = |(name, json): (String, &RawValue)| {
        format!("{} {}", paint.dim(&format!("{}:", brief(&name, NAME_CHARS_MAX))), value(json.get()))
    };
    let mut fields: Vec<_> = members.0.into_iter().take(ROW_FIELDS_MAX).map(field).collect();
    if count > ROW_FIELDS_MAX {
        fields.push(format!("… {} more", count - ROW_FIELDS_MAX));
    }
    fields.join(", ")
}

/// What an update changed: each path with its value before and after.
fn diff<'a>(paths: impl Iterator<Item = &'a str>, before: &str, after: &str, paint: Paint) -> String {
    let mut fields = Vec::new();
    let mut count = 0;
    for path in paths {
        count += 1;
        if count > DIFF_FIELDS_MAX {
            continue;
        }
        let state = |json: &str| at(json, path).map_or_else(|| "nothing".to_owned(), |found| value(&found));
        let (before, after) = (paint.red(&state(before)), paint.green(&state(after)));
        fields.push(format!("{}: {before} → {after}", brief(path, NAME_CHARS_MAX)));
    }
    if count > DIFF_FIELDS_MAX {
        fields.push(format!("… {} more", count - DIFF_FIELDS_MAX));
    }
    fields.join(", ")
}

/// The value at a dotted path; `$` is the document itself.
fn at(json: &str, path: &str) -> Option<String> {
    if path == "$" {
        return Some(json.to_owned());
    }
    let (segment, rest) = first_segment(path);
    let members = Members::of(json)?;
    let (_, found) = members.0.into_iter().find(|(name, _)| *name == segment)?;
    match rest {
        Some(rest) => at(found.get(), rest),
        None => Some(found.get().to_owned()),
    }
}

/// Takes a path apart at its first dot that is not escaped.
fn first_segment(path: &str) -> (String, Option<&str>) {
    let mut segment = String::new();
    let mut chars = path.char_indices();
    while let Some((index, char)) = chars.next() {
        match char {
            '\\' => segment.extend(chars.next().map(|(_, escaped)| escaped)),
            '.' => return (segment, path.get(index + 1..)),
            other => segment.push(other),
        }
    }
    (segment, None)
}

/// A JSON value in short. Text stands without quotes unless it could be taken for something else.
fn value(json: &str) -> String {
    let text: Option<String> = serde_json::from_str(json).ok();
    match text {
        Some(text) if is_plain(&text) => brief(&text, VALUE_CHARS_MAX),
        _ => brief(json, VALUE_CHARS_MAX),
    }
}

fn is_plain(text: &str) -> bool {
    let other =
        text.is_empty() || matches!(text, "true" | "false" | "null" | "nothing") || text.trim() != text;
    !other && text.parse::<f64>().is_err() && !text.contains([',', '→']) && !text.starts_with(['{', '[', '"'])
}

/// The members of a JSON object in their order.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'a> Members<'a> {
    fn of(json: &'a str) -> Option<Self> {
        serde_json::from_str(json).ok()
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Color;

    fn shown(paths: &[&str], before: &str, after: &str) -> String {
        diff(paths.iter().copied(), before, after, Paint::of_stdout(Color::Never))
    }

    #[test]
    fn a_diff_shows_each_changed_path_before_and_after() {
        for (paths, before, after, line) in [
            (&["tier"][..], r#"{"id":1,"tier":"free"}"#, r#"{"id":1,"tier":"pro"}"#, "tier: free → pro"),
            (&["a.b"], r#"{"a":{"b":1}}"#, r#"{"a":{"b":2}}"#, "a.b: 1 → 2"),
            (&["a\\.b"], r#"{"a.b":1}"#, r#"{"a.b":null}"#, "a\\.b: 1 → null"),
            (&["n"], r#"{"n":1}"#, r#"{"n":"1"}"#, "n: 1 → \"1\""),
            (&["x", "y"], r#"{"x":""}"#, r#"{"y":true}"#, "x: \"\" → nothing, y: nothing → true"),
            (&["$"], r#"["a"]"#, "7", "$: [\"a\"] → 7"),
        ] {
            assert_eq!(shown(paths, before, after), line);
        }
    }

    #[test]
    fn a_row_shows_its_first_fields_in_their_order() {
        let paint = Paint::of_stdout(Color::Never);
        assert_eq!(row(r#"{"z":"Ada, Countess","a":null}"#, paint), "z: \"Ada, Countess\", a: null");
        let wide = r#"{"a":1,"b":1,"c":1,"d":1,"e":1,"f":1,"g":1,"h":1,"i":1,"j":1}"#;
        assert!(row(wide, paint).ends_with("h: 1, … 2 more"));
        assert_eq!(row("[1]", paint), "[1]");
        assert_eq!(
            row(&format!(r#"{{"a":"{}"}}"#, "x".repeat(100)), paint).chars().count(),
            3 + VALUE_CHARS_MAX + 1
        );
    }
}
