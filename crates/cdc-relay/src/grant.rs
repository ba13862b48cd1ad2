use std::cmp::Ordering;

use cdc_model::{Epoch, Mark, ObjectId, Position, Refusal, Sequence};
use serde::{Deserialize, Serialize};

use crate::{Inbound, Receiver};

/// An object whose log was restored asks its parent, the witness of what it had sent, for a new epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GrantRequest {
    /// Who asks.
    pub sender: ObjectId,
    /// The epoch that has ended.
    pub ended: Epoch,
    /// The newest position of the restored log.
    pub head: Position,
    /// Drawn for this request and stored before it is sent: the new epoch's nonce. A repeat carries the same.
    pub nonce: u64,
}

/// A new epoch, and where it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Granted {
    /// The epoch.
    pub epoch: Epoch,
    /// The last position that both epochs share. The asker compares the digest with its own there before it writes;
    /// what its old epoch had beyond is not part of the new one.
    pub fork: Position,
}

impl Receiver {
    /// Decides about a new epoch of a child: the link to store durably before answering, and the answer.
    ///
    /// The fork is the link's mark: never before it, because what was taken stays taken, and never behind it, because
    /// nobody but the asker can vouch for more. A repeat gives the same again while nothing of the new epoch was taken.
    ///
    /// # Errors
    ///
    /// [`Refusal::NotAtMark`] when the asker's log ends before the mark: it has to be restored up to there first.
    /// [`Refusal::Diverged`] when the two differ at the mark or the epoch is another of the same number,
    /// [`Refusal::Fenced`] when it has ended before, [`Refusal::NotGranted`] when it was never granted here,
    /// [`Refusal::ParentLostState`] when nothing was taken, or a refusal of the chain. Nothing may be stored then.
    pub fn grant(
        &self,
        link: Option<&Inbound>,
        request: &GrantRequest,
    ) -> Result<(Inbound, Granted), Refusal> {
        self.check_chain(&request.sender)?;
        let (ended, head) = (request.ended, request.head);
        let lost = || Refusal::ParentLostState { after: head.sequence };
        let link = *link.ok_or_else(lost)?;
        let mark = link.mark.ok_or_else(lost)?;
        let number = ended.number.checked_add(1);
        let number = number
            .ok_or_else(|| Refusal::Malformed { reason: "no epoch follows the last number".to_owned() })?;
        let epoch = Epoch { number, nonce: request.nonce };
        if mark.epoch != ended && mark.epoch != epoch {
            return Err(match ended.number.cmp(&mark.epoch.number) {
                Ordering::Less => Refusal::Fenced { epoch: ended, current: mark.epoch },
                Ordering::Equal => Refusal::Diverged { at: Sequence::ZERO },
                Ordering::Greater => Refusal::NotGranted { epoch: ended, current: mark.epoch },
            });
        }
        if head.sequence < mark.sequence {
            return Err(Refusal::NotAtMark { after: head.sequence, mark: mark.sequence });
        }
        let fork = mark.position();
        if head.sequence == fork.sequence && head.digest != fork.digest {
            return Err(Refusal::Diverged { at: fork.sequence });
        }
        Ok((Inbound { mark: Some(Mark::at(epoch, fork)), ..link }, Granted { epoch, fork }))
    }
}
