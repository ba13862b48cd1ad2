//! Random numbers as text: they do not survive readers that count in doubles.

use super::WireError;

pub(super) fn encode(number: u64) -> String {
    format!("{number:016x}")
}

pub(super) fn decode(text: &str) -> Result<u64, WireError> {
    let number = u64::from_str_radix(text, 16).ok().filter(|number| encode(*number) == text);
    number.ok_or(WireError::Contradiction { reason: "a random number is 16 lower-case hex digits" })
}
