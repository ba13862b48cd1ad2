//! Places in the code that a long simulation has to pass. `sim/tests/it` holds the lists and the code together.

/// What `fault_point!` names: each has to fire.
pub const FAULT_POINTS: &[&str] = &[
    "archive.cut-short",
    "archive.hint-not-written",
    "archive.swept-later",
    "intake.answers-lost",
    "intake.group-cut-short",
    "link.answer-lost",
    "link.begun-in-vain",
    "link.log-not-read",
    "link.saved-later",
];

/// What `reached!` names: each has to be passed.
pub const REACHED: &[&str] = &[
    "append.found-its-own",
    "archive.another-was-first",
    "archive.tried-again",
    "commit.created-again",
    "commit.found-its-own",
    "commit.lost",
    "commit.unclear",
    "group.shared",
    "disk.ballast-given-up",
    "disk.full-from-the-start",
    "intake.disk-full",
    "intake.held-back",
    "intake.failed",
    "link.begun-later",
    "link.not-saved",
    "log.pruned",
    "log.range-compared",
    "log.reopened",
    "object.opened-again",
    "table.found-by-listing",
];
