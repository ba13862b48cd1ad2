use serde::Serialize;
use sim::sites;

use crate::supervise::tally::Tally;

/// What has to become of a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::supervise) enum Kind {
    /// It fails on purpose.
    FaultPoint,
    /// It is passed.
    Reached,
}

impl Kind {
    /// What is said when it did not.
    pub(super) const fn missed(self) -> &'static str {
        match self {
            Self::FaultPoint => "never failed on purpose",
            Self::Reached => "was never reached",
        }
    }
}

/// A site in the code and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(in crate::supervise) struct SiteRow {
    pub(in crate::supervise) name: String,
    pub(in crate::supervise) kind: Kind,
    pub(in crate::supervise) passed: u64,
    pub(in crate::supervise) fired: u64,
}

impl SiteRow {
    /// Whether what had to happen did not.
    pub(super) const fn is_missed(&self) -> bool {
        match self.kind {
            Kind::FaultPoint => self.fired == 0,
            Kind::Reached => self.passed == 0,
        }
    }
}

/// The sites of our code, in the order of their tables.
pub(in crate::supervise) fn rows_of_ours(tally: &Tally) -> Vec<SiteRow> {
    let row = |name: &&'static str, kind| {
        let (passed, fired) = tally.sites.get(*name).copied().unwrap_or_default();
        SiteRow { name: (*name).to_owned(), kind, passed, fired }
    };
    let faults = sites::FAULT_POINTS.iter().map(|name| row(name, Kind::FaultPoint));
    faults.chain(sites::REACHED.iter().map(|name| row(name, Kind::Reached))).collect()
}
