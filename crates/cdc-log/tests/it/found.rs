//! What the differential test found in capture, each as the smallest history that shows it.

use cdc_log::{Log, Tables};
use rusqlite::Connection;

use crate::witness::{Follower, Reconciled, assert_agrees, attach, clock, folder, id};

#[test]
fn a_snapshot_of_a_wide_table_leaves_values_as_they_are_under_a_column_with_another_affinity() {
    // The parts of a row are put under each other, 64 values in each.
    let column = |at: usize| format!("c{at} {}", if at == 3 { "REAL" } else { "" });
    let columns = (0..70).map(column).collect::<Vec<_>>().join(", ");
    let folder = folder();
    let schema = format!(
        "CREATE TABLE t(k TEXT PRIMARY KEY, {columns}); INSERT INTO t(k, c3, c67) VALUES ('a', 1, 8)"
    );
    let (app, attached) = attach(folder.path(), &schema);
    let mut follower = Follower::default();
    follower.follow(attached.log(), Reconciled::Never);
    assert_agrees(&app, &follower.fold, "t");
}

#[test]
fn a_strict_table_of_an_owned_object_takes_another_column() {
    let folder = folder();
    let path = folder.path().join("object.db");
    let mut log = Log::open(&path, &id(), &clock()).unwrap();
    log.write(|tx| tx.execute_batch("CREATE TABLE t(k INTEGER PRIMARY KEY, v TEXT) STRICT")).unwrap();
    log.capture(&Tables::All).unwrap();
    log.write(|tx| {
        tx.execute_batch("INSERT INTO t VALUES (1, 'a'); ALTER TABLE t ADD COLUMN w INTEGER DEFAULT 7")
    })
    .unwrap();
    let mut follower = Follower::default();
    follower.follow(&log, Reconciled::Allowed);
    assert_agrees(&Connection::open(&path).unwrap(), &follower.fold, "t");
}
