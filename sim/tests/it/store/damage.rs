//! Each promise that the oracle holds a table against is broken on purpose, in the stored bytes.

use apache_avro::types::Value;
use apache_avro::{Reader, Writer};
use bytes::Bytes;
use cdc_model::{Clock, Sequence, Timestamp};
use object_store::path::Path;
use object_store::{ObjectStore as _, ObjectStoreExt as _, PutMode, PutOptions};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::json;
use sim::store::{Orphans, SimStore, Steps, TableOracle};

use super::log::Log;
use super::{Archiver, BASE, TABLE, clock};

const ROWS: usize = 40;

/// A sound table of several appends.
fn table_of(seed: u64, log: &Log) -> SimStore {
    let (steps, store) = (Steps::new(), SimStore::new(seed, clock()));
    let mut archiver = Archiver::new(&store, seed);
    while steps.run(archiver.append(log, 11)).unwrap() < log.len() {}
    store
}

/// What the oracle says of a table that was damaged after it had looked, and what one says that never looked before.
fn seen(damage: impl Fn(&SimStore)) -> (Vec<&'static str>, Vec<&'static str>) {
    let store = table_of(1, &Log::of(1, ROWS));
    let mut oracle = TableOracle::new(TABLE);
    oracle.check(&store).unwrap();
    damage(&store);
    let promises = |mut oracle: TableOracle| {
        let violations = oracle.check(&store).err().unwrap_or_default();
        violations.iter().map(|violation| violation.promise).collect()
    };
    (promises(oracle), promises(TableOracle::new(TABLE)))
}

fn newest(store: &SimStore) -> String {
    let version = |path: &String| {
        let name = path.rsplit('/').next()?;
        name.strip_prefix('v')?.strip_suffix(".metadata.json")?.parse::<u64>().ok()
    };
    store.paths_below(TABLE).into_iter().max_by_key(version).unwrap()
}

fn edit(store: &SimStore, change: impl FnOnce(&mut serde_json::Value)) {
    let path = newest(store);
    let mut json = serde_json::from_slice(&store.object(&path).unwrap()).unwrap();
    change(&mut json);
    store.plant(&path, serde_json::to_vec(&json).unwrap());
}

/// The snapshot that is the current one.
fn current(json: &mut serde_json::Value) -> &mut serde_json::Value {
    let id = json["current-snapshot-id"].clone();
    let snapshots = json["snapshots"].as_array_mut().unwrap();
    snapshots.iter_mut().find(|snapshot| snapshot["snapshot-id"] == id).unwrap()
}

fn mark(store: &SimStore, key: &str, value: &str) {
    edit(store, |json| {
        json["properties"][key] = json!(value);
        current(json)["summary"][key] = json!(value);
    });
}

fn within(address: &str) -> String {
    address.strip_prefix(&format!("{BASE}/")).unwrap().to_owned()
}

fn list(store: &SimStore) -> String {
    let mut json: serde_json::Value = serde_json::from_slice(&store.object(&newest(store)).unwrap()).unwrap();
    within(current(&mut json)["manifest-list"].as_str().unwrap())
}

fn values(bytes: &[u8]) -> Vec<Value> {
    Reader::new(bytes).unwrap().map(Result::unwrap).collect()
}

/// Rewrites an Avro file.
fn rewrite(store: &SimStore, path: &str, change: impl FnOnce(&mut Vec<Value>)) {
    let bytes = store.object(path).unwrap();
    let schema = Reader::new(bytes.as_ref()).unwrap().writer_schema().clone();
    let mut values = values(&bytes);
    change(&mut values);
    let mut writer = Writer::new(&schema, Vec::new());
    writer.extend(values).unwrap();
    store.plant(path, writer.into_inner().unwrap());
}

/// A member by its dotted path.
fn at<'a>(value: &'a mut Value, path: &str) -> &'a mut Value {
    path.split('.').fold(value, |value, name| {
        let value = plain(value);
        let Value::Record(members) = value else { panic!("no record around {name}") };
        &mut members.iter_mut().find(|(member, _)| member == name).unwrap().1
    })
}

fn plain(value: &mut Value) -> &mut Value {
    if let Value::Union(_, inner) = value { plain(inner) } else { value }
}

fn text(value: &mut Value) -> String {
    let Value::String(text) = plain(value) else { panic!("no text") };
    text.clone()
}

