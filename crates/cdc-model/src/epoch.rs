use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Error;

/// One life of a log. Sequences are never reused within an epoch.
///
/// The nonce is drawn at first open, so that two logs that both call themselves epoch 1 are told apart. Text and
/// wire form: `1-00c0ffee00c0ffee`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Epoch {
    /// Counts up from 1.
    pub number: u32,
    /// Random, drawn once.
    pub nonce: u64,
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:016x}", self.number, self.nonce)
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Epoch {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parsed = text.split_once('-').and_then(|(number, nonce)| {
            let nonce = u64::from_str_radix(nonce, 16).ok()?;
            Some(Self { number: number.parse().ok()?, nonce })
        });
        parsed
            .filter(|epoch| epoch.to_string() == text)
            .ok_or_else(|| Error::parse(text, "an epoch such as 1-00c0ffee00c0ffee"))
    }
}

impl TryFrom<String> for Epoch {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Epoch> for String {
    fn from(epoch: Epoch) -> Self {
        epoch.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_has_one_text() {
        let epoch = Epoch { number: 3, nonce: 0xc0ffee };
        assert_eq!(epoch.to_string(), "3-0000000000c0ffee");
        assert_eq!(epoch.to_string().parse::<Epoch>().unwrap(), epoch);
        for text in
            ["", "3", "3-", "3-c0ffee", "03-0000000000c0ffee", "3-0000000000C0FFEE", "+3-0000000000c0ffee"]
        {
            assert!(matches!(text.parse::<Epoch>(), Err(Error::Parse { .. })), "{text}");
        }
    }
}
