use crate::Mutant;

/// What is run beside the faults that a seed draws by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Setup {
    /// A fault planted into the drivers, to see whether the checkers find it.
    pub mutant: Option<Mutant>,
    /// What happens to the child's files.
    pub rewind: Rewind,
}

/// Whether the child comes back once from an older copy of its files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rewind {
    /// It never does.
    #[default]
    Never,
    /// It does once, if the parent has taken more than the copy holds; the link must stop with a typed answer.
    Once,
}

/// What a run that kept every promise says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// A hash over every step: the same seed gives the same.
    pub hash: u64,
    /// Steps of the run.
    pub steps: u64,
    /// Events in the child's log at the end.
    pub written: usize,
    /// How often an object crashed.
    pub crashes: u32,
    /// Whether the child was put back to an older copy.
    pub rewound: bool,
}
