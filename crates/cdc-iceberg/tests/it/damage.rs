//! Damage and misuse get a typed answer that names the place.

use std::sync::Arc;

use cdc_iceberg::{Archive, Error, Location, Storage};
use cdc_model::{Mark, Remedy};
use futures_util::TryStreamExt as _;
use object_store::local::LocalFileSystem;

use crate::support::{EPOCH, Faulty, Log, Warehouse, acme, components};

async fn open(warehouse: &Warehouse) -> Result<Archive, Error> {
    Archive::open(&warehouse.location(), &acme(), components(9)).await
}

#[tokio::test]
async fn corrupt_metadata_is_named() {
    for bytes in ["", "{", "{}", "[]", r#"{"format-version":2}"#] {
        let warehouse = Warehouse::new();
        warehouse.archive(1).await;
        std::fs::write(warehouse.table().join("metadata/v1.metadata.json"), bytes).unwrap();
        let error = open(&warehouse).await.unwrap_err();
        assert!(
            matches!(&error, Error::Corrupt { file, .. } if file.ends_with("/metadata/v1.metadata.json"))
        );
        assert_eq!(error.remedy(), Remedy::Restore);
        assert!(error.to_string().contains("v1.metadata.json"), "{error}");
    }
}

#[tokio::test]
async fn damaged_and_missing_files_of_a_table_are_named() {
    for (ending, cut) in [(".parquet", true), ("-m0.avro", true), (".parquet", false), ("-m0.avro", false)] {
        let (warehouse, log) = (Warehouse::new(), Log::of(10));
        let mut archive = warehouse.archive(1).await;
        archive.append(&log.all()).await.unwrap();
        let name = warehouse.files(ending).remove(0);
        let path = warehouse.table().join(&name);
        if cut {
            let bytes = std::fs::read(&path).unwrap();
            std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        } else {
            std::fs::remove_file(&path).unwrap();
        }
        let error = archive.scan().stream().try_concat().await.unwrap_err();
        assert!(
            matches!(&error, Error::Corrupt { file, .. } if file.ends_with(&name)),
            "{name} {cut}: {error:?}"
        );
    }
}

#[tokio::test]
async fn folders_that_are_not_archives_are_left_alone() {
    let warehouse = Warehouse::new();
    std::fs::create_dir_all(warehouse.table().join("data")).unwrap();
    std::fs::write(warehouse.table().join("data/holiday.jpg"), "x").unwrap();
    let error = open(&warehouse).await.unwrap_err();
    assert!(matches!(error, Error::NotATable { .. }), "{error:?}");
    assert_eq!(warehouse.files(""), ["data/holiday.jpg"]);

    let warehouse = Warehouse::new();
    std::fs::create_dir_all(warehouse.path().join("tables")).unwrap();
    std::fs::write(warehouse.table(), "a file").unwrap();
    let error = open(&warehouse).await.unwrap_err();
    assert!(matches!(error, Error::NotATable { .. }), "{error:?}");
    assert_eq!(error.remedy(), Remedy::FixRequest);
}

/// Rewrites the newest metadata as someone else's tool would.
fn edit(warehouse: &Warehouse, version: u32, edit: impl FnOnce(&mut serde_json::Value)) {
    let path = warehouse.table().join(format!("metadata/v{version}.metadata.json"));
    let mut json = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    edit(&mut json);
    std::fs::write(&path, json.to_string()).unwrap();
}

#[tokio::test]
async fn tables_of_others_are_refused() {
    for (key, value) in [("cdc.object", "https://headless.ly"), ("other", "1")] {
        let warehouse = Warehouse::new();
        warehouse.archive(1).await;
        edit(&warehouse, 1, |json| json["properties"] = serde_json::json!({ key: value }));
        let error = open(&warehouse).await.unwrap_err();
        assert!(matches!(error, Error::NotATable { .. }), "{error:?}");
    }
    let warehouse = Warehouse::new();
    warehouse.archive(1).await;
    edit(&warehouse, 1, |json| json["schemas"][0]["fields"][20]["name"] = "place".into());
    let error = open(&warehouse).await.unwrap_err();
    assert!(matches!(error, Error::NotATable { .. }), "{error:?}");
}

