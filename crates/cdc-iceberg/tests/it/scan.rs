//! Scans give what was asked for, in order, and leave other files alone.

use cdc_iceberg::{Archive, ScanBuilder, Settings};
use cdc_model::{Body, Filter, ObjectId, Operation, Origin, Record, Sequence, Timestamp};
use futures_util::TryStreamExt as _;

use crate::support::{DAY, DAY_MS, EPOCH, Log, Warehouse, read, sequences};

async fn records(scan: ScanBuilder) -> Vec<Record> {
    scan.stream().try_concat().await.unwrap()
}

fn at(ms: i64) -> Timestamp {
    Timestamp::new(ms)
}

fn after(sequence: u64) -> Sequence {
    Sequence::new(sequence)
}

/// 1000 records, a second apart, in ten files of 100.
async fn ten_files(warehouse: &Warehouse) -> (Archive, Log) {
    let mut log = Log::new();
    for n in 0..1000 {
        log.insert(DAY + n * 1000);
    }
    let settings = Settings::default().with_rows_per_file_max(100);
    let mut archive = warehouse.archive(1).await.with_settings(settings);
    for n in 0..5 {
        archive.append(&log.batch(n * 200..(n + 1) * 200)).await.unwrap();
    }
    (archive, log)
}

#[tokio::test]
async fn bounds_are_exact_and_files_outside_them_are_not_read() {
    let warehouse = Warehouse::new();
    let (archive, log) = ten_files(&warehouse).await;
    let none = 0..0;
    for (name, scan, expected, files_read) in [
        ("all", archive.scan(), 0..1000, 10),
        ("after the last of a file", archive.scan().after(after(100)), 100..1000, 9),
        ("after the last but one", archive.scan().after(after(99)), 99..1000, 10),
        ("after the last", archive.scan().after(after(1000)), none.clone(), 0),
        ("beyond the end", archive.scan().after(after(5000)), none.clone(), 0),
        ("through the first of a file", archive.scan().through(after(101)), 0..101, 2),
        ("one record", archive.scan().after(after(500)).through(after(501)), 500..501, 1),
        ("nothing", archive.scan().through(after(0)), none.clone(), 0),
        ("from a time, inclusive", archive.scan().from_time(at(DAY + 900_000)), 900..1000, 1),
        ("until a time, exclusive", archive.scan().until_time(at(DAY + 100_000)), 0..100, 1),
        ("until just after", archive.scan().until_time(at(DAY + 100_001)), 0..101, 2),
        ("by the origin's time", archive.scan().origin_time(at(DAY + 1_000), at(DAY + 3_000)), 1..3, 1),
        ("times no column holds", archive.scan().from_time(at(i64::MAX)), none.clone(), 0),
        (
            "times before everything",
            archive.scan().from_time(at(i64::MIN)).until_time(at(i64::MAX)),
            0..1000,
            10,
        ),
        ("another source", archive.scan().source("https://a.b".parse().unwrap()), none.clone(), 0),
        ("another collection", archive.scan().collection("orders"), none.clone(), 0),
        ("another operation", archive.scan().operation(Operation::Delete), none.clone(), 0),
    ] {
        let scan = scan.plan().await.unwrap();
        let report = scan.report();
        assert_eq!((report.files_total, report.files_read), (10, files_read), "{name}");
        assert_eq!(report.bytes > 0, files_read > 0, "{name}");
        let found: Vec<Record> = scan.stream().try_concat().await.unwrap();
        assert_eq!(found, log.records()[expected], "{name}");
    }
}

