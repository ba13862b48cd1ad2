use std::fmt;

/// A fault planted into the simulated drivers or the network, which the ordinary checkers must find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// The parent answers what it is about to commit, then commits.
    AnswerBeforeCommit,
    /// The parent commits the moved mark first and the events after it.
    MarkBeforeEvents,
    /// The parent stores a batch again that it has already taken.
    RepeatTaken,
    /// The child comes back with a link that says more was acknowledged than was.
    AckedFromTheFuture,
    /// The child says a link generation that it has not stored.
    GenerationNotSaved,
    /// The network swaps two records of a batch.
    SwappedRecords,
    /// The network takes a record out of a batch and counts it as kept back.
    LostRecord,
    /// The child comes back from an older copy of its files.
    RewoundChild,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::AnswerBeforeCommit,
        Self::MarkBeforeEvents,
        Self::RepeatTaken,
        Self::AckedFromTheFuture,
        Self::GenerationNotSaved,
        Self::SwappedRecords,
        Self::LostRecord,
        Self::RewoundChild,
    ];
}

impl fmt::Display for Mutant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
