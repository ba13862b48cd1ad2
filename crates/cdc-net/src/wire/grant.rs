use cdc_model::{Epoch, ObjectId, Position};
use cdc_relay::GrantRequest;
use serde::{Deserialize, Serialize};

use super::{VERSION, WireError, random};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    to: ObjectId,
    grant: Asked,
}

/// [`GrantRequest`], with the nonce as text.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    sender: ObjectId,
    ended: Epoch,
    head: Position,
    nonce: String,
}

pub(super) fn encode(to: &ObjectId, grant: &GrantRequest) -> Vec<u8> {
    let grant = Asked {
        sender: grant.sender.clone(),
        ended: grant.ended,
        head: grant.head,
        nonce: random::encode(grant.nonce),
    };
    super::encode(&Document { version: VERSION, to: to.clone(), grant })
}

pub(super) fn decode(text: &[u8]) -> Result<(ObjectId, GrantRequest), WireError> {
    let Document { to, grant, .. } = super::decode("grant", text, |document: &Document| document.version)?;
    let grant = GrantRequest {
        sender: grant.sender,
        ended: grant.ended,
        head: grant.head,
        nonce: random::decode(&grant.nonce)?,
    };
    Ok((to, grant))
}
