use cdc_model::{Answer, Mark, ObjectId, Refusal, Sequence};
use serde::{Deserialize, Serialize};

use super::{VERSION, WireError};

/// [`Answer`] with its version.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Answered {
    version: u32,
    mark: Option<Mark>,
    settled: Sequence,
    generation: u64,
    ancestors: Vec<ObjectId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refusal: Option<Refusal>,
}

/// Why a request got no answer of its object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "failure", deny_unknown_fields)]
#[non_exhaustive]
pub enum Failure {
    /// Nobody serves the object here, or not yet.
    UnknownObject {
        /// The object asked for.
        object: ObjectId,
    },
    /// More is under way than is served at once.
    Busy,
    /// The object went away before it answered, or could not store the request.
    NoAnswer,
    /// The request is beyond a limit.
    TooLarge {
        /// Which.
        reason: String,
    },
    /// The request is not one, or not of a version known here.
    BadRequest {
        /// What is wrong with it.
        reason: String,
    },
    /// The request did not arrive in time.
    TooSlow,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Failed {
    version: u32,
    failure: Failure,
}

/// The text of an answer.
#[must_use]
pub fn encode_answer(answer: Answer) -> Vec<u8> {
    let Answer { mark, settled, generation, ancestors, refusal } = answer;
    super::encode(&Answered { version: VERSION, mark, settled, generation, ancestors, refusal })
}

/// An answer.
///
/// # Errors
///
/// Whatever is wrong with it.
pub fn decode_answer(text: &[u8]) -> Result<Answer, WireError> {
    let Answered { mark, settled, generation, ancestors, refusal, .. } =
        super::decode("answer", text, |document: &Answered| document.version)?;
    Ok(Answer { mark, settled, generation, ancestors, refusal })
}

/// The text of a failure.
#[must_use]
pub fn encode_failure(failure: Failure) -> Vec<u8> {
    super::encode(&Failed { version: VERSION, failure })
}

/// A failure.
///
/// # Errors
///
/// Whatever is wrong with it.
pub fn decode_failure(text: &[u8]) -> Result<Failure, WireError> {
    super::decode("failure", text, |document: &Failed| document.version).map(|document| document.failure)
}
