//! Where files lie, how large they get and how small they are.

use cdc_iceberg::Settings;
use cdc_model::{Body, Sequence, Timestamp};

use parquet::basic::Compression;
use parquet::file::metadata::ParquetMetaDataReader;

use crate::support::{DAY, DAY_MS, Log, Warehouse, read};

#[tokio::test]
async fn ten_thousand_events_at_a_thousand_per_file_make_ten_files() {
    let (warehouse, mut log) = (Warehouse::new(), Log::new());
    for n in 0..10_000 {
        log.insert(DAY + n);
    }
    let settings = Settings::default().with_rows_per_file_max(1000);
    let mut archive = warehouse.archive(1).await.with_settings(settings);
    let appended = archive.append(&log.all()).await.unwrap();
    assert_eq!((appended.files, appended.rows), (10, 10_000));
    let status = archive.status().await.unwrap();
    assert_eq!((status.files, status.rows, status.snapshots), (10, 10_000, 1));
    assert_eq!(warehouse.files(".parquet").len(), 10);
    assert_eq!(read(&archive).await, log.records());
}

#[tokio::test]
async fn a_file_ends_when_it_has_its_bytes() {
    let (warehouse, mut log) = (Warehouse::new(), Log::new());
    for n in 0..120 {
        let noise: String =
            (0..65_536_u64).map(|i| char::from(b'a' + u8::try_from(mix(i * 41 + n) % 26).unwrap())).collect();
        let after = format!(r#"{{"noise":"{noise}"}}"#);
        let body = format!(r#"{{"operation":"INSERT","collection":"c","documentId":"{n}","after":{after}}}"#);
        log.own(DAY, Body::parse(&body).unwrap());
    }
    // Nearly 8 MB of bodies that shrink to 5, written in steps of 4 MiB.
    let settings = Settings::default().with_bytes_per_file_max(1 << 20);
    let mut archive = warehouse.archive(1).await.with_settings(settings);
    let appended = archive.append(&log.all()).await.unwrap();
    assert_eq!(appended.files, 2, "{appended:?}");
    assert_eq!(read(&archive).await, log.records());
}

fn mix(n: u64) -> u64 {
    let n = (n ^ (n >> 31)).wrapping_mul(0x7FB5_D329_728E_A185);
    (n ^ (n >> 27)).wrapping_mul(0x81DA_DEF4_BC2D_D44D) >> 33
}

#[tokio::test]
async fn events_lie_under_the_utc_day_they_happened_on() {
    let (warehouse, mut log) = (Warehouse::new(), Log::new());
    for ms in [DAY, DAY - 1, DAY + DAY_MS - 1, DAY + DAY_MS, 0, DAY + 1] {
        log.insert(ms);
    }
    let mut archive = warehouse.archive(1).await;
    assert_eq!(archive.append(&log.all()).await.unwrap().files, 4);
    let files = warehouse.files(".parquet");
    let folders: Vec<&str> = files.iter().map(|file| file.rsplit_once('/').unwrap().0).collect();
    assert_eq!(
        folders,
        [
            "data/year=1970/month=01/day=01",
            "data/year=2024/month=01/day=14",
            "data/year=2024/month=01/day=15",
            "data/year=2024/month=01/day=16",
        ]
    );
    for file in &files {
        let name = file.rsplit_once('/').unwrap().1;
        let uuid = name.strip_prefix("00000-0-").and_then(|name| name.strip_suffix(".parquet")).unwrap();
        assert_eq!(uuid::Uuid::parse_str(uuid).unwrap().to_string(), uuid);
    }
    assert_eq!(read(&archive).await, log.records());
    let status = archive.status().await.unwrap();
    assert_eq!((status.oldest, status.newest), (Some(Timestamp::ZERO), Some(Timestamp::new(DAY + DAY_MS))));
    assert_eq!(status.first_sequence, Some(Sequence::new(1)));
}

#[tokio::test]
async fn repetitive_events_take_less_than_half_their_json() {
    let (warehouse, mut log) = (Warehouse::new(), Log::new());
    for n in 0..5000 {
        log.insert(DAY + n * 10);
    }
    let json: usize = log.records().iter().map(|record| record.to_json().unwrap().len()).sum();
    let mut archive = warehouse.archive(1).await;
    let bytes = archive.append(&log.all()).await.unwrap().bytes;
    assert!(bytes * 2 < u64::try_from(json).unwrap(), "{bytes} of {json}");
    let on_disk = std::fs::metadata(warehouse.table().join(&warehouse.files(".parquet")[0])).unwrap().len();
    assert_eq!(on_disk, bytes);
}

#[tokio::test]
async fn a_committed_file_is_never_rewritten() {
    let (warehouse, log) = (Warehouse::new(), Log::of(20));
    let mut archive = warehouse.archive(1).await;
    archive.append(&log.batch(0..10)).await.unwrap();
    let read_all = || -> Vec<(String, Vec<u8>)> {
        let files = warehouse.files("");
        let kept = files.into_iter().filter(|file| !file.ends_with("version-hint.text"));
        kept.map(|file| (file.clone(), std::fs::read(warehouse.table().join(file)).unwrap())).collect()
    };
    let before = read_all();
    archive.append(&log.batch(10..20)).await.unwrap();
    let after = read_all();
    assert!(after.len() > before.len());
    assert!(before.iter().all(|file| after.contains(file)));
}

#[tokio::test]
async fn a_time_that_no_column_can_hold_is_refused_by_name() {
    let (warehouse, mut log) = (Warehouse::new(), Log::new());
    log.insert(i64::MAX);
    let mut archive = warehouse.archive(1).await;
    let error = archive.append(&log.all()).await.unwrap_err();
    assert!(error.to_string().contains("timestamp"), "{error}");
    assert_eq!(archive.refresh().await.unwrap(), None);
}

#[tokio::test]
async fn columns_are_compressed_and_those_with_few_values_have_dictionaries() {
    let (warehouse, log) = (Warehouse::new(), Log::of(500));
    let mut archive = warehouse.archive(1).await;
    archive.append(&log.all()).await.unwrap();
    let file = std::fs::File::open(warehouse.table().join(&warehouse.files(".parquet")[0])).unwrap();
    let footer = ParquetMetaDataReader::new().parse_and_finish(&file).unwrap();
    for column in footer.row_group(0).columns() {
        let name = column.column_path().string();
        assert!(matches!(column.compression(), Compression::ZSTD(_)), "{name}");
        let few =
            ["kind", "operation", "collection", "source", "originEpoch", "cursorEpoch"].contains(&&*name);
        let many = ["id", "before", "after", "sequence", "cursorSequence"].contains(&&*name);
        if few || many {
            assert_eq!(column.dictionary_page_offset().is_some(), few, "{name}");
        }
        let documents = ["before", "after", "tag", "transaction", "derivedFrom", "schema"].contains(&&*name);
        assert_eq!(column.statistics().is_some(), !documents, "{name}");
    }
}
