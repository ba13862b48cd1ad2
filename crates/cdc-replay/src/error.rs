use cdc_model::{Cursor, Remedy, Sequence};

/// What an operation of this crate gives back.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a replay did not go on. The batches before it stand; a retry goes on after the last one's cursor.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A tier could not be read. Nothing was skipped: the same call may be tried again.
    #[error("the {tier} tier could not be read")]
    Source {
        /// `cold` or `hot`.
        tier: &'static str,
        /// The tier's own error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The position, or the time, lies before the oldest readable record. The history is complete only from `floor`.
    #[error("nothing after {after} can be read before {floor}, the oldest readable sequence")]
    BelowFloor {
        /// The position asked for.
        after: Sequence,
        /// The oldest readable sequence.
        floor: Sequence,
    },
    /// The position lies beyond the newest record.
    #[error("sequence {asked} lies beyond the end of the log ({tail})")]
    BeyondTail {
        /// The position asked for.
        asked: Sequence,
        /// The newest sequence.
        tail: Sequence,
    },
    /// No tier holds the positions between two records.
    #[error("no tier holds what lies between {after} and {next}")]
    Gap {
        /// The last position before the gap.
        after: Sequence,
        /// The first position behind it.
        next: Sequence,
    },
    /// The cursor was issued by a life of the log that ended before the cursor's position.
    #[error("cursor {cursor} is of an epoch that has ended at {fork} or before it")]
    Rewound {
        /// The cursor.
        cursor: Cursor,
        /// The last readable position that the cursor's epoch shares with this log; just below the floor when
        /// there is none.
        fork: Sequence,
    },
    /// The tiers, or the cursor and the log, hold different pasts under the same position.
    #[error("the record at sequence {at} is not the same everywhere")]
    Diverged {
        /// The position compared.
        at: Sequence,
    },
    /// A tier answered what a [`Source`](crate::Source) must not answer.
    #[error("the {tier} tier answered wrongly at sequence {at}: {reason}")]
    Contract {
        /// `cold` or `hot`.
        tier: &'static str,
        /// Where.
        at: Sequence,
        /// What is wrong.
        reason: &'static str,
    },
    /// A record does not decode.
    #[error("the record at sequence {at} does not decode")]
    Record {
        /// The record's place.
        at: Sequence,
        /// The decoder's error.
        source: cdc_model::Error,
    },
    /// Documents cannot be folded from only some of their operations.
    #[error("a fold needs every operation of a document; filter by collection or source only")]
    FoldByOperation,
}

impl Error {
    /// What to do about it.
    #[must_use]
    pub const fn remedy(&self) -> Remedy {
        match self {
            Self::Source { .. } => Remedy::Retry,
            Self::BeyondTail { .. } | Self::FoldByOperation => Remedy::FixRequest,
            Self::BelowFloor { .. }
            | Self::Gap { .. }
            | Self::Rewound { .. }
            | Self::Diverged { .. }
            | Self::Record { .. } => Remedy::Restore,
            Self::Contract { .. } => Remedy::Bug,
        }
    }

    /// The position after which a reader that accepts the loss can go on.
    #[must_use]
    pub fn go_on_after(&self) -> Option<Sequence> {
        match self {
            Self::BelowFloor { floor: next, .. } | Self::Gap { next, .. } => Some(before(*next)),
            Self::BeyondTail { tail: after, .. } | Self::Rewound { fork: after, .. } => Some(*after),
            Self::Record { at, .. } => Some(*at),
            Self::Source { .. } | Self::Diverged { .. } | Self::Contract { .. } | Self::FoldByOperation => {
                None
            }
        }
    }
}

/// The position just before this one.
pub(crate) fn before(sequence: Sequence) -> Sequence {
    Sequence::new(sequence.get().saturating_sub(1))
}
