//! The archiver is a hop: whole and once, or not at all.

use cdc_iceberg::{Archive, Error};
use cdc_model::{Digest, Mark, Refusal, Remedy, Sequence};

use crate::support::{DAY, EPOCH, Fault, Log, Warehouse, acme, components, read, sequences};

#[tokio::test]
async fn appended_batches_come_back_and_the_watermark_survives_reopening() {
    let (warehouse, log) = (Warehouse::new(), Log::of(50));
    let mut archive = warehouse.archive(1).await;
    assert_eq!(archive.watermark(), None);
    let appended = archive.append(&log.batch(0..20)).await.unwrap();
    assert_eq!((appended.files, appended.rows), (1, 20));
    assert_eq!(appended.mark, Mark::at(EPOCH, log.position(20)));
    archive.append(&log.batch(20..50)).await.unwrap();
    let reopened = Archive::open_existing(&warehouse.location(), &acme(), components(2)).await.unwrap();
    assert_eq!(reopened.watermark(), Some(Mark::at(EPOCH, log.position(50))));
    assert_eq!(reopened.valid_through(), Some(log.records()[49].timestamp));
    assert_eq!(read(&reopened).await, log.records());
}

#[tokio::test]
async fn an_old_batch_is_refused_and_adds_nothing() {
    let (warehouse, log) = (Warehouse::new(), Log::of(10));
    let mut archive = warehouse.archive(1).await;
    archive.append(&log.batch(0..10)).await.unwrap();
    let error = archive.append(&log.batch(0..10)).await.unwrap_err();
    let refusal = Refusal::NotAtMark { after: Sequence::ZERO, mark: Sequence::new(10) };
    assert!(matches!(&error, Error::Refused { source, mark: Some(mark), .. }
        if *source == refusal && mark.sequence == Sequence::new(10)));
    assert_eq!(error.remedy(), Remedy::Recut);
    assert_eq!(sequences(&read(&archive).await), Vec::from_iter(1..=10));
}

#[tokio::test]
async fn a_diverged_log_is_refused_and_so_is_a_digest_that_does_not_follow() {
    let (warehouse, log) = (Warehouse::new(), Log::of(10));
    let mut archive = warehouse.archive(1).await;
    archive.append(&log.batch(0..5)).await.unwrap();
    let mut other_past = Log::new();
    for n in 0..10 {
        other_past.insert(DAY + n);
    }
    let other = other_past.batch(5..10);
    let mut forged = log.batch(5..10);
    forged.through.digest = Digest::of(b"another future");
    for (batch, remedy) in [(other, Remedy::Restore), (forged, Remedy::Bug)] {
        let error = archive.append(&batch).await.unwrap_err();
        assert!(matches!(&error, Error::Refused { .. }), "{error:?}");
        assert_eq!(error.remedy(), remedy);
    }
    assert_eq!(archive.status().await.unwrap().rows, 5);
}

#[tokio::test]
async fn a_batch_of_another_log_or_epoch_is_refused() {
    let (warehouse, log) = (Warehouse::new(), Log::of(3));
    let mut archive = warehouse.archive(1).await;
    let mut foreign = log.batch(0..0);
    foreign.sender = "https://headless.ly".parse().unwrap();
    let mut mixed = log.batch(0..3);
    mixed.records[1].epoch.number = 2;
    for batch in [foreign, mixed] {
        let error = archive.append(&batch).await.unwrap_err();
        assert!(matches!(error, Error::BadBatch { .. }), "{error:?}");
    }
    assert_eq!(archive.watermark(), None);
}

#[tokio::test]
async fn a_body_that_would_come_back_altered_is_refused() {
    for body in [
        r#"{"operation":"INSERT", "collection":"c","documentId":"1","after":1}"#,
        r#"{"collection":"c","operation":"INSERT","documentId":"1","after":1}"#,
        r#"{"operation":"UPDATE","collection":"c","documentId":"1","changedFields":[],"was":{}}"#,
        r#"{"operation":"INSERT","collection":"c","documentId":"1"#,
    ] {
        let (warehouse, mut log) = (Warehouse::new(), Log::new());
        log.own(DAY, cdc_model::Body::from_stored(body));
        let mut archive = warehouse.archive(1).await;
        let error = archive.append(&log.all()).await.unwrap_err();
        assert!(matches!(error, Error::BadBatch { .. } | Error::Row { .. }), "{error:?}");
        assert_eq!(error.remedy(), Remedy::FixRequest);
        assert_eq!(archive.refresh().await.unwrap(), None);
    }
}

