use cdc_model::{Remedy, Sequence};

use crate::Stop;

/// What went wrong in a machine's own inputs. What the other side says is a [`Refusal`](cdc_model::Refusal) or a
/// [`Stop`].
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
