//! The mutants that are planted in the code: what each breaks, and which checker must notice it.

/// One wrong behaviour that is planted behind `mutant!`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mutant {
    /// Its name in the code.
    pub name: &'static str,
    /// The promise it breaks.
    pub breaks: &'static str,
    /// What a run that notices it says is not kept: one of these.
    pub caught_by: &'static [&'static str],
    /// The text of a stored plan that shows it, where few seeds do. It is run before them.
    pub plan: Option<&'static str>,
}

const ACKED: &str = "acknowledged means durable";
const ALONE: &str = "one engine at a time serves a project";
const ARRIVES: &str = "what is written arrives";
const BEHIND: &str = "rows go behind settled and every subscriber only";
const BEFORE: &str = "before continues after";
const BELOW: &str = "events come from below";
const CAPTURED: &str = "captured or not written";
const CLOSED: &str = "a process that ends leaves nothing open";
const CONSERVED: &str = "what is received is accounted for";
const CURSOR: &str = "a cursor is of its log";
const COUNT: &str = "a count is exact";
const COVERS: &str = "a mark covers what is stored";
const DENSE: &str = "a log is dense";
const DETECTED: &str = "a rewound log is detected";
const DIVERGED: &str = "a log that diverged is refused";
const EFFECT: &str = "effect and checkpoint commit together";
const EPOCHS: &str = "each log has an epoch of its own";
const EVERY_ROW: &str = "every sequence up to the watermark";
const EACH_ROW: &str = "each row once";
const FENCED: &str = "who was fenced saves nothing";
const HISTORY: &str = "the archive is the history";
const KEPT: &str = "rows stay where none are to be trimmed";
const LETTERS: &str = "what a stage rejects waits for somebody";
const LOG_TIME: &str = "log time never decreases";
const MARKS_AGREE: &str = "property and snapshot agree";
const NAMED: &str = "what a snapshot names is there";
const NEVER_CHANGES: &str = "a committed file never changes";
const NEWEST: &str = "valid through the newest row";
const NO_COMMIT_LOST: &str = "no commit of another is lost";
const ONE_PARENT: &str = "an object keeps its parent";
const ONCE: &str = "every event once, in its origin's order";
const READ: &str = "a replay reads what is stored";
const REPLAYED: &str = "a replay gives each record once, in order";
const ROT: &str = "what rots is noticed";
const SETTLED: &str = "settled is stored at the root and archived on the way";
const SOUND: &str = "what is sound is not called damaged";
const STAYS: &str = "what is stored stays";
const STOPPED: &str = "nothing sound ends stopped";
const TOGETHER: &str = "events say of which transaction they are";
const TOLD: &str = "below the floor is told";
const WHOLE: &str = "all of a transaction or nothing";

const fn mutant(name: &'static str, breaks: &'static str, caught_by: &'static [&'static str]) -> Mutant {
    Mutant { name, breaks, caught_by, plan: None }
}

/// A mutant that hardly a seed shows.
const fn rare(mutant: Mutant, plan: &'static str) -> Mutant {
    Mutant { plan: Some(plan), ..mutant }
}

