//! Small pieces of JSON writing and reading that keep member order and raw text.

use std::fmt::{self, Write as _};

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The JSON of a value of ours, whose keys are strings and which therefore always serialises.
pub(crate) fn text(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("members with string keys serialise")
}

/// Appends what `value` displays.
pub(crate) fn push_display(out: &mut String, value: impl fmt::Display) {
    // Writing to a String cannot fail; a Display that returns an error is a bug of ours.
    write!(out, "{value}").expect("writing to a string");
}

/// Appends `text` as a JSON string, quotes included.
pub fn push_json_string(out: &mut String, text: &str) {
    out.push('"');
    let mut rest = text;
    while let Some(at) = first_escaped(rest.as_bytes()) {
        // Such a byte is a character of its own.
        let (plain, from) = rest.split_at(at);
        out.push_str(plain);
        let mut chars = from.chars();
        match chars.next() {
            Some('"') => out.push_str("\\\""),
            Some('\\') => out.push_str("\\\\"),
            Some('\n') => out.push_str("\\n"),
            Some('\r') => out.push_str("\\r"),
            Some('\t') => out.push_str("\\t"),
            Some(other) => push_display(out, format_args!("\\u{:04x}", u32::from(other))),
            None => {}
        }
        rest = chars.as_str();
    }
    out.push_str(rest);
    out.push('"');
}

/// Where the first byte is that JSON has to escape. Eight are looked at together, as long as none of them is one.
fn first_escaped(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES << 7;
    // In each byte the highest bit, if it is zero or if it follows one that is.
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & HIGH;
    let is_plain = |word: &[u8; 8]| {
        let word = u64::from_ne_bytes(*word);
        let controls = word.wrapping_sub(ONES * 0x20) & !word & HIGH;
        controls | zeros(word ^ (ONES * u64::from(b'"'))) | zeros(word ^ (ONES * u64::from(b'\\'))) == 0
    };
    let (words, rest) = bytes.as_chunks::<8>();
    let from = 8 * words.iter().take_while(|word| is_plain(word)).count();
    // The last word ends where the text does, and may begin in the one before.
    if from + rest.len() == bytes.len() && bytes.last_chunk().is_some_and(is_plain) {
        return None;
    }
    let is_escaped = |byte: &u8| *byte < 0x20 || *byte == b'"' || *byte == b'\\';
    Some(from + bytes.get(from..)?.iter().position(is_escaped)?)
}

/// Appends `"name":`, with a comma before it unless it is the first member.
pub(crate) fn push_name(out: &mut String, name: &str) {
    if !out.ends_with('{') {
        out.push(',');
    }
    out.push('"');
    out.push_str(name);
    out.push_str("\":");
}

/// The members of a JSON object in their order, values as raw text.
pub(crate) fn members(text: &str) -> Result<Vec<(String, &RawValue)>, serde_json::Error> {
    struct Members;

    impl<'de> Visitor<'de> for Members {
        type Value = Vec<(String, &'de RawValue)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a JSON object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members = Vec::new();
            while let Some(member) = map.next_entry()? {
                members.push(member);
            }
            Ok(members)
        }
    }

    let mut decoder = serde_json::Deserializer::from_str(text);
    let members = decoder.deserialize_map(Members)?;
    decoder.end()?;
    Ok(members)
}

/// Deserialises a member that is present, so that JSON null stays distinct from an absent member.
pub(crate) fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(d: D) -> Result<Option<T>, D::Error> {
    T::deserialize(d).map(Some)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn strings_are_escaped_as_serde_json_does(text in any::<String>()) {
            let mut ours = String::new();
            push_json_string(&mut ours, &text);
            prop_assert_eq!(serde_json::from_str::<String>(&ours).unwrap(), text);
        }

        #[test]
        fn the_first_byte_to_escape_is_found_wherever_it_is(bytes: Vec<u8>, all in any::<bool>()) {
            // Half of the time what is rare among all bytes.
            let few = |byte: &u8| *[b'"', b'\\', 0x1f, 0x20, 0x21, 0x7f, 0x80, 0xff, b'a'].get(usize::from(byte % 9)).unwrap();
            let bytes: Vec<u8> = if all { bytes } else { bytes.iter().map(few).collect() };
            let found = bytes.iter().position(|byte| *byte < 0x20 || *byte == b'"' || *byte == b'\\');
            prop_assert_eq!(first_escaped(&bytes), found);
        }
    }
}
