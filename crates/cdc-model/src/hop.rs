use serde::{Deserialize, Serialize};

use crate::{Epoch, Mark, ObjectId, Position, Record, Sequence, mutant};

/// A range `(after, through]` of a sender's positions, with the records in it that passed its filter.
///
/// Positions count, not records: an empty batch whose `through` is beyond `after` moves the receiver's mark over
/// what was filtered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Who sends.
    pub sender: ObjectId,
    /// The link's generation, granted at its handshake; older ones are refused.
    pub generation: u64,
    /// The epoch of the sender's log.
    pub epoch: Epoch,
    /// Where the receiver's mark must be.
    pub after: Position,
    /// Where the mark goes.
    pub through: Position,
    /// The records in between that passed, strictly increasing.
    pub records: Vec<Record>,
    /// How many positions of the range a filter or stage kept back: with the records they fill it, so that a record
    /// that is lost on the way is not taken for a filtered one.
    pub kept_back: u64,
}

impl Batch {
    /// Whether no position of the range was filtered away.
    #[must_use]
    pub const fn is_dense(&self) -> bool {
        self.kept_back == 0
    }

    /// The mark once this batch is taken.
    #[must_use]
    pub const fn mark(&self) -> Mark {
        Mark::at(self.epoch, self.through)
    }
}

/// Why a receiver did not take a batch or handshake. Each says what the sender does next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "refusal")]
#[non_exhaustive]
pub enum Refusal {
    /// The batch does not begin at the mark. Re-cut from the mark of the answer, after comparing its digest.
    #[error("the batch begins after {after}, the mark is {mark}")]
    NotAtMark {
        /// Where the batch begins.
        after: Sequence,
        /// Where the receiver is.
        mark: Sequence,
    },
    /// Sender and receiver disagree about the past at this position. The link stops.
    #[error("the two logs differ at or before sequence {at}")]
    Diverged {
        /// The position compared.
        at: Sequence,
    },
    /// The batch is of an epoch that has ended. The link stops.
    #[error("epoch {epoch} has ended, the receiver knows {current}")]
    Fenced {
        /// The batch's epoch.
        epoch: Epoch,
        /// The receiver's.
        current: Epoch,
    },
    /// The batch is of an epoch that nobody granted. The link stops.
    #[error("epoch {epoch} was not granted, the receiver knows {current}")]
    NotGranted {
        /// The batch's epoch.
        epoch: Epoch,
        /// The receiver's.
        current: Epoch,
    },
    /// The receiver holds nothing of a link that has sent before. The link stops until an operator decides.
    #[error("the receiver holds no mark for a link that begins after {after}")]
    ParentLostState {
        /// Where the batch begins.
        after: Sequence,
    },
    /// A newer link of the same sender has replaced this one.
    #[error("link generation {generation} was replaced by {current}")]
    Superseded {
        /// The batch's generation.
        generation: u64,
        /// The receiver's.
        current: u64,
    },
    /// The receiver is the sender, or one of the sender's descendants.
    #[error("the link would close a circle: {}", circle.iter().map(ObjectId::short).collect::<Vec<_>>().join(" -> "))]
    Cycle {
        /// The circle, from the receiver up to the receiver.
        circle: Vec<ObjectId>,
    },
    /// The chain of objects would be too long. The link stops.
    #[error("the chain would be deeper than {depth_max} objects")]
    TooDeep {
        /// The most objects a chain may have.
        depth_max: usize,
    },
    /// The batch contradicts itself. A bug or an attack; the link stops.
    #[error("the batch is malformed: {reason}")]
    Malformed {
        /// What is wrong.
        reason: String,
    },
    /// The receiver takes nothing just now. Try again later.
    #[error("the receiver is busy")]
    Busy,
    /// The receiver does not know this object.
    #[error("{object} is not known here")]
    UnknownObject {
        /// The object asked for.
        object: ObjectId,
    },
}

impl Refusal {
    /// Whether sending goes on by itself: after a re-cut or a pause. All other refusals stop the link and are
    /// reported.
    #[must_use]
    pub const fn is_passing(&self) -> bool {
        matches!(self, Self::NotAtMark { .. } | Self::Busy)
    }
}

