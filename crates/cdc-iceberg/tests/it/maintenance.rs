//! Metadata stays small however many commits were made, and nothing is lost on the way.

use std::collections::BTreeSet;

use cdc_iceberg::{Archive, Error, Settings};
use cdc_model::{Mark, Refusal, Sequence, Timestamp};
use futures_util::TryStreamExt as _;
use iceberg::io::FileIO;
use iceberg::spec::{FormatVersion, ManifestEntry, ManifestFile, ManifestList, ManifestStatus};
use serde_json::Value;

use crate::support::{DAY, DAY_MS, EPOCH, Fault, Log, Warehouse, acme, components, read};

fn log_of(count: usize) -> Log {
    Log::of(i64::try_from(count).unwrap())
}

/// Keeps tables small where a test makes many of them.
fn few_snapshots() -> Settings {
    Settings::default().with_snapshots_kept(10)
}

/// Appends the log's records up to `through`, one commit each.
async fn append_each(archive: &mut Archive, log: &Log, through: usize) {
    let mark = archive.watermark().map_or(0, |mark| usize::try_from(mark.sequence.get()).unwrap());
    for n in mark..through {
        archive.append(&log.batch(n..n + 1)).await.unwrap();
    }
}

fn version(warehouse: &Warehouse, version: u64) -> Value {
    let path = warehouse.table().join(format!("metadata/v{version}.metadata.json"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn versions(warehouse: &Warehouse) -> BTreeSet<u64> {
    let files = warehouse.files(".metadata.json");
    let number = |file: &String| {
        file.strip_prefix("metadata/v").unwrap().strip_suffix(".metadata.json").unwrap().parse().unwrap()
    };
    files.iter().map(number).collect()
}

/// The manifest lists that these versions name and what is in them, as paths below the table.
fn named(warehouse: &Warehouse, versions: impl IntoIterator<Item = u64>) -> BTreeSet<String> {
    let base = format!("file://{}/", warehouse.table().canonicalize().unwrap().display());
    let relative = |path: &str| path.strip_prefix(&base).unwrap().to_owned();
    let mut lists = BTreeSet::new();
    for number in versions {
        let json = version(warehouse, number);
        let snapshots = json["snapshots"].as_array().unwrap();
        lists.extend(snapshots.iter().map(|it| relative(it["manifest-list"].as_str().unwrap())));
    }
    let listed = |list: &String| manifests(warehouse, list).into_iter().map(|it| relative(&it.manifest_path));
    let manifests: Vec<String> = lists.iter().flat_map(listed).collect();
    lists.into_iter().chain(manifests).collect()
}

fn manifests(warehouse: &Warehouse, list: &str) -> Vec<ManifestFile> {
    let bytes = std::fs::read(warehouse.table().join(list)).unwrap();
    let parsed = ManifestList::parse_with_version(&bytes, FormatVersion::V2).unwrap();
    parsed.entries().to_vec()
}

/// All rows are there once, the mark is right, and every version that has a file has what it names, but for the one
/// that goes next.
async fn check(warehouse: &Warehouse, log: &Log, through: usize) {
    let archive = Archive::open_existing(&warehouse.location(), &acme(), components(90)).await.unwrap();
    assert_eq!(archive.watermark(), Some(Mark::at(EPOCH, log.position(through))));
    assert_eq!(read(&archive).await, log.records()[..through]);
    let status = archive.status().await.unwrap();
    assert_eq!(status.rows, u64::try_from(through).unwrap());
    assert_eq!(status.first_sequence, Some(Sequence::new(1)));
    let there: BTreeSet<String> = warehouse.files(".avro").into_iter().collect();
    let named = named(warehouse, versions(warehouse).into_iter().skip(1));
    assert_eq!(named.difference(&there).collect::<Vec<_>>(), Vec::<&String>::new());
    let newest = version(warehouse, status.metadata_version);
    assert_eq!(newest["refs"]["main"]["snapshot-id"], newest["current-snapshot-id"]);
    let ids: Vec<&Value> =
        newest["snapshots"].as_array().unwrap().iter().map(|it| &it["snapshot-id"]).collect();
    assert!(ids.contains(&&newest["current-snapshot-id"]));
    let logged = newest["snapshot-log"].as_array().unwrap();
    assert!(logged.iter().all(|entry| ids.contains(&&entry["snapshot-id"])), "{logged:?}");
    assert!(newest["metadata-log"].as_array().unwrap().len() <= 100);
}

#[tokio::test]
async fn seven_hundred_commits_leave_bounded_metadata_and_every_row() {
    let (warehouse, log) = (Warehouse::new(), log_of(700));
    let (storage, faulty) = warehouse.faulty();
    let mut archive = Archive::open_in(&storage, &acme(), components(1)).await.unwrap();
    append_each(&mut archive, &log, 690).await;
    faulty.take_reads();
    append_each(&mut archive, &log, 700).await;
    // The manifest list to build on, whether the commit counts, and the version after the one that is deleted.
    assert_eq!(faulty.take_reads().len(), 30);
    let (files, bytes) = warehouse.metadata_size();
    assert!(files < 700, "{files} files");
    assert!(bytes < 15 << 20, "{bytes} bytes");
    assert_eq!(versions(&warehouse), (601..=701).collect());
    assert_eq!(archive.status().await.unwrap().snapshots, 100);
    check(&warehouse, &log, 700).await;
}

/// The contents of a table's folder, to go back to.
struct Saved(Vec<(std::path::PathBuf, Vec<u8>)>);

impl Saved {
    fn of(warehouse: &Warehouse) -> Self {
        let paths = warehouse.files("").into_iter().map(|file| warehouse.table().join(file));
        Self(paths.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect())
    }

    fn restore(&self, warehouse: &Warehouse) {
        for file in warehouse.files("") {
            std::fs::remove_file(warehouse.table().join(file)).unwrap();
        }
        for (path, bytes) in &self.0 {
            std::fs::write(path, bytes).unwrap();
        }
    }
}

/// Manifests and their lists that no version names.
fn orphans(warehouse: &Warehouse) -> Vec<String> {
    let named = named(warehouse, versions(warehouse));
    warehouse.files(".avro").into_iter().filter(|file| !named.contains(file)).collect()
}

#[tokio::test]
async fn a_crash_after_any_change_to_the_store_leaves_nothing_lost_or_left_behind() {
    let (warehouse, log) = (Warehouse::new(), log_of(180));
    // The one merges manifests, after the other those that a merge replaced are deleted.
    for start in [102, 160] {
        append_each(&mut warehouse.archive(1).await.with_settings(few_snapshots()), &log, start).await;
        let saved = Saved::of(&warehouse);
        for changes in 0.. {
            saved.restore(&warehouse);
            if !crash_after(changes, &warehouse, &log, start).await {
                assert!(changes > 5, "{changes}");
                break;
            }
        }
        saved.restore(&warehouse);
    }
}

/// Whether the archiver died before all changes of its next commit had taken place.
async fn crash_after(changes: usize, warehouse: &Warehouse, log: &Log, start: usize) -> bool {
    let (storage, faulty) = warehouse.faulty();
    let crashed = Archive::open_in(&storage, &acme(), components(2)).await.unwrap();
    faulty.die_after(Some(changes));
    let appended = crashed.with_settings(few_snapshots()).append(&log.batch(start..start + 1)).await;
    let mut reopened = warehouse.archive(3).await.with_settings(few_snapshots());
    let mark = usize::try_from(reopened.watermark().unwrap().sequence.get()).unwrap();
    assert!(mark == start + 1 || (mark == start && appended.is_err()), "{changes}: {appended:?}, {mark}");
    let through = start + 10;
    append_each(&mut reopened, log, through).await;
    check(warehouse, log, through).await;
    let newest = u64::try_from(through).unwrap() + 1;
    assert_eq!(versions(warehouse), ((newest - 100).max(1)..=newest).collect(), "{changes}");
    // What was written before a commit that did not take place belongs to nobody; nothing else is left.
    let abandoned = if mark == start { 3 } else { 0 };
    assert!(orphans(warehouse).len() <= abandoned, "{changes}: {:?}", orphans(warehouse));
    faulty.is_dead()
}

#[tokio::test]
async fn deletes_that_fail_or_never_answer_are_made_up_for() {
    for fault in [Fault::NotDone, Fault::Done] {
        let (warehouse, log) = (Warehouse::new(), log_of(240));
        let (storage, faulty) = warehouse.faulty();
        let mut archive =
            Archive::open_in(&storage, &acme(), components(1)).await.unwrap().with_settings(few_snapshots());
        append_each(&mut archive, &log, 205).await;
        faulty.fail_deletes(Some(fault));
        append_each(&mut archive, &log, 217).await;
        check(&warehouse, &log, 217).await;
        faulty.fail_deletes(None);
        append_each(&mut archive, &log, 238).await;
        check(&warehouse, &log, 238).await;
        assert_eq!(versions(&warehouse), (139..=239).collect());
        assert_eq!(orphans(&warehouse), Vec::<String>::new());
    }
}

#[tokio::test]
async fn an_archiver_that_slept_while_its_next_number_was_deleted_commits_nothing() {
    let (warehouse, log) = (Warehouse::new(), log_of(130));
    append_each(&mut warehouse.archive(1).await, &log, 2).await;
    let mut sleepers = Vec::new();
    for seed in 10..14 {
        sleepers.push(warehouse.archive(seed).await);
    }
    let mut awake = warehouse.archive(2).await;
    append_each(&mut awake, &log, 110).await;
    assert!(!versions(&warehouse).contains(&4));
    for (mut archive, hint) in sleepers.into_iter().zip([Some("111"), Some("3"), Some("4"), None]) {
        let path = warehouse.table().join("metadata/version-hint.text");
        match hint {
            Some(text) => std::fs::write(path, text).unwrap(),
            None => std::fs::remove_file(path).unwrap(),
        }
        let error = archive.append(&log.batch(2..5)).await.unwrap_err();
        let refusal = Refusal::NotAtMark { after: Sequence::new(2), mark: Sequence::new(110) };
        assert!(matches!(&error, Error::Refused { source, .. } if *source == refusal), "{hint:?}: {error:?}");
        check(&warehouse, &log, 110).await;
        assert!(!versions(&warehouse).contains(&4));
    }
}

#[tokio::test]
async fn remains_of_a_late_commit_are_not_the_newest_version_and_are_swept() {
    let (warehouse, log) = (Warehouse::new(), log_of(130));
    let mut archive = warehouse.archive(1).await;
    append_each(&mut archive, &log, 120).await;
    let file = |number: u64| warehouse.table().join(format!("metadata/v{number}.metadata.json"));
    for number in [1, 7] {
        // Its author died between creating it and looking whether it counts.
        std::fs::copy(file(21), file(number)).unwrap();
        std::fs::write(warehouse.table().join("metadata/version-hint.text"), number.to_string()).unwrap();
        check(&warehouse, &log, 120).await;
    }
    let mut reopened = warehouse.archive(2).await;
    append_each(&mut reopened, &log, 123).await;
    check(&warehouse, &log, 123).await;
    assert_eq!(versions(&warehouse), (24..=124).collect());
}

#[tokio::test]
async fn a_reader_that_looked_long_ago_reads_what_it_saw_and_finds_the_newest() {
    let (warehouse, log) = (Warehouse::new(), log_of(240));
    let mut archive = warehouse.archive(1).await;
    append_each(&mut archive, &log, 5).await;
    let mut reader = Archive::open_existing(&warehouse.location(), &acme(), components(2)).await.unwrap();
    append_each(&mut archive, &log, 230).await;
    assert!(versions(&warehouse).iter().all(|version| *version > 100));
    assert_eq!(read(&reader).await, log.records()[..5]);
    let part = reader.scan().after(Sequence::new(3)).through(Sequence::new(9)).stream();
    assert_eq!(part.try_concat().await.unwrap(), log.records()[3..5]);
    assert_eq!(reader.status().await.unwrap().rows, 5);
    std::fs::write(warehouse.table().join("metadata/version-hint.text"), "6").unwrap();
    assert_eq!(reader.refresh().await.unwrap(), archive.watermark());
    assert_eq!(read(&reader).await, log.records()[..230]);
}

#[tokio::test]
async fn a_table_that_was_never_maintained_is_caught_up_with_step_by_step() {
    let (warehouse, log) = (Warehouse::new(), log_of(420));
    let (storage, faulty) = warehouse.faulty();
    let settings = Settings::default().with_snapshots_kept(usize::MAX);
    let mut archive =
        Archive::open_in(&storage, &acme(), components(1)).await.unwrap().with_settings(settings);
    faulty.fail_deletes(Some(Fault::NotDone));
    append_each(&mut archive, &log, 250).await;
    assert_eq!((versions(&warehouse).len(), archive.status().await.unwrap().snapshots), (251, 250));
    let mut archive = warehouse.archive(2).await;
    let mut before = warehouse.files("").len();
    append_each(&mut archive, &log, 251).await;
    assert_eq!(archive.status().await.unwrap().snapshots, 100);
    for through in 252..=420 {
        append_each(&mut archive, &log, through).await;
        let now = warehouse.files("").len();
        assert!(now + 16 >= before, "{through}: from {before} to {now} files in one commit");
        before = now;
    }
    check(&warehouse, &log, 420).await;
    assert_eq!(orphans(&warehouse), Vec::<String>::new());
    assert_eq!(versions(&warehouse), (321..=421).collect());
}

#[tokio::test]
async fn two_archivers_that_take_turns_leave_nothing_behind() {
    let (warehouse, log) = (Warehouse::new(), log_of(230));
    let archives = [1, 2].map(|seed| warehouse.archive(seed));
    let [one, two] = archives;
    let mut archives = [one.await, two.await].map(|archive| archive.with_settings(few_snapshots()));
    for n in 0..230 {
        let archive = &mut archives[n / 3 % 2];
        archive.refresh().await.unwrap();
        archive.append(&log.batch(n..n + 1)).await.unwrap();
    }
    check(&warehouse, &log, 230).await;
    assert_eq!(orphans(&warehouse), Vec::<String>::new());
    assert_eq!(versions(&warehouse), (131..=231).collect());
}

#[tokio::test]
async fn snapshots_that_a_tag_points_to_stay() {
    let (warehouse, log) = (Warehouse::new(), log_of(230));
    let mut archive = warehouse.archive(1).await;
    append_each(&mut archive, &log, 3).await;
    let path = warehouse.table().join("metadata/v4.metadata.json");
    let mut json = version(&warehouse, 4);
    let tagged = json["snapshots"][1]["snapshot-id"].clone();
    json["refs"]["audit"] = serde_json::json!({ "snapshot-id": tagged, "type": "tag" });
    std::fs::write(path, json.to_string()).unwrap();
    let mut archive = warehouse.archive(2).await;
    append_each(&mut archive, &log, 230).await;
    let newest = version(&warehouse, 231);
    assert_eq!(newest["refs"]["audit"]["snapshot-id"], tagged);
    assert_eq!(newest["snapshots"][0]["snapshot-id"], tagged);
    assert_eq!(newest["snapshots"].as_array().unwrap().len(), 101);
    check(&warehouse, &log, 230).await;
}

#[tokio::test]
async fn merged_manifests_say_the_same_of_every_file() {
    let (warehouse, log) = (Warehouse::new(), log_of(60));
    let mut archive = warehouse.archive(1).await;
    append_each(&mut archive, &log, 51).await;
    let before = entries(&warehouse, 52).await;
    append_each(&mut archive, &log, 52).await;
    let after = entries(&warehouse, 53).await;
    assert_eq!((before.len(), after.len()), (51, 52));
    let existing =
        |entry: &ManifestEntry| ManifestEntry { status: ManifestStatus::Existing, ..entry.clone() };
    let expected: Vec<ManifestEntry> = before.iter().map(existing).collect();
    assert_eq!(after[..51], expected);
    let newest = version(&warehouse, 53);
    let summary = &newest["snapshots"][51]["summary"];
    let counts = ["manifests-created", "manifests-kept", "manifests-replaced"].map(|key| &summary[key]);
    assert_eq!(counts, ["2", "0", "51"]);
    check(&warehouse, &log, 52).await;
}

/// The entries of a version's newest snapshot with what they inherit, by place in the log.
async fn entries(warehouse: &Warehouse, number: u64) -> Vec<ManifestEntry> {
    let json = version(warehouse, number);
    let list = json["snapshots"].as_array().unwrap().last().unwrap()["manifest-list"].as_str().unwrap();
    let list = list.rsplit_once("/metadata/").unwrap().1;
    let io = FileIO::new_with_fs();
    let mut entries = Vec::new();
    for manifest in manifests(warehouse, &format!("metadata/{list}")) {
        let loaded = manifest.load_manifest(&io).await.unwrap();
        entries.extend(loaded.entries().iter().map(|entry| entry.as_ref().clone()));
    }
    entries.sort_by_key(|entry| entry.sequence_number);
    entries
}

#[tokio::test]
async fn a_merge_that_fails_only_leaves_the_list_longer() {
    for fault in [Fault::NotDone, Fault::Done] {
        let (warehouse, log) = (Warehouse::new(), log_of(60));
        let (storage, faulty) = warehouse.faulty();
        let mut archive = Archive::open_in(&storage, &acme(), components(1)).await.unwrap();
        append_each(&mut archive, &log, 51).await;
        faulty.plan("-m1.avro", &[fault]);
        append_each(&mut archive, &log, 52).await;
        assert_eq!(faulty.faults_left(), 0);
        check(&warehouse, &log, 52).await;
        assert_eq!(entries(&warehouse, 53).await.len(), 52);
        append_each(&mut archive, &log, 54).await;
        check(&warehouse, &log, 54).await;
    }
}

#[tokio::test]
async fn a_scan_opens_only_manifests_that_may_matter_and_a_status_none() {
    let (warehouse, log) = (Warehouse::new(), log_of(300));
    let (storage, faulty) = warehouse.faulty();
    let mut archive =
        Archive::open_in(&storage, &acme(), components(1)).await.unwrap().with_settings(few_snapshots());
    append_each(&mut archive, &log, 300).await;
    faulty.take_reads();
    for from in [5, 150, 290, 299] {
        let scan = archive.scan().after(Sequence::new(from)).through(Sequence::new(from + 1));
        let scan = scan.plan().await.unwrap();
        assert_eq!((scan.report().files_total, scan.report().files_read), (300, 1));
        let found: Vec<_> = scan.stream().try_concat().await.unwrap();
        assert_eq!(found, log.records()[usize::try_from(from).unwrap()..][..1]);
        // The list, one manifest and the data file.
        assert_eq!(faulty.take_reads().len(), 3, "{from}");
    }
    let day = |ms: i64| Timestamp::new(ms);
    let later = archive.scan().origin_time(day(DAY + DAY_MS), day(DAY + 9 * DAY_MS)).plan().await.unwrap();
    assert_eq!((later.report().files_read, faulty.take_reads().len()), (0, 1));
    let status = archive.status().await.unwrap();
    assert_eq!(faulty.take_reads().len(), 1);
    assert_eq!((status.files, status.rows, status.first_sequence), (300, 300, Some(Sequence::new(1))));
    let last = log.records()[299].origin_timestamp;
    assert_eq!((status.oldest, status.newest), (Some(day(DAY)), Some(last)));
    let files = warehouse.files(".parquet");
    let bytes: u64 =
        files.iter().map(|file| std::fs::metadata(warehouse.table().join(file)).unwrap().len()).sum();
    assert_eq!(status.bytes, bytes);
}
