//! The newest version is found with and without a hint, and two creators make one table.

use cdc_iceberg::{Archive, Error};
use cdc_model::ObjectId;

use crate::support::{Fault, Log, Warehouse, acme, components, read};

#[tokio::test]
async fn the_newest_version_is_found_whatever_the_hint_says() {
    let (warehouse, log) = (Warehouse::new(), Log::of(30));
    let mut archive = warehouse.archive(1).await;
    for n in 0..30 {
        archive.append(&log.batch(n..n + 1)).await.unwrap();
    }
    let hint = warehouse.table().join("metadata/version-hint.text");
    assert_eq!(std::fs::read_to_string(&hint).unwrap(), "31");
    for text in [
        "31",
        "30",
        " 29\n",
        "1",
        "0",
        "99",
        "",
        "v31",
        "x",
        "-1",
        "99999999999999999999999",
        "18446744073709551615",
    ] {
        std::fs::write(&hint, text).unwrap();
        let found = warehouse.archive(2).await.status().await.unwrap().metadata_version;
        assert_eq!(found, 31, "{text:?}");
        assert_eq!(std::fs::read_to_string(&hint).unwrap(), "31", "repaired for other readers");
    }
    std::fs::write(&hint, [0xff, 0xfe]).unwrap();
    assert_eq!(warehouse.archive(2).await.status().await.unwrap().metadata_version, 31);
    std::fs::remove_file(&hint).unwrap();
    assert_eq!(read(&warehouse.archive(2).await).await, log.records());
}

#[tokio::test]
async fn a_reader_sees_later_commits_after_a_refresh_and_not_before() {
    let (warehouse, log) = (Warehouse::new(), Log::of(40));
    let mut writer = warehouse.archive(1).await;
    let mut reader = Archive::open_existing(&warehouse.location(), &acme(), components(2)).await.unwrap();
    for n in 0..40 {
        writer.append(&log.batch(n..n + 1)).await.unwrap();
    }
    assert_eq!(read(&reader).await, vec![]);
    assert_eq!(reader.refresh().await.unwrap(), writer.watermark());
    assert_eq!(read(&reader).await, log.records());
}

#[tokio::test]
async fn looking_leaves_a_stale_hint_alone_and_a_hint_that_cannot_be_repaired_stops_nobody() {
    let (warehouse, log) = (Warehouse::new(), Log::of(3));
    let mut archive = warehouse.archive(1).await;
    archive.append(&log.all()).await.unwrap();
    let hint = warehouse.table().join("metadata/version-hint.text");
    std::fs::write(&hint, "1").unwrap();
    Archive::open_existing(&warehouse.location(), &acme(), components(2)).await.unwrap();
    assert_eq!(std::fs::read_to_string(&hint).unwrap(), "1");
    let (storage, faulty) = warehouse.faulty();
    faulty.plan("version-hint.text", &[Fault::NotDone]);
    let opened = Archive::open_in(&storage, &acme(), components(2)).await.unwrap();
    assert_eq!((opened.watermark(), faulty.faults_left()), (archive.watermark(), 0));
}

#[tokio::test]
async fn a_version_that_goes_between_being_found_and_being_read_is_looked_for_again() {
    let (warehouse, log) = (Warehouse::new(), Log::of(3));
    let mut archive = warehouse.archive(1).await;
    archive.append(&log.all()).await.unwrap();
    let file = |version: u32| warehouse.table().join(format!("metadata/v{version}.metadata.json"));
    let (storage, faulty) = warehouse.faulty();
    faulty.rename_when_read(file(2), file(200));
    let mut reader = Archive::open_existing_in(&storage, &acme(), components(2)).await.unwrap();
    assert_eq!(reader.status().await.unwrap().metadata_version, 200);
    assert_eq!(read(&reader).await, log.records());
    std::fs::copy(file(200), file(201)).unwrap();
    faulty.rename_when_read(file(201), file(301));
    reader.refresh().await.unwrap();
    assert_eq!(reader.status().await.unwrap().metadata_version, 301);
    assert_eq!(reader.watermark(), archive.watermark());
}

#[tokio::test]
async fn two_creators_make_one_table() {
    let warehouse = Warehouse::new();
    let (one, two) = tokio::join!(warehouse.archive(1), warehouse.archive(2));
    assert_eq!(one.location(), two.location());
    assert_eq!(warehouse.files(".metadata.json"), ["metadata/v1.metadata.json"]);
}

#[tokio::test]
async fn what_is_not_there_is_not_created_by_looking() {
    let warehouse = Warehouse::new();
    for location in [warehouse.location(), cdc_iceberg::Location::folder(warehouse.path().join("none"))] {
        let error = Archive::open_existing(&location, &acme(), components(1)).await.unwrap_err();
        assert!(matches!(error, Error::NotFound { .. }), "{error:?}");
    }
    assert_eq!(std::fs::read_dir(warehouse.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn ids_that_differ_only_in_what_folders_cannot_hold_have_tables_of_their_own() {
    let warehouse = Warehouse::new();
    let ids =
        ["https://a.b/c~d", "https://a.b/c/d", "https://a.b/C/d", "https://a.b/c%2Fd", "https://a.b:81/c_d"];
    for id in ids {
        let id: ObjectId = id.parse().unwrap();
        let archive = Archive::open(&warehouse.location(), &id, components(1)).await.unwrap();
        assert!(archive.location().ends_with(&id.file_name()));
    }
    assert_eq!(std::fs::read_dir(warehouse.path().join("tables")).unwrap().count(), ids.len());
}
