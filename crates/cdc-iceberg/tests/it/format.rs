//! What other readers rely on: the schema, the summaries and the file names.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::support::{Log, Warehouse};

fn metadata(warehouse: &Warehouse, version: u32) -> Value {
    let path = warehouse.table().join(format!("metadata/v{version}.metadata.json"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[tokio::test]
async fn the_tables_schema_partition_and_order_never_change() {
    let warehouse = Warehouse::new();
    warehouse.archive(1).await;
    let json = metadata(&warehouse, 1);
    assert_eq!(json["format-version"], 2);
    let fixed = ["schemas", "partition-specs", "sort-orders", "last-column-id", "properties"];
    let fixed: BTreeMap<&str, &Value> = fixed.map(|key| (key, &json[key])).into();
    insta::assert_json_snapshot!("schema", fixed);
}

#[tokio::test]
async fn a_snapshots_summary_has_these_keys() {
    let (warehouse, log) = (Warehouse::new(), Log::of(3));
    let mut archive = warehouse.archive(1).await;
    archive.append(&log.batch(0..2)).await.unwrap();
    archive.append(&log.batch(2..3)).await.unwrap();
    let mut json = metadata(&warehouse, 3);
    for snapshot in json["snapshots"].as_array_mut().unwrap() {
        // Sizes are the compressor's business.
        snapshot["summary"]["added-files-size"] = "…".into();
        snapshot["summary"]["total-files-size"] = "…".into();
    }
    let summaries: Vec<&Value> =
        json["snapshots"].as_array().unwrap().iter().map(|it| &it["summary"]).collect();
    insta::assert_json_snapshot!("summaries", summaries);
}

#[tokio::test]
async fn the_same_inputs_make_the_same_metadata_bytes() {
    let bytes = |warehouse: &Warehouse| {
        let text = std::fs::read_to_string(warehouse.table().join("metadata/v3.metadata.json")).unwrap();
        text.replace(warehouse.path().canonicalize().unwrap().to_str().unwrap(), "")
    };
    let mut seen = Vec::new();
    for _ in 0..2 {
        let (warehouse, log) = (Warehouse::new(), Log::of(4));
        let mut archive = warehouse.archive(1).await;
        archive.append(&log.batch(0..2)).await.unwrap();
        archive.append(&log.batch(2..4)).await.unwrap();
        seen.push((bytes(&warehouse), warehouse.files("")));
    }
    assert_eq!(seen[0], seen[1]);
}
