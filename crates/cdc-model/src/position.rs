use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

use crate::{Epoch, Error};

/// A place in one object's log. Dense from 1; 0 is before everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Sequence(u64);

impl Sequence {
    /// Before the first record.
    pub const ZERO: Self = Self(0);
    /// The largest sequence a log can hold: SQLite's largest row id.
    pub const MAX: Self = Self(i64::MAX.unsigned_abs());

    /// A sequence from its number.
    ///
    /// # Panics
    ///
    /// If `number` is beyond [`Sequence::MAX`]; a log never gets there.
    #[must_use]
    pub fn new(number: u64) -> Self {
        assert!(number <= Self::MAX.0, "sequence {number} is beyond the largest SQLite row id");
        Self(number)
    }

    /// A sequence from a number of outside.
    #[must_use]
    pub fn checked(number: i64) -> Option<Self> {
        u64::try_from(number).ok().map(Self)
    }

    /// Its number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Its number as SQLite and Parquet store it.
    #[must_use]
    pub const fn as_i64(self) -> i64 {
        self.0.cast_signed()
    }

    /// The sequence after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self::new(self.0 + 1)
    }

    /// How many positions lie in `(earlier, self]`; 0 when `earlier` is not earlier.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl<'de> Deserialize<'de> for Sequence {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u64::deserialize(deserializer)?;
        if number > Self::MAX.0 {
            return Err(serde::de::Error::custom("a sequence is at most 2^63-1"));
        }
        Ok(Self(number))
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Sequence {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let number = text.parse::<i64>().ok().and_then(Self::checked);
        number.ok_or_else(|| Error::parse(text, "a sequence (a whole number from 0)"))
    }
}

/// Milliseconds since 1970-01-01T00:00:00Z. Text is RFC 3339 or `@` and the milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// 1970-01-01T00:00:00Z.
    pub const ZERO: Self = Self(0);

    /// A timestamp from its milliseconds.
    #[must_use]
    pub const fn new(unix_ms: i64) -> Self {
        Self(unix_ms)
    }

    /// Its milliseconds since 1970.
    #[must_use]
    pub const fn get(self) -> i64 {
        self.0
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(time) => write!(f, "{time:.3}"),
            Err(_) => write!(f, "@{}", self.0),
        }
    }
}

impl FromStr for Timestamp {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        const EXPECTED: &str =
            "a time (RFC 3339 such as 2026-01-15T12:00:00Z, or @ and milliseconds since 1970)";
        if let Some(ms) = text.strip_prefix('@') {
            return ms.parse().ok().map(Self).ok_or_else(|| Error::parse(text, EXPECTED));
        }
        let time: jiff::Timestamp = text.parse().ok().ok_or_else(|| Error::parse(text, EXPECTED))?;
        Ok(Self(time.as_millisecond()))
    }
}

/// Where a reader is: the last record it has seen. Exclusive: reading goes on after it.
///
/// `sequence` decides. Sequence 0 with a timestamp seeks to the first record at or after that time. A cursor that
/// was issued by a log carries that log's epoch. Text is the bare sequence or `sequence@milliseconds`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cursor {
    /// The last sequence seen.
    pub sequence: Sequence,
    /// That record's append time, or the time to seek to.
    #[serde(default)]
    pub timestamp: Timestamp,
    /// The epoch of the log that issued the cursor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
}

impl Cursor {
    /// Before everything.
    pub const START: Self = Self { sequence: Sequence::ZERO, timestamp: Timestamp::ZERO, epoch: None };

    /// After the record with this sequence.
    #[must_use]
    pub fn after(sequence: Sequence) -> Self {
        Self { sequence, ..Self::START }
    }

    /// At the first record at or after this time.
    #[must_use]
    pub fn at_time(timestamp: Timestamp) -> Self {
        Self { timestamp, ..Self::START }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.sequence, self.timestamp.get())
    }
}

impl FromStr for Cursor {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let expected = || Error::parse(text, "a cursor (a sequence such as 1000, or sequence@milliseconds)");
        let (sequence, ms) = text.split_once('@').unwrap_or((text, "0"));
        let sequence = sequence.parse().ok().ok_or_else(expected)?;
        let timestamp = ms.parse().ok().map(Timestamp).ok_or_else(expected)?;
        Ok(Self { sequence, timestamp, epoch: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_and_times_are_read_as_people_write_them() {
        assert_eq!("1000".parse::<Cursor>().unwrap(), Cursor::after(Sequence::new(1000)));
        let cursor = "7@1705276800000".parse::<Cursor>().unwrap();
        assert_eq!(cursor.timestamp.to_string(), "2024-01-15T00:00:00.000Z");
        assert_eq!(cursor.to_string().parse::<Cursor>().unwrap(), cursor);
        assert_eq!("2024-01-15T01:00:00+01:00".parse::<Timestamp>().unwrap(), cursor.timestamp);
        assert_eq!("@1705276800000".parse::<Timestamp>().unwrap(), cursor.timestamp);
        assert_eq!(Timestamp::new(i64::MAX).to_string(), format!("@{}", i64::MAX));
        for text in ["", "x", "-1", "1.5", "9223372036854775808", "1@x", "@", "yesterday"] {
            assert!(matches!(text.parse::<Cursor>(), Err(Error::Parse { .. })), "{text}");
            assert!(matches!(text.parse::<Timestamp>(), Err(Error::Parse { .. })), "{text}");
        }
    }

    #[test]
    fn a_sequence_beyond_sqlite_is_refused_in_json() {
        assert_eq!(serde_json::from_str::<Sequence>("9223372036854775807").unwrap(), Sequence::MAX);
        for text in ["9223372036854775808", "-1", "1.5", "null"] {
            assert!(serde_json::from_str::<Sequence>(text).is_err(), "{text}");
        }
    }
}
