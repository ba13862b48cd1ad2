use cdc_model::{Position, Refusal, Remedy, Sequence};

use crate::DEPTH_MAX;

/// Why a link does not go on by itself. It is reported, local writes go on, and nothing was skipped or doubled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Stop {
    /// The receiver holds more of this log than the log itself: it was restored from an older copy.
    #[error("the log ends at {tail}, the receiver has taken it up to {mark}: the log was rewound")]
    Rewound {
        /// The log's newest durable sequence.
        tail: Sequence,
        /// The receiver's mark.
        mark: Sequence,
    },
    /// Sender and receiver disagree about the past: one of them was restored and went on differently, or this log
    /// is a clone.
    #[error("the two logs differ at or before sequence {at}")]
    Diverged {
        /// The position compared.
        at: Sequence,
    },
    /// The receiver holds less than it once acknowledged: it was restored from an older copy. Going on is an
    /// explicit act, [`Outbound::rewound_to`](crate::Outbound::rewound_to).
    #[error("the receiver acknowledged {acked} and now holds only {}: it was rewound", mark.sequence)]
    ReceiverRewound {
        /// What it acknowledged.
        acked: Sequence,
        /// What it holds; compared and equal.
        mark: Position,
    },
    /// Rows after the receiver's mark were pruned here, so the link cannot go on without a declared hole.
    #[error("the receiver is at {mark}, the log is readable from {floor}")]
    BelowFloor {
        /// The receiver's mark.
        mark: Sequence,
        /// The oldest readable sequence.
        floor: Sequence,
    },
    /// The log changed under the running link: rows that were durable are gone, differ or cannot be read.
    #[error("the log changed at {at} while the link was running")]
    LogChanged {
        /// The first sequence found changed.
        at: Sequence,
    },
    /// The chain above is deeper than [`DEPTH_MAX`] allows.
    #[error("the chain has {depth} objects from here to the root, at most {DEPTH_MAX} are allowed")]
    TooDeep {
        /// Objects from the sender to the root.
        depth: usize,
    },
    /// The receiver's answer contradicts the protocol.
    #[error("the receiver's answer is malformed: {reason}")]
    BadAnswer {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The receiver refused for good.
    #[error("the receiver refused")]
    Refused(#[source] Refusal),
    /// The link was ended from outside: detached or shut down.
    #[error("the link was ended")]
    Ended,
}

impl Stop {
    /// What to do about it.
    #[must_use]
    pub const fn remedy(&self) -> Remedy {
        match self {
            Self::Rewound { .. }
            | Self::Diverged { .. }
            | Self::ReceiverRewound { .. }
            | Self::BelowFloor { .. }
            | Self::LogChanged { .. } => Remedy::Restore,
            Self::TooDeep { .. } | Self::Ended => Remedy::FixRequest,
            Self::BadAnswer { .. } => Remedy::Bug,
            Self::Refused(refusal) => refusal.remedy(),
        }
    }
}
