use cdc_model::{Epoch, ObjectId, Position, Sequence};
use cdc_relay::Hello;
use serde::{Deserialize, Serialize};

use super::{VERSION, WireError, random};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    to: ObjectId,
    hello: Said,
}

/// [`Hello`], with the session as text.
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

pub(super) fn encode(to: &ObjectId, hello: &Hello) -> Vec<u8> {
    let hello = Said {
        sender: hello.sender.clone(),
        generation: hello.generation,
        session: random::encode(hello.session),
        epoch: hello.epoch,
        acked: hello.acked,
        tail: hello.tail,
        floor: hello.floor,
    };
    super::encode(&Document { version: VERSION, to: to.clone(), hello })
}

pub(super) fn decode(text: &[u8]) -> Result<(ObjectId, Hello), WireError> {
    let Document { to, hello, .. } = super::decode("hello", text, |document: &Document| document.version)?;
    let hello = Hello {
        sender: hello.sender,
        generation: hello.generation,
        session: random::decode(&hello.session)?,
        epoch: hello.epoch,
        acked: hello.acked,
        tail: hello.tail,
        floor: hello.floor,
    };
    Ok((to, hello))
}