/// The newest manifest.
fn manifest(store: &SimStore) -> String {
    let mut listed = values(&store.object(&list(store)).unwrap());
    within(&text(at(listed.last_mut().unwrap(), "manifest_path")))
}

fn edit_list(store: &SimStore, change: impl FnOnce(&mut Vec<Value>)) {
    rewrite(store, &list(store), change);
}

/// Edits the first entry of the newest manifest.
fn edit_file(store: &SimStore, change: impl FnOnce(&mut Value)) {
    rewrite(store, &manifest(store), |entries| change(&mut entries[0]));
}

/// The value of a column in one of the maps by field id.
fn of_field<'a>(entry: &'a mut Value, map: &str, field: i32) -> &'a mut Value {
    let Value::Array(pairs) = plain(at(entry, map)) else { panic!("no map") };
    let key = pairs.iter_mut().position(|pair| *plain(at(pair, "key")) == Value::Int(field));
    plain(at(&mut pairs[key.unwrap()], "value"))
}

fn data_file(store: &SimStore) -> String {
    let mut entries = values(&store.object(&manifest(store)).unwrap());
    within(&text(at(&mut entries[0], "data_file.file_path")))
}

/// Copies an object and returns the address of the copy.
fn copy(store: &SimStore, from: &str, to: &str) -> Value {
    store.plant(to, store.object(from).unwrap());
    Value::String(format!("{BASE}/{to}"))
}

/// The same rows in the opposite order.
fn reversed(bytes: Bytes) -> Vec<u8> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap();
    let batches: Vec<_> = reader.map(Result::unwrap).collect();
    let mut writer = ArrowWriter::try_new(Vec::new(), batches[0].schema(), None).unwrap();
    for batch in batches.iter().rev() {
        for row in (0..batch.num_rows()).rev() {
            writer.write(&batch.slice(row, 1)).unwrap();
        }
    }
    writer.into_inner().unwrap()
}

/// The first data file with more than one row.
fn long_file(store: &SimStore) -> String {
    let mut oracle = TableOracle::new(TABLE);
    oracle.check(store).unwrap();
    let (path, ..) = oracle.files().find(|(_, rows, _)| *rows > 1).unwrap();
    path.to_owned()
}

type Damage = (&'static str, &'static str, fn(&SimStore));