/// The one admission rule of every hop: whether a receiver at `mark` applies `batch`.
///
/// `mark` is `None` for a link that has never delivered; then the batch must begin at the log's very start. The
/// caller applies the records and moves the mark to [`Batch::mark`] in one transaction.
///
/// # Errors
///
/// The [`Refusal`] to answer with. Nothing may be applied then.
pub fn admit(batch: &Batch, mark: Option<&Mark>) -> Result<(), Refusal> {
    check_shape(batch)?;
    let Some(mark) = mark else {
        return match batch.after {
            Position::START => Ok(()),
            after => Err(Refusal::ParentLostState { after: after.sequence }),
        };
    };
    if batch.epoch != mark.epoch {
        return Err(match batch.epoch.number.cmp(&mark.epoch.number) {
            std::cmp::Ordering::Less => Refusal::Fenced { epoch: batch.epoch, current: mark.epoch },
            std::cmp::Ordering::Equal => Refusal::Diverged { at: Sequence::ZERO },
            std::cmp::Ordering::Greater => Refusal::NotGranted { epoch: batch.epoch, current: mark.epoch },
        });
    }
    let overlaps = batch.after.sequence < mark.sequence && mark.sequence < batch.through.sequence;
    if (overlaps && mutant!("overlap-trimmed"))
        || (batch.through.sequence < mark.sequence && mutant!("mark-taken-back"))
    {
        return Ok(());
    }
    if batch.after.sequence != mark.sequence {
        return Err(Refusal::NotAtMark { after: batch.after.sequence, mark: mark.sequence });
    }
    if batch.after.digest != mark.digest && !mutant!("digest-ignored") {
        return Err(Refusal::Diverged { at: mark.sequence });
    }
    Ok(())
}

/// What a batch must satisfy by itself: ordered records inside its range, and a digest chain where it is dense.
fn check_shape(batch: &Batch) -> Result<(), Refusal> {
    let malformed = |reason: &str| Err(Refusal::Malformed { reason: reason.to_owned() });
    if batch.through.sequence < batch.after.sequence {
        return malformed("it ends before it begins");
    }
    let records = u64::try_from(batch.records.len()).unwrap_or(u64::MAX);
    if records.checked_add(batch.kept_back) != Some(batch.through.sequence.since(batch.after.sequence)) {
        return malformed("its records and those kept back do not fill its range");
    }
    if batch.through.sequence == batch.after.sequence && batch.through.digest != batch.after.digest {
        return malformed("an empty range changes the digest");
    }
    let mut last = batch.after.sequence;
    let mut digest = batch.after.digest;
    let dense = batch.is_dense();
    for record in &batch.records {
        if record.sequence <= last || record.sequence > batch.through.sequence {
            return malformed("its records are not strictly increasing inside its range");
        }
        if record.is_own()
            && (record.origin.source() != &batch.sender || record.origin_sequence != record.sequence)
        {
            return malformed("a record without a route is not the sender's own");
        }
        last = record.sequence;
        if dense {
            digest = record.digest(digest);
        }
    }
    if dense && digest != batch.through.digest {
        return malformed("its digest does not follow from its records");
    }
    Ok(())
}

/// What a receiver answers to every batch and handshake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// The receiver's mark now, durable; `None` when it has taken nothing of this link.
    pub mark: Option<Mark>,
    /// The sender's position up to which everything is settled: stored at the root and archived on the way.
    pub settled: Sequence,
    /// The link's generation at the receiver.
    pub generation: u64,
    /// The receiver's ancestors, nearest first, without the receiver.
    pub ancestors: Vec<ObjectId>,
    /// Why the request was not applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Refusal>,
}

impl Answer {
    /// Of a receiver that takes nothing just now, and says nothing of what it has.
    #[must_use]
    pub const fn busy() -> Self {
        Self {
            mark: None,
            settled: Sequence::ZERO,
            generation: 0,
            ancestors: Vec::new(),
            refusal: Some(Refusal::Busy),
        }
    }
}

/// What happened to the records a hop received; the sums must agree.
///
/// received = stored + duplicate + looped + late + refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Received {
    /// Records that arrived in applied or refused batches.
    pub received: u64,
    /// Records appended to the receiver's log.
    pub stored: u64,
    /// Records at or below their origin's mark.
    pub duplicate: u64,
    /// Records whose route already holds the receiver.
    pub looped: u64,
    /// Records from a declared hole, kept as dead letters.
    pub late: u64,
    /// Records of refused batches.
    pub refused: u64,
}

impl Received {
    /// Whether the sums agree.
    #[must_use]
    pub const fn is_conserved(&self) -> bool {
        self.received == self.stored + self.duplicate + self.looped + self.late + self.refused
    }
}
