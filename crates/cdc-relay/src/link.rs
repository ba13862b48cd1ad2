use cdc_model::{Epoch, Mark, ObjectId, Position, Sequence};
use serde::{Deserialize, Serialize};

use crate::Error;

/// Most objects in a chain, the root and the deepest child included.
pub const DEPTH_MAX: usize = 32;

/// What a sender says first: who it is, which link this is and what it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hello {
    /// Who sends.
    pub sender: ObjectId,
    /// The link's generation: one more than the last the sender has stored, and stored before it is said.
    pub generation: u64,
    /// Drawn when the sender was made. A repeat of this handshake carries the same, a clone of the sender another.
    pub session: u64,
    /// The epoch of the sender's log.
    pub epoch: Epoch,
    /// What the sender has been told is stored of this link.
    pub acked: Sequence,
    /// The newest durable position of the sender's log.
    pub tail: Position,
    /// The oldest sequence the sender can still read, for whoever must decide about a lost mark.
    pub floor: Sequence,
}

/// A link as its sender stores it, in the database of the sender's log.
///
/// Store it when [`Action::Save`](crate::Action::Save) asks, and whenever rows are pruned on the strength of
/// `settled`. `acked` and `settled` may be stored late: they are asked for again after a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outbound {
    /// The newest generation that was ever said.
    pub generation: u64,
    /// Where the link begins by declaration: what lies before is passed over like filtered positions.
    pub begin: Position,
    /// The receiver's mark when last compared: everything up to here is on its disk.
    pub acked: Position,
    /// Everything up to here is stored at the root and archived on the way.
    pub settled: Sequence,
}

impl Outbound {
    /// A link that begins at the very start of the log.
    pub const NEW: Self = Self::beginning_at(Position::START);

    /// A link that begins after `begin`, as an explicit act: what lies before went another way (after
    /// re-parenting), or is a declared hole.
    #[must_use]
    pub const fn beginning_at(begin: Position) -> Self {
        Self { generation: 0, begin, acked: Position::START, settled: Sequence::ZERO }
    }

    /// The same link begun anew after `begin`, as an explicit act: the receiver was rebuilt and takes everything
    /// after it again. `settled` stays, for what was settled is archived.
    #[must_use]
    pub const fn begun_anew_at(self, begin: Position) -> Self {
        Self { begin, acked: Position::START, ..self }
    }

    /// The same link taken over, as an explicit act: from whoever was granted `generation`, or by a restored log
    /// whose own generation is older.
    #[must_use]
    pub const fn succeeding(self, generation: u64) -> Self {
        Self { generation, ..self }
    }

    /// The same link after its receiver was rewound to `mark`, as an explicit act: what lies after it is sent again.
    #[must_use]
    pub const fn rewound_to(self, mark: Position) -> Self {
        Self { acked: mark, ..self }
    }
}

/// A link as its receiver stores it, in the database of the receiver's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Inbound {
    /// The link's generation; batches of older ones are refused.
    pub generation: u64,
    /// The session that generation was granted to.
    pub session: u64,
    /// The last position durably taken.
    pub mark: Option<Mark>,
}

impl Inbound {
    /// The same link in a new epoch of the sender, as an explicit act: the sender was restored from what this
    /// receiver holds, so its new epoch begins at the mark.
    ///
    /// # Errors
    ///
    /// [`Error::NothingToGrant`] when the link has no mark, [`Error::Setting`] when the epoch is not a later one.
    pub fn granted(self, epoch: Epoch) -> Result<Self, Error> {
        let mark = self.mark.ok_or(Error::NothingToGrant)?;
        if epoch.number <= mark.epoch.number {
            return Err(Error::Setting {
                name: "epoch",
                value: epoch.to_string(),
                expected: "later than the epoch of the mark",
            });
        }
        Ok(Self { mark: Some(Mark { epoch, ..mark }), ..self })
    }
}