#[tokio::test]
async fn a_filter_passes_the_same_records_as_the_models_own() {
    let (warehouse, mut log) = (Warehouse::new(), Log::new());
    let sources: Vec<ObjectId> = ["https://a.b", "https://c.d"].map(|id| id.parse().unwrap()).to_vec();
    for n in 0..60_u64 {
        let origin = Origin::new(sources[usize::from(n % 3 == 0)].clone(), EPOCH, vec![sources[0].clone()]);
        let body = match n % 5 {
            0 => r#"{"schema":{"collection":"orders","version":1,"columns":[]}}"#,
            1 => r#"{"operation":"DELETE","collection":"orders","documentId":"1","before":{}}"#,
            2 => r#"{"operation":"INSERT","collection":"orders","documentId":"1","after":{}}"#,
            _ => r#"{"operation":"INSERT","collection":"notes","documentId":"1","after":{}}"#,
        };
        log.push(origin, Sequence::new(n + 1), at(DAY), at(DAY), Body::from_stored(body));
    }
    let settings = Settings::default().with_rows_per_file_max(7);
    let mut archive = warehouse.archive(1).await.with_settings(settings);
    archive.append(&log.all()).await.unwrap();
    let filters = [
        Filter::ALL,
        Filter::collection("orders"),
        Filter::collection("none"),
        Filter::operation(Operation::Delete),
        Filter::operation(Operation::Update),
        Filter::source(sources[1].clone()),
        Filter { operations: vec![Operation::Insert], ..Filter::collection("notes") },
        Filter { collections: vec!["notes".into(), "orders".into()], ..Filter::source(sources[0].clone()) },
    ];
    for filter in filters {
        let expected: Vec<Record> =
            log.records().iter().filter(|record| filter.passes(record).unwrap()).cloned().collect();
        assert_eq!(records(archive.scan().filter(filter.clone())).await, expected, "{filter:?}");
    }
}

#[tokio::test]
async fn days_that_interleave_in_one_append_come_back_in_the_order_of_the_log() {
    let (warehouse, mut log) = (Warehouse::new(), Log::new());
    for n in 0..3000_i64 {
        log.insert(DAY + (n * n % 17) * DAY_MS + n);
    }
    let settings = Settings::default().with_rows_per_file_max(50);
    let mut archive = warehouse.archive(1).await.with_settings(settings);
    for n in 0..3 {
        archive.append(&log.batch(n * 1000..(n + 1) * 1000)).await.unwrap();
    }
    assert_eq!(read(&archive).await, log.records());
    let part = records(archive.scan().after(after(999)).through(after(2001))).await;
    assert_eq!(part, log.records()[999..2001]);
}

#[tokio::test]
async fn row_groups_outside_the_bounds_are_skipped_without_losing_a_record() {
    let (warehouse, mut log) = (Warehouse::new(), Log::new());
    for n in 0..40_000 {
        log.insert(DAY + n);
    }
    let mut archive = warehouse.archive(1).await;
    assert_eq!(archive.append(&log.all()).await.unwrap().files, 1);
    for (from, to) in [(0, 1), (16_383, 16_385), (16_384, 16_384), (32_767, 40_000), (39_999, 40_000)] {
        let found = records(archive.scan().after(after(from)).through(after(to))).await;
        assert_eq!(sequences(&found), Vec::from_iter(from + 1..=to), "({from}, {to}]");
    }
}

#[tokio::test]
async fn an_empty_archive_scans_to_nothing() {
    let warehouse = Warehouse::new();
    let archive = warehouse.archive(1).await;
    let scan = archive.scan().plan().await.unwrap();
    assert_eq!((scan.report().files_total, scan.report().files_read), (0, 0));
    assert_eq!(scan.stream().try_collect::<Vec<_>>().await.unwrap(), Vec::<Vec<Record>>::new());
    let status = archive.status().await.unwrap();
    assert_eq!((status.rows, status.files, status.snapshots, status.first_sequence), (0, 0, 0, None));
}

#[tokio::test]
async fn a_scan_keeps_to_the_snapshot_it_began_with() {
    let (warehouse, log) = (Warehouse::new(), Log::of(20));
    let mut archive = warehouse.archive(1).await;
    archive.append(&log.batch(0..10)).await.unwrap();
    let scan = archive.scan();
    archive.append(&log.batch(10..20)).await.unwrap();
    assert_eq!(records(scan).await, log.records()[..10]);
}