/// All that are planted.
pub const MUTANTS: &[Mutant] = &[
    // Capture and log.
    mutant("ack-without-commit", "an answer waits for the commit", &[ACKED, CAPTURED, DENSE, STAYS]),
    rare(
        mutant(
            "recovered-rows-not-synced",
            "what is told is on disk",
            &[ACKED, CAPTURED, ONCE, STAYS, STOPPED],
        ),
        include_str!("../plans/power-lost-after-a-kill.json"),
    ),
    mutant("not-synced", "a commit is on disk", &[ACKED, CAPTURED, STAYS, WHOLE, SETTLED]),
    mutant(
        "sync-changes-nothing",
        "what is told is on disk",
        &[ACKED, CAPTURED, DENSE, DETECTED, ONCE, READ, SETTLED, STAYS, STOPPED],
    ),
    mutant(
        "sent-before-synced",
        "what is sent is on disk",
        &[ACKED, COVERS, DENSE, DETECTED, HISTORY, ONCE, REPLAYED, SETTLED, STAYS, STOPPED],
    ),
    mutant("read-before-synced", "what is read is on disk", &[READ, REPLAYED, STAYS]),
    mutant("tail-moved-before-commit", "a tail moves with a commit only", &[DENSE, ONCE, CAPTURED, STOPPED]),
    mutant(
        "failed-write-kept",
        "a write that fails in a shared transaction leaves nothing",
        &[CAPTURED, WHOLE],
    ),
    mutant(
        "failed-commit-not-told",
        "nobody is told that a failed commit succeeded",
        &[ACKED, CAPTURED, DENSE, STAYS],
    ),
    mutant("drained-row-left", "a captured row is drained once", &[CAPTURED]),
    mutant("transaction-index-kept", "each event has its place in its transaction", &[TOGETHER]),
    mutant("log-time-goes-back", "the time of a log never decreases", &[LOG_TIME]),
    mutant("checkpoint-before-effect", "effect and checkpoint commit together", &[EFFECT]),
    mutant("own-effects-consumed", "a consumer does not take what it caused", &[EFFECT]),
    mutant("fence-not-compared", "only the newest token saves a checkpoint", &[FENCED]),
    mutant("checkpoint-epoch-not-compared", "a cursor of a log that is gone is refused", &[CURSOR]),
    mutant("poisoned-log-not-reopened", "a log works again after a commit that failed", &[ARRIVES]),
    mutant("project-not-locked", "one process serves a project", &[ALONE]),
    rare(
        mutant("full-disk-told-for-ever", "after a full disk everything goes on", &[STOPPED]),
        include_str!("../plans/trouble-of-a-full-disk-stays.json"),
    ),
    mutant(
        "full-from-the-start-not-noticed",
        "an engine that begins on a full disk goes on",
        &[ARRIVES, STOPPED],
    ),
    mutant("ballast-not-taken-again", "after a full disk everything goes on", &[ARRIVES, STOPPED]),
    mutant("lane-job-lost", "every job of an object runs", &[ARRIVES, STOPPED]),
    mutant("closed-log-left-open", "what is closed is not open", &[CLOSED]),
    mutant("second-parent-ignored", "nobody is told of a parent that is not taken", &[ONE_PARENT]),
    mutant("template-has-an-epoch", "a new log's epoch is its own", &[EPOCHS]),
    mutant("pruned-before-settled", "rows go once they are settled", &[BEHIND, SETTLED, STOPPED, ARRIVES]),
    mutant("pruned-before-consumed", "rows go once every subscriber has taken them", &[BEHIND, DENSE]),
    mutant("floor-digest-not-kept", "what is left continues what is gone", &[STOPPED, ARRIVES, SOUND]),
    mutant("pruned-state-not-kept", "a document outlives its events", &[ARRIVES, STOPPED, SOUND]),
    mutant("row-digest-not-verified", "a stored digest follows from the rows", &[ROT]),
    // Attached databases.
    mutant("capture-mark-not-moved", "the mark of a drain moves with its rows", &[CAPTURED, BEFORE]),
    mutant(
        "changed-schema-not-healed",
        "triggers that are gone are made again",
        &[ARRIVES, BEFORE, CAPTURED],
    ),
    mutant("trimmed-before-drained", "what is trimmed was drained", &[CAPTURED, BEFORE]),
    mutant("trim-setting-ignored", "rows stay where none are to be trimmed", &[KEPT]),
    mutant("drained-rows-kept", "drained rows go", &[ARRIVES]),
    rare(
        mutant("failed-trim-given-up", "a trim that failed is tried again", &[ARRIVES]),
        include_str!("../plans/a-trim-that-failed-was-forgotten.json"),
    ),
    mutant("edited-row-believed", "what an edited row held is found", &[ARRIVES, BEFORE]),
    mutant("gone-rows-not-compared", "a comparison finds what is gone", &[ARRIVES]),
    mutant("missed-change-not-mended", "a change that was missed comes before the next", &[BEFORE]),
    mutant("backfilled-twice", "rows that were there are taken once", &[BEFORE, CAPTURED]),
    mutant("audit-never-due", "what bypasses capture is found", &[ARRIVES]),
    // Sending.
    mutant("schema-record-dropped", "every row goes on", &[ONCE]),
    mutant("kept-back-not-counted", "what is kept back is counted", &[STOPPED, ARRIVES]),
    mutant("digest-of-sent-rows-only", "the digest is over all rows", &[STOPPED, ARRIVES]),
    mutant("filtered-range-kept", "a mark moves over what is kept back", &[ARRIVES]),
    mutant("generation-used-again", "each link has its own generation", &[STOPPED, ARRIVES]),
    mutant("ack-digest-not-compared", "a sender compares before it moves its mark", &[ONCE, DIVERGED]),
    mutant("stopped-link-not-told", "whose log lost something is told", &[DETECTED]),
    mutant("acked-saved-ahead", "what is saved as stored was answered", &[ACKED]),
    // Receiving.
    mutant("digest-ignored", "a batch of another past is refused", &[DIVERGED, ONCE]),
    mutant("overlap-trimmed", "an overlap is never trimmed on trust", &[DIVERGED, ONCE]),
    mutant("old-batch-acked-blindly", "an old batch is never acknowledged blindly", &[DIVERGED]),
    mutant("mark-taken-back", "a mark never goes back", &[ACKED, COVERS, DIVERGED]),
    mutant("empty-parent-believes-child", "a mark moves with what it covers only", &[ACKED]),
    mutant("origin-mark-not-moved", "link mark and origin mark move together", &[COVERS]),
    mutant("records-swapped", "records are stored in their order", &[ONCE]),
    mutant("body-written-anew", "a body never changes on its way", &[ONCE]),
    mutant("hop-sets-event-time", "an event's time is its origin's", &[ONCE]),
    mutant("route-not-extended", "a route names every log passed", &[BELOW]),
    mutant("stored-not-counted", "what is received is accounted for", &[CONSERVED]),
    // Stages.
    mutant("verdict-not-stored", "what a stage keeps back stays back", &[ONCE]),
    mutant("dead-letter-lost", "what a stage rejects is kept", &[LETTERS]),
    mutant(
        "stages-begin-where-opened",
        "stages that are set again decide about nothing twice",
        &[BEFORE, CONSERVED, COUNT],
    ),
    mutant("stage-state-not-stored", "state and outputs commit together", &[BEFORE, COUNT]),
    mutant("stage-output-not-stored", "state and outputs commit together", &[COUNT, BEFORE]),
    mutant("stage-cursor-not-moved", "a stage decides about each event once", &[COUNT]),
    // Settled.
    mutant("settled-when-stored", "settled is stored at the root", &[SETTLED]),
    mutant("settled-by-nearest-archive", "settled is stored at the root", &[SETTLED]),
    mutant("settled-without-archive", "settled is archived on the way", &[SETTLED]),
    // Archives.
    mutant("archive-digest-not-compared", "an archive follows one history", &[HISTORY]),
    mutant("data-file-overwritten", "a committed file is never rewritten", &[NEVER_CHANGES]),
    mutant(
        "metadata-overwritten",
        "a version is created, never overwritten",
        &[NEVER_CHANGES, NO_COMMIT_LOST],
    ),
    mutant(
        "lost-commit-believed",
        "a commit counts when it is the table's",
        &[NO_COMMIT_LOST, SETTLED, MARKS_AGREE],
    ),
    mutant("hint-trusted", "the newest version is found without the hint", &[ARRIVES, STOPPED]),
    mutant("append-repeated-blindly", "after an unclear answer the table is asked", &[EACH_ROW]),
    mutant("lost-race-not-looked-at", "after a lost race the mark is looked at", &[EACH_ROW, MARKS_AGREE]),
    mutant("mark-not-in-property", "the mark moves in the commit itself", &[MARKS_AGREE]),
    mutant("newest-time-not-archived", "an archive says how new it is", &[NEWEST]),
    mutant("merged-manifest-not-listed", "a merge keeps every row", &[EVERY_ROW]),
    mutant("live-list-deleted", "a sweep deletes only what nothing names", &[NAMED]),
    // Replay.
    mutant("replay-below-floor", "below the floor nothing is passed over", &[REPLAYED, TOLD]),
    mutant("cursor-read-again", "a cursor is exclusive", &[REPLAYED, READ]),
];

