use crate::Refusal;

/// What the caller does next about an error, a refusal or a stopped link. Every error of this project has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Remedy {
    /// Try the same again later.
    Retry,
    /// The receiver is elsewhere: take the mark it states, compare its digest and cut the batch anew after it.
    Recut,
    /// Another writer, link or epoch has taken over; this one must not go on.
    Fenced,
    /// Change what was asked: a setting, a path, its permissions, a cursor, a parent, a filter.
    FixRequest,
    /// Data is gone or differs: an operator restores it, rebuilds it, or declares a hole and goes on after it.
    Restore,
    /// A mistake in this project, or a peer that does not speak its protocol.
    Bug,
}

impl Refusal {
    /// What the sender does about it.
    #[must_use]
    pub const fn remedy(&self) -> Remedy {
        match self {
            Self::Busy => Remedy::Retry,
            Self::NotAtMark { .. } => Remedy::Recut,
            Self::Fenced { .. } | Self::Superseded { .. } => Remedy::Fenced,
            Self::Diverged { .. } | Self::NotGranted { .. } | Self::ParentLostState { .. } => Remedy::Restore,
            Self::Cycle { .. } | Self::TooDeep { .. } | Self::UnknownObject { .. } => Remedy::FixRequest,
            Self::Malformed { .. } => Remedy::Bug,
        }
    }
}