/// What is done, and the promise that one who never looked before finds broken.
const FOUND_AT_FIRST_SIGHT: &[Damage] = &[
    ("a data file is gone", "what a snapshot names is there", |store| {
        assert!(store.remove(&data_file(store)));
    }),
    ("a manifest is gone", "what a snapshot names is there", |store| assert!(store.remove(&manifest(store)))),
    ("a list is gone", "what a snapshot names is there", |store| assert!(store.remove(&list(store)))),
    ("metadata is cut", "every file is readable", |store| {
        let path = newest(store);
        store.plant(&path, store.object(&path).unwrap().slice(..100));
    }),
    ("a manifest is cut", "every file is readable", |store| {
        let path = manifest(store);
        store.plant(&path, store.object(&path).unwrap().slice(..100));
    }),
    ("a data file is cut", "every file is readable", |store| {
        let path = data_file(store);
        store.plant(&path, store.object(&path).unwrap().slice(..100));
    }),
    ("only the property moves", "property and snapshot agree", |store| {
        edit(store, |json| json["properties"]["cdc.last-sequence"] = json!("41"));
    }),
    ("the property has half a mark", "property and snapshot agree", |store| {
        edit(store, |json| drop(json["properties"].as_object_mut().unwrap().remove("cdc.digest")));
    }),
    ("the hint names what is to come", "the hint is never ahead", |store| {
        store.plant(&format!("{TABLE}/metadata/version-hint.text"), "99");
    }),
    ("the location is another", "a table lies where it says", |store| {
        edit(store, |json| json["location"] = json!("sim://warehouse/tables/other"));
    }),
    ("the list lies elsewhere", "a table names what is in its warehouse", |store| {
        edit(store, |json| current(json)["manifest-list"] = json!("s3://elsewhere/list.avro"));
    }),
    ("a manifest is listed twice", "no file is named twice", |store| {
        edit_list(store, |manifests| manifests.push(manifests[0].clone()));
    }),
    ("a total is another", "totals are sums", |store| {
        edit(store, |json| current(json)["summary"]["total-records"] = json!("41"));
    }),
    ("a snapshot is its own parent", "a snapshot follows its parent", |store| {
        edit(store, |json| current(json)["parent-snapshot-id"] = current(json)["snapshot-id"].clone());
    }),
    ("a list counts too few rows", "a list tells what its manifests hold", |store| {
        edit_list(store, |manifests| {
            *at(manifests.last_mut().unwrap(), "added_rows_count") = Value::Long(1);
        });
    }),
    ("a list names deletes", "there are no row deletes", |store| {
        edit_list(store, |manifests| *at(manifests.last_mut().unwrap(), "content") = Value::Int(1));
    }),
    ("a manifest is named for other rows", "a manifest's name tells what it holds", |store| {
        let name = format!("{TABLE}/metadata/r.1.2.3.4.5.copy-m0.avro");
        let address = copy(store, &manifest(store), &name);
        edit_list(store, |manifests| *at(manifests.last_mut().unwrap(), "manifest_path") = address);
    }),
    ("a manifest counts too many rows", "a manifest tells what its files hold", |store| {
        edit_file(store, |entry| *at(entry, "data_file.record_count") = Value::Long(99));
    }),
    ("a manifest counts nulls that are none", "a manifest tells what its files hold", |store| {
        edit_file(store, |entry| *of_field(entry, "data_file.null_value_counts", 3) = Value::Long(99));
    }),
    ("a lower bound is too high", "bounds contain the rows", |store| {
        edit_file(store, |entry| {
            *of_field(entry, "data_file.lower_bounds", 21) = Value::Bytes(99_i64.to_le_bytes().to_vec());
        });
    }),
    ("an upper bound is too low", "bounds contain the rows", |store| {
        edit_file(store, |entry| *of_field(entry, "data_file.upper_bounds", 4) = Value::Bytes(b"a".to_vec()));
    }),
    ("a partition is of another day", "a file is of the day of its rows", |store| {
        edit_file(store, |entry| {
            let Value::Record(partition) = plain(at(entry, "data_file.partition")) else { panic!() };
            let (Value::Date(day) | Value::Int(day)) = plain(&mut partition[0].1) else { panic!() };
            *day += 1;
        });
    }),
    ("a file lies in another day's folder", "a file is of the day of its rows", |store| {
        let path = format!("{TABLE}/data/year=2025/month=01/day=15/00000-0-copy.parquet");
        let address = copy(store, &data_file(store), &path);
        edit_file(store, |entry| *at(entry, "data_file.file_path") = address);
    }),
    ("a file is listed under two names", "each row once", |store| {
        let from = data_file(store);
        let address = copy(store, &from, &from.replace(".parquet", "-copy.parquet"));
        rewrite(store, &manifest(store), |entries| {
            let mut copy = entries[0].clone();
            *at(&mut copy, "data_file.file_path") = address;
            entries.push(copy);
        });
    }),
    ("a manifest is dropped from the list", "every sequence up to the watermark", |store| {
        edit_list(store, |manifests| drop(manifests.remove(1)));
    }),
    ("the mark lies before rows", "no row beyond the watermark", |store| {
        mark(store, "cdc.last-sequence", "30");
    }),
    ("the newest time is another", "valid through the newest row", |store| {
        mark(store, "cdc.valid-through-ts", "5");
    }),
    ("rows lie in another order", "rows are sorted by sequence", |store| {
        let path = long_file(store);
        store.plant(&path, reversed(store.object(&path).unwrap()));
    }),
    ("two manifests differ on a file", "manifests say the same of a file", |store| {
        let old = list(store);
        let name = format!("{TABLE}/metadata/copy-m0.avro");
        let address = copy(store, &manifest(store), &name);
        rewrite(store, &name, |entries| {
            *of_field(&mut entries[0], "data_file.lower_bounds", 21) = Value::Bytes(vec![0; 8]);
        });
        rewrite(store, &old, |manifests| {
            let mut other = manifests.last().unwrap().clone();
            *at(&mut other, "manifest_path") = address;
            manifests.push(other);
        });
    }),
];

