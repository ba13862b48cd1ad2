use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Cursor, Error, Timestamp};

/// A subscriber's saved cursor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Checkpoint {
    /// Whose it is.
    pub subscriber_id: String,
    /// The last record the subscriber has taken.
    pub cursor: Cursor,
    /// When it was first saved.
    pub created_at: Timestamp,
    /// When it was last saved.
    pub updated_at: Timestamp,
    /// Whatever the subscriber keeps beside it; kept when a save leaves it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<serde_json::Value>,
    /// Counts forced moves.
    #[serde(default)]
    pub revision: u64,
}

/// A subscriber's checkpoint, and how far it is behind the end of the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Subscriber {
    /// Its checkpoint.
    #[serde(flatten)]
    pub checkpoint: Checkpoint,
    /// Records that it has not taken.
    pub lag: u64,
    /// When the oldest of them was appended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_since: Option<Timestamp>,
}

/// Who may save a checkpoint: drawn at random for whoever takes it over, and compared for equality only.
///
/// Its text is 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FenceToken([u8; 16]);

impl FenceToken {
    /// The token with these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for FenceToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl FromStr for FenceToken {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let token = u128::from_str_radix(text, 16).ok().map(|number| Self(number.to_be_bytes()));
        token
            .filter(|token| token.to_string() == text)
            .ok_or_else(|| Error::parse(text, "a fencing token (32 hexadecimal digits)"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fencing_token_has_one_text() {
        let token = FenceToken::from_bytes(*b"0123456789abcdef");
        assert_eq!(token.to_string(), "30313233343536373839616263646566");
        assert_eq!(token.to_string().parse::<FenceToken>().unwrap(), token);
        for text in ["", "30", "3031323334353637383961626364656G", "+0313233343536373839616263646566"] {
            assert!(matches!(text.parse::<FenceToken>(), Err(Error::Parse { .. })), "{text}");
        }
    }
}
