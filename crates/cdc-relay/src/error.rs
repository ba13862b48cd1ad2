use cdc_model::{Refusal, Sequence};

use crate::Stop;

/// What went wrong in a machine's own inputs. What the other side says is a [`Refusal`] or a [`Stop`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting of a link or stage is outside its limits.
    #[error("`{name}` is {value}, it must be {expected}")]
    Setting {
        /// Its name, as written in JSON.
        name: &'static str,
        /// What was given.
        value: String,
        /// What is accepted.
        expected: &'static str,
    },
    /// The log that was read has no row where one must be. Sequences are dense.
    #[error("the log continues at {found} where {expected} must follow")]
    Gap {
        /// The sequence that must come next.
        expected: Sequence,
        /// The one that came.
        found: Sequence,
    },
    /// A row of the log does not decode.
    #[error("the row at {at} does not decode")]
    Row {
        /// Its sequence.
        at: Sequence,
        /// The decoder's error.
        source: cdc_model::Error,
    },
    /// A stage could not read its state. Nothing of the pass may be kept; run it again.
    #[error("stage `{stage}` could not read its state")]
    StageState {
        /// The stage.
        stage: String,
        /// Why reading failed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A link that has no mark cannot be given a new epoch.
    #[error("the link has taken nothing, there is no mark to grant an epoch from")]
    NothingToGrant,
}

/// What to do about an [`Error`] or a [`Stop`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Try the same again later.
    Retry,
    /// Another link or epoch has taken over; this one must not go on.
    Fenced,
    /// Change what was asked: a setting, a parent, a filter.
    FixRequest,
    /// Data is gone or differs; an operator restores, rebuilds or declares a hole.
    Restore,
    /// A mistake in this project or a peer that does not speak the protocol.
    Bug,
}

impl Error {
    /// What to do about it.
    #[must_use]
    pub const fn remedy(&self) -> Remedy {
        match self {
            Self::Setting { .. } | Self::NothingToGrant => Remedy::FixRequest,
            Self::Gap { .. } | Self::Row { .. } => Remedy::Restore,
            Self::StageState { .. } => Remedy::Retry,
        }
    }

    /// Why a link must stop, when a cut of its log failed in this way.
    #[must_use]
    pub const fn stop(&self) -> Option<Stop> {
        match self {
            Self::Gap { expected: at, .. } | Self::Row { at, .. } => Some(Stop::LogChanged { at: *at }),
            Self::Setting { .. } | Self::StageState { .. } | Self::NothingToGrant => None,
        }
    }
}

/// What a sender whose receiver refused does about it.
pub(crate) const fn remedy_of(refusal: &Refusal) -> Remedy {
    match refusal {
        Refusal::NotAtMark { .. } | Refusal::Busy => Remedy::Retry,
        Refusal::Fenced { .. } | Refusal::Superseded { .. } => Remedy::Fenced,
        Refusal::Diverged { .. } | Refusal::NotGranted { .. } | Refusal::ParentLostState { .. } => {
            Remedy::Restore
        }
        Refusal::Cycle { .. } | Refusal::UnknownObject { .. } => Remedy::FixRequest,
        Refusal::Malformed { .. } | _ => Remedy::Bug,
    }
}