/// What is done, and the promise that only one who looked before finds broken.
const FOUND_BY_MEMORY: &[Damage] = &[
    ("a data file is written again", "a committed file never changes", |store| {
        store.plant(&data_file(store), "other");
    }),
    ("a manifest is written again", "a committed file never changes", |store| {
        rewrite(store, &manifest(store), |_| {});
    }),
    ("a list is written again", "a committed file never changes", |store| {
        rewrite(store, &list(store), |_| {});
    }),
    ("the newest version is gone", "versions go up", |store| assert!(store.remove(&newest(store)))),
    ("the newest version is gone", "the watermark never moves back", |store| {
        assert!(store.remove(&newest(store)));
    }),
    ("all versions are gone", "a table stays", |store| {
        for path in store.paths_below(TABLE).iter().filter(|path| path.ends_with(".metadata.json")) {
            assert!(store.remove(path));
        }
    }),
    ("another table is in its place", "a table stays the same table", |store| {
        edit(store, |json| json["table-uuid"] = json!("00000000-0000-0000-0000-000000000001"));
    }),
    ("rows say something else", "a row never changes", |store| {
        for path in store.paths_below(TABLE) {
            assert!(store.remove(&path));
        }
        let other = table_of(2, &Log::of(2, ROWS));
        for path in other.paths_below(TABLE) {
            store.plant(&path, other.object(&path).unwrap());
        }
    }),
];

#[test]
fn damage_is_found_at_first_sight() {
    for (what, promise, damage) in FOUND_AT_FIRST_SIGHT {
        let (_, fresh) = seen(damage);
        assert!(fresh.contains(promise), "{what}: {fresh:?}");
    }
}

#[test]
fn what_was_different_before_is_found_by_memory() {
    for (what, promise, damage) in FOUND_BY_MEMORY {
        let (known, fresh) = seen(damage);
        assert!(known.contains(promise), "{what}: {known:?}");
        assert!(!fresh.contains(promise), "{what}: {fresh:?}");
    }
}

#[test]
fn undamaged_tables_are_sound_to_both() {
    assert_eq!(seen(|_| {}), (vec![], vec![]));
}

#[test]
fn a_log_whose_time_goes_back_or_whose_origins_repeat_is_found() {
    let back = Log::altered(1, ROWS, |record| {
        if record.sequence == Sequence::new(30) && !record.is_own() {
            record.timestamp = Timestamp::ZERO;
        }
    });
    let repeat = Log::altered(1, ROWS, |record| {
        if record.sequence > Sequence::new(20) && !record.is_own() {
            record.origin_sequence = Sequence::new(1);
        }
    });
    for (log, promise) in
        [(back, "log time never decreases"), (repeat, "every event once, in its origin's order")]
    {
        let violations = TableOracle::new(TABLE).check(&table_of(1, &log)).unwrap_err();
        assert!(violations.iter().all(|violation| violation.promise == promise), "{violations:?}");
    }
}

#[test]
fn filtered_rows_must_be_declared_and_stay_away() {
    let (steps, store, log) = (Steps::new(), SimStore::new(1, clock()), Log::of(1, ROWS));
    let mut archiver = Archiver::new(&store, 1);
    let archive = steps.run(archiver.open()).unwrap();
    steps.run(archive.append(&log.filtered(0..20, |sequence| !(5..8).contains(&sequence)))).unwrap();
    steps.run(archive.append(&log.filtered(20..40, |sequence| sequence != 40))).unwrap();
    let promises = |absent: &[std::ops::RangeInclusive<i64>]| {
        let mut oracle = TableOracle::new(TABLE);
        absent.iter().cloned().for_each(|range| oracle.declare_absent(range));
        let checked = oracle.check(&store);
        checked.map(|found| found.rows.len()).map_err(|violations| violations[0].promise)
    };
    let dense = "every sequence up to the watermark";
    assert_eq!(promises(&[5..=7, 40..=40]), Ok(36));
    assert_eq!(promises(&[5..=7, 40..=90]), Ok(36));
    assert_eq!(promises(&[5..=7]), Err(dense));
    assert_eq!(promises(&[5..=8, 40..=40]), Err(dense));
    assert_eq!(promises(&[]), Err(dense));
}

#[test]
fn orphans_are_counted() {
    let store = table_of(1, &Log::of(1, ROWS));
    let count = || TableOracle::new(TABLE).check(&store).unwrap().orphans;
    assert_eq!(count(), Orphans::default());
    let data = data_file(&store);
    copy(&store, &data, &data.replace(".parquet", "-copy.parquet"));
    copy(&store, &manifest(&store), &format!("{TABLE}/metadata/copy-m0.avro"));
    assert_eq!(count(), Orphans { data: 1, metadata: 1 });
}