/// What is to be planted, and the feature it waits for.
pub const PLANNED: &[(&str, &str)] = &[
    (
        "dedupe-skipped",
        "a second way for an event to come: re-parenting, or a parent rebuilt from its children",
    ),
    ("origin-mark-outside", "a second way for an event to come"),
    ("hole-taken-for-duplicate", "declared holes"),
    ("identity-copied", "templates of objects"),
    ("fork-crossed-by-cursor", "granted epochs: a restored log has the epoch of its copy so far"),
    ("fork-record-dropped", "granted epochs"),
    ("watermark-from-property", "snapshots of other engines that do not carry the mark"),
    ("orphan-swept-too-young", "a sweep of data files that no version names"),
    ("compaction-deletes-first", "compaction of data files"),
    ("external-checkpoint-ahead", "checkpoints that are kept outside of an object's database"),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;
    use crate::plan::FaultPlan;

    fn planted(folder: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                planted(&path, found);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let names = text.split("mutant!(\"").skip(1).filter_map(|rest| rest.split('"').next());
                found.extend(names.map(str::to_owned));
            }
        }
    }

    #[test]
    fn every_mutant_that_is_planted_has_a_row_and_no_other() {
        let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates");
        let mut found = BTreeSet::new();
        planted(&crates, &mut found);
        let listed: BTreeSet<String> = MUTANTS.iter().map(|mutant| mutant.name.to_owned()).collect();
        assert_eq!(found, listed);
        assert_eq!(listed.len(), MUTANTS.len());
        assert!(PLANNED.iter().all(|(name, _)| !listed.contains(*name)));
        let plans = MUTANTS.iter().filter_map(|mutant| mutant.plan);
        plans.for_each(|plan| drop(serde_json::from_str::<FaultPlan>(plan).unwrap()));
    }

    #[test]
    fn every_promise_that_is_to_catch_one_is_made_by_a_checker() {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut said = String::new();
        let mut folders = vec![sources];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => folders.push(path),
                    false if path.ends_with("mutants.rs") => {}
                    false => said.push_str(&std::fs::read_to_string(&path).unwrap()),
                }
            }
        }
        for promise in MUTANTS.iter().flat_map(|mutant| mutant.caught_by) {
            assert!(said.contains(&format!("{promise:?}")), "{promise}");
        }
    }
}
