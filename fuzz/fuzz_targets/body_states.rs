//! Bodies that are JSON in every combination of members, which mutated bytes rarely reach.
//!
//! The fuzzer's bytes choose the members and what is in them, so that every input is a body or nearly one.
#![no_main]

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;

/// Names and texts; few, so that they meet again in `was`, `before` and `after`.
const TEXTS: &[&str] =
    &["a", "b", "c", "", "a.b", "$int", "$blob", "\\\"", "\\u0000", "\\n", "é", "operation", "1"];
const NUMBERS: &[&str] =
    &["0", "-0", "-0.0", "1", "1.0", "1e308", "1E5", "9007199254740993", "18446744073709551616"];
const TAGS: &[&str] =
    &["\"snapshot\"", "\"reconciled\"", "\"mapped\"", r#"{"aggregate":{"from":0,"to":1}}"#, "\"?\""];
const DERIVED: &str = r#"{"source":"https://a.test","epoch":"1-00c0ffee00c0ffee","sequence":3}"#;
const DEPTH_MAX: u32 = 4;

fuzz_target!(|bytes: &[u8]| {
    let mut choices = Unstructured::new(bytes);
    if let Ok(text) = change(&mut choices) {
        fuzz::body(&text);
    }
});

/// The members in canonical order, each there or not.
fn change(choices: &mut Unstructured<'_>) -> Result<String> {
    let operation = *choices.choose(&["INSERT", "UPDATE", "DELETE"])?;
    let mut members = vec![format!(r#""operation":"{operation}""#)];
    members.push(format!(r#""collection":{}"#, text(choices)?));
    members.push(format!(r#""documentId":{}"#, text(choices)?));
    if choices.ratio(1_u8, 4_u8)? {
        members.push(format!(r#""schemaVersion":{}"#, choices.arbitrary::<u32>()?));
    }
    if choices.ratio(1_u8, 4_u8)? {
        members.push(format!(r#""tag":{}"#, choices.choose(TAGS)?));
    }
    if choices.ratio(1_u8, 4_u8)? {
        let (index, count) = choices.arbitrary::<(u32, u32)>()?;
        let id = text(choices)?;
        members.push(format!(r#""transaction":{{"id":{id},"index":{index},"count":{count}}}"#));
    }
    if choices.ratio(1_u8, 4_u8)? {
        members.push(format!(r#""correlationId":{}"#, text(choices)?));
    }
    if choices.ratio(1_u8, 4_u8)? {
        members.push(format!(r#""derivedFrom":{DERIVED}"#));
    }
    states(operation, choices, &mut members)?;
    Ok(format!("{{{}}}", members.join(",")))
}

/// Mostly the states that the operation has, sometimes others.
fn states(operation: &str, choices: &mut Unstructured<'_>, members: &mut Vec<String>) -> Result<()> {
    let odd = choices.ratio(1_u8, 16_u8)?;
    let whole = choices.arbitrary::<bool>()?;
    let update = operation == "UPDATE";
    if update != odd {
        let paths: Vec<String> =
            (0..choices.int_in_range(0..=6)?).map(|_| text(choices)).collect::<Result<_>>()?;
        members.push(format!(r#""changedFields":[{}]"#, paths.join(",")));
    }
    if operation == "DELETE" || update && whole || odd {
        members.push(format!(r#""before":{}"#, document(choices, 0)?));
    }
    if update && !whole {
        members.push(format!(r#""was":{}"#, document(choices, 0)?));
    }
    if operation != "DELETE" {
        members.push(format!(r#""after":{}"#, document(choices, 0)?));
    }
    Ok(())
}

/// A JSON value, mostly an object at the top.
fn document(choices: &mut Unstructured<'_>, depth: u32) -> Result<String> {
    let kind = choices.int_in_range(0..=7)?;
    if depth == 0 && kind < 6 || depth < DEPTH_MAX && kind == 0 {
        let count = choices.int_in_range(0..=5)?;
        let members = (0..count).map(|_| Ok(format!("{}:{}", text(choices)?, document(choices, depth + 1)?)));
        return Ok(format!("{{{}}}", members.collect::<Result<Vec<_>>>()?.join(",")));
    }
    Ok(match kind {
        1 if depth < DEPTH_MAX => {
            let elements = (0..choices.int_in_range(0..=3)?).map(|_| document(choices, depth + 1));
            format!("[{}]", elements.collect::<Result<Vec<_>>>()?.join(", "))
        }
        2 => "null".to_owned(),
        3 => choices.arbitrary::<bool>()?.to_string(),
        4 | 5 => (*choices.choose(NUMBERS)?).to_owned(),
        _ => text(choices)?,
    })
}

fn text(choices: &mut Unstructured<'_>) -> Result<String> {
    Ok(format!("\"{}\"", choices.choose(TEXTS)?))
}