#[test]
fn a_check_gives_only_what_is_new() {
    let (steps, store, log) = (Steps::new(), SimStore::new(1, clock()), Log::of(1, ROWS));
    let (mut archiver, mut oracle) = (Archiver::new(&store, 1), TableOracle::new(TABLE));
    assert_eq!(oracle.check(&store).unwrap().version, 0);
    let mut found = Vec::new();
    while found.len() < ROWS {
        steps.run(archiver.append(&log, 7)).unwrap();
        found.push(oracle.check(&store).unwrap().rows.len());
        assert_eq!(oracle.check(&store).unwrap().rows, []);
        if found.iter().sum::<usize>() == ROWS {
            break;
        }
    }
    assert_eq!(found, [7, 7, 7, 7, 7, 5]);
    assert_eq!(oracle.files().map(|(_, rows, _)| rows).sum::<usize>(), ROWS);
}

#[tokio::test]
async fn a_name_that_is_written_once_and_gets_other_bytes_is_a_violation() {
    let store = SimStore::new(1, Clock::from_fn(|| Timestamp::ZERO));
    let host = store.for_host(0);
    let put = async |name: &str, bytes: &'static str| {
        host.put(&Path::parse(name).unwrap(), bytes.into()).await.unwrap();
        store.violations().len()
    };
    assert_eq!(put("version-hint.text", "1").await + put("version-hint.text", "2").await, 0);
    for (found, name) in ["d.parquet", "m.avro", "v1.metadata.json"].iter().enumerate() {
        assert_eq!((put(name, "one").await, put(name, "one").await), (found, found), "{name}");
        assert_eq!(put(name, "other").await, found + 1, "{name}");
    }
    host.delete(&"v1.metadata.json".into()).await.unwrap();
    assert_eq!(put("v1.metadata.json", "third").await, 3);
    host.delete(&"d.parquet".into()).await.unwrap();
    assert_eq!(put("d.parquet", "third").await, 4);
}

#[tokio::test]
async fn the_store_is_one() {
    let store = SimStore::new(1, Clock::from_fn(|| Timestamp::new(1_500)));
    let (one, other) = (store.for_host(1), store.for_host(2));
    let (path, create) = (Path::from("a/b"), PutOptions::from(PutMode::Create));
    let put = one.put_opts(&path, "12345".into(), create.clone()).await.unwrap();
    let again = other.put_opts(&path, "other".into(), create).await.unwrap_err();
    assert!(matches!(again, object_store::Error::AlreadyExists { .. }), "{again:?}");
    let head = other.head(&path).await.unwrap();
    assert_eq!((head.size, head.e_tag.clone(), head.last_modified.timestamp_millis()), (5, put.e_tag, 1_500));
    assert_eq!(other.get_range(&path, 1..3).await.unwrap(), "23");
    assert_eq!(other.get_ranges(&path, &[0..1, 4..9]).await.unwrap(), ["1", "5"]);

    let update =
        |tag: Option<String>| PutMode::Update(object_store::UpdateVersion { e_tag: tag, version: None });
    let stale = other.put_opts(&path, "x".into(), update(Some("\"0\"".to_owned())).into()).await.unwrap_err();
    assert!(matches!(stale, object_store::Error::Precondition { .. }), "{stale:?}");
    other.put_opts(&path, "new".into(), update(head.e_tag).into()).await.unwrap();
    one.copy(&path, &"a/c/d".into()).await.unwrap();
    one.copy_if_not_exists(&path, &"a/c/d".into()).await.unwrap_err();
    one.rename(&path, &"ab".into()).await.unwrap();
    let listed = one.list_with_delimiter(Some(&"a".into())).await.unwrap();
    assert_eq!((listed.objects.len(), listed.common_prefixes), (0, vec![Path::from("a/c")]));
    assert_eq!(store.paths_below(""), ["a/c/d", "ab"]);
    assert_eq!(store.paths_below("a"), ["a/c/d"]);
    one.delete(&path).await.unwrap();
    assert!(matches!(one.get(&path).await, Err(object_store::Error::NotFound { .. })));
}
