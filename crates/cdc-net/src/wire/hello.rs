use cdc_model::{Epoch, ObjectId, Position, Sequence};
use cdc_relay::Hello;
use serde::{Deserialize, Serialize};

use super::{VERSION, WireError};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    to: ObjectId,
    hello: Said,
}

/// [`Hello`], with the session as text: a random number does not survive readers that count in doubles.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Said {
    sender: ObjectId,
    generation: u64,
    session: String,
    epoch: Epoch,
    acked: Sequence,
    tail: Position,
    floor: Sequence,
}

pub(super) fn encode(to: &ObjectId, hello: &Hello) -> Result<Vec<u8>, WireError> {
    let hello = Said {
        sender: hello.sender.clone(),
        generation: hello.generation,
        session: format!("{:016x}", hello.session),
        epoch: hello.epoch,
        acked: hello.acked,
        tail: hello.tail,
        floor: hello.floor,
    };
    Ok(super::encode(&Document { version: VERSION, to: to.clone(), hello }))
}

pub(super) fn decode(text: &[u8]) -> Result<(ObjectId, Hello), WireError> {
    let Document { to, hello, .. } = super::decode("hello", text, |document: &Document| document.version)?;
    let hello = Hello {
        sender: hello.sender,
        generation: hello.generation,
        session: session(&hello.session)?,
        epoch: hello.epoch,
        acked: hello.acked,
        tail: hello.tail,
        floor: hello.floor,
    };
    Ok((to, hello))
}

fn session(text: &str) -> Result<u64, WireError> {
    let number = u64::from_str_radix(text, 16).ok().filter(|number| format!("{number:016x}") == text);
    number.ok_or(WireError::Contradiction { reason: "a session is 16 lower-case hex digits" })
}