#[tokio::test]
async fn a_property_that_the_snapshot_denies_stops_the_archive() {
    let (warehouse, log) = (Warehouse::new(), Log::of(10));
    let mut archive = warehouse.archive(1).await;
    archive.append(&log.batch(0..5)).await.unwrap();
    archive.append(&log.batch(5..10)).await.unwrap();
    edit(&warehouse, 3, |json| json["properties"]["cdc.last-sequence"] = "7".into());
    let error = open(&warehouse).await.unwrap_err();
    let at = |mark: &Option<Mark>| mark.map(|mark| mark.sequence.get());
    assert!(
        matches!(&error, Error::MarkConflict { property, snapshot, .. }
            if at(property) == Some(7) && at(snapshot) == Some(10)),
        "{error:?}"
    );
    edit(&warehouse, 3, |json| json["properties"]["cdc.last-sequence"] = "x".into());
    let error = open(&warehouse).await.unwrap_err();
    assert!(matches!(&error, Error::Corrupt { file, .. } if file.ends_with("v3.metadata.json")), "{error:?}");
}

#[tokio::test]
async fn a_rollback_by_another_engine_is_noticed() {
    let (warehouse, log) = (Warehouse::new(), Log::of(10));
    let mut archive = warehouse.archive(1).await;
    archive.append(&log.batch(0..5)).await.unwrap();
    archive.append(&log.batch(5..10)).await.unwrap();
    edit(&warehouse, 3, |json| {
        let first = json["snapshots"][0]["snapshot-id"].clone();
        json["current-snapshot-id"] = first.clone();
        json["refs"]["main"]["snapshot-id"] = first;
        json["snapshot-log"].as_array_mut().unwrap().pop();
    });
    let error = open(&warehouse).await.unwrap_err();
    assert!(matches!(error, Error::MarkConflict { .. }), "{error:?}");
}

#[tokio::test]
async fn a_summary_that_another_engine_left_without_our_keys_falls_back_to_its_ancestor() {
    let (warehouse, log) = (Warehouse::new(), Log::of(10));
    let mut archive = warehouse.archive(1).await;
    archive.append(&log.batch(0..10)).await.unwrap();
    let strip = |summary: &mut serde_json::Value| {
        summary.as_object_mut().unwrap().retain(|key, _| !key.starts_with("cdc."));
    };
    edit(&warehouse, 2, |json| strip(&mut json["snapshots"][0]["summary"]));
    let archive = open(&warehouse).await.unwrap();
    assert_eq!(archive.watermark(), Some(Mark::at(EPOCH, log.position(10))));
}

#[tokio::test]
async fn an_unwritable_warehouse_names_the_path_and_the_remedy() {
    let warehouse = Warehouse::new();
    // A file in the way fails for every user, root included.
    std::fs::write(warehouse.path().join("file"), "x").unwrap();
    let location = Location::folder(warehouse.path().join("file/warehouse"));
    let error = Archive::open(&location, &acme(), components(1)).await.unwrap_err();
    assert!(
        matches!(&error, Error::Unwritable { path, .. } if path.ends_with("file/warehouse")),
        "{error:?}"
    );
    assert!(error.to_string().contains("make it writable"), "{error}");
    assert_eq!(error.remedy(), Remedy::FixRequest);
}

#[tokio::test]
async fn a_store_that_overwrites_on_create_is_refused() {
    let warehouse = Warehouse::new();
    let path = warehouse.path().canonicalize().unwrap();
    let store = Faulty::overwriting(LocalFileSystem::new_with_prefix(&path).unwrap());
    let storage = Storage::over(Arc::new(store), format!("file://{}", path.display()));
    let error = Archive::open_in(&storage, &acme(), components(1)).await.unwrap_err();
    assert!(matches!(error, Error::CreateNotExclusive { .. }), "{error:?}");
    assert_eq!(std::fs::read_dir(warehouse.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_warehouse_that_was_moved_says_where_it_belongs() {
    let (warehouse, log) = (Warehouse::new(), Log::of(3));
    let mut archive = warehouse.archive(1).await;
    archive.append(&log.all()).await.unwrap();
    let moved = Warehouse::new();
    std::fs::rename(warehouse.path().join("tables"), moved.path().join("tables")).unwrap();
    let error = open(&moved).await.unwrap().scan().stream().try_concat().await.unwrap_err();
    let old = warehouse.path().canonicalize().unwrap();
    assert!(
        matches!(&error, Error::OutsideWarehouse { location, .. } if location.contains(old.to_str().unwrap())),
        "{error:?}"
    );
}
