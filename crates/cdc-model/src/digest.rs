use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{Xxh3Default, xxh3_128};

use crate::{Epoch, Error, Sequence, Timestamp};

/// Rows up to this size are joined on the stack and hashed in one go, which is several times faster than streaming.
const SHORT_ROW_BYTES: usize = 1024;

/// Most rows are no longer than this; clearing twice the bytes on the stack costs 3% of an append.
const USUAL_ROW_BYTES: usize = 512;

/// The running digest of a log at one position: xxh3-128 over all rows up to it.
///
/// It finds divergence, not forgery; authentication does that. Text and wire form: 32 hex digits.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 16]);

impl Ord for Digest {
    /// As of its bytes, compared as one number: an append looks its origin up by this.
    fn cmp(&self, other: &Self) -> Ordering {
        u128::from_be_bytes(self.0).cmp(&u128::from_be_bytes(other.0))
    }
}

impl PartialOrd for Digest {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Digest {
    /// The digest before the first row.
    pub const ZERO: Self = Self([0; 16]);

    /// The digest of some bytes by themselves.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(xxh3_128(bytes).to_be_bytes())
    }

    /// The digest after one more row: `xxh3-128(self, position, timestamp, row…)`.
    ///
    /// `row` is given in parts so that nothing is copied together first; their concatenation counts.
    #[must_use]
    pub fn then(self, position: Sequence, timestamp: Timestamp, row: &[&[u8]]) -> Self {
        let position = position.get().to_be_bytes();
        let timestamp = timestamp.get().to_be_bytes();
        let head: [&[u8]; 3] = [&self.0, &position, &timestamp];
        let parts = || head.iter().chain(row).copied();
        let len: usize = parts().map(<[u8]>::len).sum();
        if len <= USUAL_ROW_BYTES {
            return Self::of_joined::<USUAL_ROW_BYTES>(parts(), len);
        }
        if len <= SHORT_ROW_BYTES {
            return Self::of_joined::<SHORT_ROW_BYTES>(parts(), len);
        }
        let mut hasher = Xxh3Default::new();
        parts().for_each(|part| hasher.update(part));
        Self(hasher.digest128().to_be_bytes())
    }

    /// The digest of parts of `len` bytes together, at most `N`.
    fn of_joined<'p, const N: usize>(parts: impl Iterator<Item = &'p [u8]>, len: usize) -> Self {
        let mut joined = [0_u8; N];
        let mut rest = joined.as_mut_slice();
        for part in parts {
            let (here, behind) = rest.split_at_mut(part.len());
            here.copy_from_slice(part);
            rest = behind;
        }
        Self::of(joined.split_at(len).0)
    }

    /// A digest from its bytes as stored.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes as stored.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let number = u128::from_str_radix(text, 16).ok().map(|n| Self(n.to_be_bytes()));
        number
            .filter(|digest| digest.to_string() == text)
            .ok_or_else(|| Error::parse(text, "a digest (32 lower-case hex digits)"))
    }
}

impl TryFrom<String> for Digest {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

/// A position of a log with the running digest at it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The last sequence covered.
    pub sequence: Sequence,
    /// The running digest at it.
    pub digest: Digest,
}

impl Position {
    /// Before the first row of every log.
    pub const START: Self = Self { sequence: Sequence::ZERO, digest: Digest::ZERO };
}

/// The last position a receiver has durably taken, of which epoch, and the sender's digest there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The sender's epoch.
    pub epoch: Epoch,
    /// The last sequence taken.
    pub sequence: Sequence,
    /// The sender's running digest at it.
    pub digest: Digest,
}

impl Mark {
    /// The mark of a receiver that has taken nothing of this epoch yet.
    #[must_use]
    pub const fn start(epoch: Epoch) -> Self {
        Self::at(epoch, Position::START)
    }

    /// The mark at a position.
    #[must_use]
    pub const fn at(epoch: Epoch, position: Position) -> Self {
        Self { epoch, sequence: position.sequence, digest: position.digest }
    }

    /// Its position without the epoch.
    #[must_use]
    pub const fn position(&self) -> Position {
        Position { sequence: self.sequence, digest: self.digest }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_covers_position_time_and_every_byte_and_ignores_the_cut_into_parts() {
        let at = |n, t, row: &[&[u8]]| Digest::ZERO.then(Sequence::new(n), Timestamp::new(t), row);
        let base = at(1, 2, &[b"ab", b"c"]);
        assert_eq!(base, at(1, 2, &[b"abc"]));
        for other in [at(2, 2, &[b"abc"]), at(1, 3, &[b"abc"]), at(1, 2, &[b"abd"]), at(1, 2, &[b"ab"])] {
            assert_ne!(base, other);
        }
        assert_ne!(base, base.then(Sequence::new(1), Timestamp::new(2), &[b"abc"]));
    }

    #[test]
    fn short_and_long_rows_hash_as_the_same_function() {
        let around = |limit: usize| [limit - 33, limit - 32, limit - 31];
        let limits = [around(USUAL_ROW_BYTES), around(SHORT_ROW_BYTES)];
        for len in limits.into_iter().flatten().chain([0, 1, 400, 5000]) {
            let row = vec![7_u8; len];
            let mut joined = vec![0; 16];
            joined.extend_from_slice(&1_u64.to_be_bytes());
            joined.extend_from_slice(&2_i64.to_be_bytes());
            joined.extend_from_slice(&row);
            let digest = Digest::ZERO.then(Sequence::new(1), Timestamp::new(2), &[&row]);
            assert_eq!(digest, Digest::of(&joined), "{len}");
        }
    }

    #[test]
    fn the_digest_of_known_bytes_never_changes() {
        let digest = Digest::ZERO.then(Sequence::new(1), Timestamp::new(2), &[b"abc"]);
        assert_eq!(digest.to_string(), "317e3e3122d8369b7726c7091c3f3409");
        assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
        assert!(matches!("0".parse::<Digest>(), Err(Error::Parse { .. })));
    }
}