#[tokio::test]
async fn of_two_racing_archivers_exactly_one_wins() {
    let (warehouse, log) = (Warehouse::new(), Log::of(20));
    let (mut one, mut two) = (warehouse.archive(1).await, warehouse.archive(2).await);
    let (batch_one, batch_two) = (log.batch(0..12), log.batch(0..20));
    let (first, second) = tokio::join!(one.append(&batch_one), two.append(&batch_two));
    let lost = match (first, second) {
        (Ok(_), Err(error)) | (Err(error), Ok(_)) => error,
        other => panic!("exactly one must win: {other:?}"),
    };
    assert!(matches!(lost, Error::Refused { source: Refusal::NotAtMark { .. }, .. }), "{lost:?}");
    let through = one.refresh().await.unwrap().unwrap().sequence.get();
    assert_eq!(sequences(&read(&one).await), Vec::from_iter(1..=through));
}

#[tokio::test]
async fn an_archiver_that_looked_long_ago_is_fenced_by_the_commit_itself() {
    let (warehouse, log) = (Warehouse::new(), Log::of(20));
    let (mut one, mut two) = (warehouse.archive(1).await, warehouse.archive(2).await);
    one.append(&log.batch(0..10)).await.unwrap();
    one.append(&log.batch(10..15)).await.unwrap();
    // The second archiver still believes that the table is empty, so only the commit can stop it.
    assert_eq!(two.watermark(), None);
    let error = two.append(&log.batch(0..20)).await.unwrap_err();
    assert!(matches!(&error, Error::Refused { mark: Some(mark), .. } if mark.sequence == Sequence::new(15)));
    two.append(&log.batch(15..20)).await.unwrap();
    assert_eq!(read(&two).await, log.records());
}

#[tokio::test]
async fn a_commit_whose_answer_was_lost_succeeds_exactly_once() {
    use Fault::{Done, NotDone};
    for faults in [vec![Done], vec![NotDone, Done], vec![Done, NotDone], vec![Done, NotDone, NotDone]] {
        let (warehouse, log) = (Warehouse::new(), Log::of(6));
        let (storage, faulty) = warehouse.faulty();
        let mut archive = Archive::open_in(&storage, &acme(), components(1)).await.unwrap();
        faulty.plan("v2.metadata.json", &faults);
        let appended = archive.append(&log.batch(0..6)).await.unwrap();
        assert_eq!((appended.rows, faulty.faults_left()), (6, 0), "{faults:?}");
        let status = archive.status().await.unwrap();
        assert_eq!((status.rows, status.snapshots, status.metadata_version), (6, 1, 2), "{faults:?}");
        assert_eq!(read(&archive).await, log.records());
    }
}

#[tokio::test]
async fn a_commit_that_never_reached_the_store_is_reported_and_can_be_repeated() {
    let (warehouse, log) = (Warehouse::new(), Log::of(6));
    let (storage, faulty) = warehouse.faulty();
    let mut archive = Archive::open_in(&storage, &acme(), components(1)).await.unwrap();
    faulty.plan("v2.metadata.json", &[Fault::NotDone; 3]);
    let error = archive.append(&log.batch(0..6)).await.unwrap_err();
    assert!(matches!(error, Error::Unclear { version: 2, .. }), "{error:?}");
    assert_eq!(error.remedy(), Remedy::Retry);
    archive.append(&log.batch(0..6)).await.unwrap();
    assert_eq!(read(&archive).await, log.records());
}

#[tokio::test]
async fn a_create_that_the_client_repeated_by_itself_is_found_to_be_ours() {
    for file in [".parquet", "-m0.avro", "snap-", "v2.metadata.json"] {
        let (warehouse, log) = (Warehouse::new(), Log::of(6));
        let (storage, faulty) = warehouse.faulty();
        let mut archive = Archive::open_in(&storage, &acme(), components(1)).await.unwrap();
        faulty.plan(file, &[Fault::Repeated]);
        let appended = archive.append(&log.batch(0..6)).await.unwrap();
        assert_eq!((appended.rows, faulty.faults_left()), (6, 0), "{file}");
        assert_eq!(read(&archive).await, log.records(), "{file}");
    }
}

