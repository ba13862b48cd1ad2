use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::value::RawValue;

use crate::{Digest, Error, json};

/// Integers beyond ±(2^53 − 1) are written as `{"$int":"…"}`, because JSON readers hold numbers as doubles.
const PLAIN_INTEGER_MAX: u64 = (1 << 53) - 1;

/// One SQLite value, borrowed from where it was read.
///
/// Its JSON is lossless: NULL `null`; integers to 2^53−1 plain, larger `{"$int":"…"}`; REAL in shortest
/// round-trip form with `.` or `e`, infinities `{"$real":"Infinity"}`; TEXT a string, invalid UTF-8
/// `{"$text":"base64"}`; BLOB `{"$blob":"base64"}`.
#[derive(Clone, Copy, Debug)]
pub enum ValueRef<'a> {
    /// NULL.
    Null,
    /// A 64-bit integer.
    Integer(i64),
    /// A double; never NaN, which SQLite stores as NULL.
    Real(f64),
    /// TEXT, which may hold invalid UTF-8.
    Text(&'a [u8]),
    /// BLOB.
    Blob(&'a [u8]),
}

/// One SQLite value, owned.
#[derive(Clone, Debug)]
pub enum Value {
    /// NULL.
    Null,
    /// A 64-bit integer.
    Integer(i64),
    /// A double.
    Real(f64),
    /// TEXT, which may hold invalid UTF-8.
    Text(Vec<u8>),
    /// BLOB.
    Blob(Vec<u8>),
    /// A value that was too large to render; only its size and digest are known.
    Omitted {
        /// Its size in bytes.
        bytes: u64,
        /// xxh3-128 of its bytes.
        digest: Digest,
    },
}

impl<'a> ValueRef<'a> {
    /// Appends the value's JSON to `out`.
    ///
    /// A value of more than `bytes_max` bytes becomes `{"$omitted":{"bytes":…,"digest":"…"}}`.
    pub fn write_json(&self, out: &mut String, bytes_max: usize) {
        match *self {
            Self::Null => out.push_str("null"),
            Self::Integer(i) if i.unsigned_abs() <= PLAIN_INTEGER_MAX => {
                out.push_str(itoa::Buffer::new().format(i));
            }
            Self::Integer(i) => json::push_display(out, format_args!("{{\"$int\":\"{i}\"}}")),
            Self::Real(r) if r.is_nan() => out.push_str("null"),
            Self::Real(r) if r.is_infinite() => {
                out.push_str(if r > 0.0 { r#"{"$real":"Infinity"}"# } else { r#"{"$real":"-Infinity"}"# });
            }
            Self::Real(r) => json::push_display(out, format_args!("{r:?}")),
            Self::Text(bytes) | Self::Blob(bytes) if bytes.len() > bytes_max => {
                let digest = Digest::of(bytes);
                let len = bytes.len();
                json::push_display(
                    out,
                    format_args!(r#"{{"$omitted":{{"bytes":{len},"digest":"{digest}"}}}}"#),
                );
            }
            Self::Text(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => json::push_json_string(out, text),
                Err(_) => push_base64(out, "$text", bytes),
            },
            Self::Blob(bytes) => push_base64(out, "$blob", bytes),
        }
    }

    /// The value's JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut out = String::new();
        self.write_json(&mut out, usize::MAX);
        out
    }

    /// The value, copied.
    #[must_use]
    pub fn to_value(&self) -> Value {
        match *self {
            Self::Null => Value::Null,
            Self::Integer(i) => Value::Integer(i),
            Self::Real(r) => Value::Real(r),
            Self::Text(t) => Value::Text(t.to_vec()),
            Self::Blob(b) => Value::Blob(b.to_vec()),
        }
    }

    /// Whether two values are the same to the bit and of the same type (so 1 differs from 1.0, 0.0 from -0.0).
    #[must_use]
    pub fn same(&self, other: &ValueRef<'_>) -> bool {
        match (self, other) {
            (Self::Null, ValueRef::Null) => true,
            (Self::Integer(a), ValueRef::Integer(b)) => a == b,
            (Self::Real(a), ValueRef::Real(b)) => a.to_bits() == b.to_bits(),
            (Self::Text(a), ValueRef::Text(b)) | (Self::Blob(a), ValueRef::Blob(b)) => a == b,
            _ => false,
        }
    }
}

fn push_base64(out: &mut String, key: &str, bytes: &[u8]) {
    out.push_str("{\"");
    out.push_str(key);
    out.push_str("\":\"");
    BASE64.encode_string(bytes, out);
    out.push_str("\"}");
}

impl Value {
    /// Reads a value back from its JSON.
    ///
    /// # Errors
    ///
    /// [`Error::Json`] or [`Error::Parse`] when the text is not what [`ValueRef::write_json`] gives.
    pub fn from_json(text: &str) -> Result<Self, Error> {
        let expected =
            || Error::parse(text.chars().take(100).collect::<String>(), "the JSON of a SQLite value");
        match text.as_bytes().first() {
            Some(b'n') if text == "null" => Ok(Self::Null),
            Some(b'"') => serde_json::from_str::<String>(text)
                .map(|s| Self::Text(s.into_bytes()))
                .map_err(Error::json("string")),
            Some(b'{') => Self::from_wrapped(text)?.ok_or_else(expected),
            Some(b'-' | b'0'..=b'9') if text.contains(['.', 'e', 'E']) => {
                serde_json::from_str(text).map(Self::Real).map_err(Error::json("number"))
            }
            Some(b'-' | b'0'..=b'9') => {
                serde_json::from_str(text).map(Self::Integer).map_err(Error::json("integer"))
            }
            _ => Err(expected()),
        }
    }

    fn from_wrapped(text: &str) -> Result<Option<Self>, Error> {
        let members = json::members(text).map_err(Error::json("wrapped value"))?;
        let [(key, raw)] = members.as_slice() else {
            return Ok(None);
        };
        if key == "$omitted" {
            #[derive(serde::Deserialize)]
            struct Omitted {
                bytes: u64,
                digest: Digest,
            }
            let omitted: Omitted = serde_json::from_str(raw.get()).map_err(Error::json("omitted value"))?;
            return Ok(Some(Self::Omitted { bytes: omitted.bytes, digest: omitted.digest }));
        }
        let inner: String = serde_json::from_str(raw.get()).map_err(Error::json("wrapped value"))?;
        let base64 = || BASE64.decode(&inner).ok().ok_or_else(|| Error::parse(&inner, "base64"));
        Ok(match (key.as_str(), inner.as_str()) {
            ("$int", digits) => {
                Some(Self::Integer(digits.parse().ok().ok_or_else(|| Error::parse(digits, "an integer"))?))
            }
            ("$real", "Infinity") => Some(Self::Real(f64::INFINITY)),
            ("$real", "-Infinity") => Some(Self::Real(f64::NEG_INFINITY)),
            ("$text", _) => Some(Self::Text(base64()?)),
            ("$blob", _) => Some(Self::Blob(base64()?)),
            _ => None,
        })
    }

    /// The value borrowed; `None` for an omitted one.
    #[must_use]
    pub fn as_ref(&self) -> Option<ValueRef<'_>> {
        Some(match self {
            Self::Null => ValueRef::Null,
            Self::Integer(i) => ValueRef::Integer(*i),
            Self::Real(r) => ValueRef::Real(*r),
            Self::Text(t) => ValueRef::Text(t),
            Self::Blob(b) => ValueRef::Blob(b),
            Self::Omitted { .. } => return None,
        })
    }
}

/// Reads the JSON of a captured row back into its columns and values, in column order.
///
/// # Errors
///
/// [`Error::Json`] or [`Error::Parse`] when the document is not a captured row.
pub fn row_from_json(document: &RawValue) -> Result<Vec<(String, Value)>, Error> {
    let members = json::members(document.get()).map_err(Error::json("captured row"))?;
    members.into_iter().map(|(name, raw)| Ok((name, Value::from_json(raw.get())?))).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::Integer),
            (-3_i64..3).prop_map(|d| Value::Integer((1 << 53) + d)),
            any::<f64>().prop_filter("SQLite has no NaN", |r| !r.is_nan()).prop_map(Value::Real),
            any::<String>().prop_map(|s| Value::Text(s.into_bytes())),
            any::<Vec<u8>>().prop_map(Value::Text),
            any::<Vec<u8>>().prop_map(Value::Blob),
        ]
    }

    proptest! {
        #[test]
        fn every_sqlite_value_comes_back_to_the_bit(value in any_value()) {
            let before = value.as_ref().unwrap();
            let text = before.to_json();
            let back = Value::from_json(&text).unwrap();
            prop_assert!(before.same(&back.as_ref().unwrap()), "{text}");
            serde_json::from_str::<serde_json::Value>(&text).unwrap();
        }

        #[test]
        fn arbitrary_text_never_panics(text in any::<String>()) {
            drop(Value::from_json(&text));
        }
    }

    #[test]
    fn the_json_of_known_values_never_changes() {
        for (value, json) in [
            (ValueRef::Null, "null"),
            (ValueRef::Integer(9_007_199_254_740_991), "9007199254740991"),
            (ValueRef::Integer(9_007_199_254_740_992), r#"{"$int":"9007199254740992"}"#),
            (ValueRef::Integer(i64::MIN), r#"{"$int":"-9223372036854775808"}"#),
            (ValueRef::Real(1.0), "1.0"),
            (ValueRef::Real(-0.0), "-0.0"),
            (ValueRef::Real(1e300), "1e300"),
            (ValueRef::Real(0.1 + 0.2), "0.30000000000000004"),
            (ValueRef::Real(f64::NEG_INFINITY), r#"{"$real":"-Infinity"}"#),
            (ValueRef::Real(f64::NAN), "null"),
            (ValueRef::Text(b"a\"\n\x00\xc3\xa9"), "\"a\\\"\\n\\u0000\u{e9}\""),
            (ValueRef::Text(b"\xff"), r#"{"$text":"/w=="}"#),
            (ValueRef::Blob(b"\x00\x01"), r#"{"$blob":"AAE="}"#),
        ] {
            assert_eq!(value.to_json(), json);
        }
        let mut out = String::new();
        ValueRef::Blob(&[7; 11]).write_json(&mut out, 10);
        assert!(
            matches!(Value::from_json(&out).unwrap(), Value::Omitted { bytes: 11, digest } if digest == Digest::of(&[7; 11]))
        );
    }

    #[test]
    fn what_is_not_a_value_is_refused() {
        for text in [
            "",
            "x",
            "[]",
            "{}",
            r#"{"$int":"x"}"#,
            r#"{"$int":1}"#,
            r#"{"$blob":"?"}"#,
            r#"{"a":"b"}"#,
            "1.2.3",
            "nul",
        ] {
            assert!(Value::from_json(text).is_err(), "{text}");
        }
    }
}