#[tokio::test]
async fn a_crash_between_data_file_and_commit_leaves_an_orphan_that_nobody_reads() {
    let (warehouse, log) = (Warehouse::new(), Log::of(6));
    let (storage, faulty) = warehouse.faulty();
    let mut crashed = Archive::open_in(&storage, &acme(), components(1)).await.unwrap();
    faulty.plan("-m0.avro", &[Fault::NotDone]);
    let error = crashed.append(&log.batch(0..6)).await.unwrap_err();
    assert!(matches!(error, Error::Storage { retryable: true, .. }), "{error:?}");
    assert_eq!(warehouse.files(".parquet").len(), 1);
    let mut archive = warehouse.archive(2).await;
    assert_eq!((archive.watermark(), read(&archive).await), (None, vec![]));
    archive.append(&log.batch(0..6)).await.unwrap();
    assert_eq!((warehouse.files(".parquet").len(), archive.status().await.unwrap().files), (2, 1));
    assert_eq!(read(&archive).await, log.records());
}

#[tokio::test]
async fn a_failed_hint_does_not_fail_the_commit() {
    let (warehouse, log) = (Warehouse::new(), Log::of(6));
    let (storage, faulty) = warehouse.faulty();
    let mut archive = Archive::open_in(&storage, &acme(), components(1)).await.unwrap();
    faulty.plan("version-hint.text", &[Fault::NotDone]);
    archive.append(&log.batch(0..3)).await.unwrap();
    assert_eq!(faulty.faults_left(), 0);
    assert_eq!(read(&warehouse.archive(2).await).await, log.records()[..3]);
}

#[tokio::test]
async fn a_batch_filtered_to_nothing_moves_the_mark_in_snapshot_and_property() {
    let (warehouse, log) = (Warehouse::new(), Log::of(9));
    let mut archive = warehouse.archive(1).await;
    for (range, kept) in [(0..3, vec![]), (3..6, vec![4]), (6..9, vec![])] {
        let mut batch = log.batch(range);
        batch.records.retain(|record| kept.contains(&record.sequence.get()));
        batch.kept_back = 3 - u64::try_from(kept.len()).unwrap();
        let appended = archive.append(&batch).await.unwrap();
        assert_eq!(appended.rows, u64::try_from(kept.len()).unwrap());
        let reopened = warehouse.archive(2).await;
        assert_eq!(reopened.watermark(), Some(batch.mark()));
    }
    assert_eq!(sequences(&read(&archive).await), [4]);
    assert_eq!(archive.status().await.unwrap().snapshots, 3);
    assert_eq!(archive.valid_through(), Some(log.records()[3].timestamp));
}

#[tokio::test]
async fn an_empty_range_commits_nothing() {
    let (warehouse, log) = (Warehouse::new(), Log::of(2));
    let mut archive = warehouse.archive(1).await;
    archive.append(&log.batch(0..2)).await.unwrap();
    let appended = archive.append(&log.batch(2..2)).await.unwrap();
    assert_eq!((appended.files, appended.mark), (0, Mark::at(EPOCH, log.position(2))));
    assert_eq!(archive.status().await.unwrap().metadata_version, 2);
}

#[tokio::test]
async fn a_commit_that_left_the_mark_alone_is_built_upon() {
    let (warehouse, log) = (Warehouse::new(), Log::of(9));
    let (mut one, mut two) = (warehouse.archive(1).await, warehouse.archive(2).await);
    one.append(&log.batch(0..3)).await.unwrap();
    two.append(&log.batch(0..0)).await.unwrap();
    two.refresh().await.unwrap();
    // Maintenance commits the next version with the same mark; the slower archiver lands on top of it.
    let file = |version| warehouse.table().join(format!("metadata/v{version}.metadata.json"));
    std::fs::copy(file(2), file(3)).unwrap();
    two.append(&log.batch(3..9)).await.unwrap();
    assert_eq!(two.status().await.unwrap().metadata_version, 4);
    assert_eq!(read(&two).await, log.records());
}

#[tokio::test]
async fn a_clock_that_goes_back_does_not_stop_the_archive() {
    let (warehouse, log) = (Warehouse::new(), Log::of(4));
    let mut late = components(1);
    late.clock = cdc_model::Clock::from_fn(|| cdc_model::Timestamp::new(DAY + 3_600_000_000));
    let mut archive = Archive::open(&warehouse.location(), &acme(), late).await.unwrap();
    archive.append(&log.batch(0..2)).await.unwrap();
    let mut early = warehouse.archive(2).await;
    early.append(&log.batch(2..4)).await.unwrap();
    assert_eq!(read(&early).await, log.records());
}
