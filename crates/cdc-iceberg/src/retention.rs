//! How many snapshots a table keeps.

use std::collections::BTreeSet;

use iceberg::TableUpdate;

use crate::catalog::{Loaded, VERSIONS_KEPT};

/// Snapshots a table keeps unless told otherwise. Every row is in the newest; the others are for readers that look back.
pub(crate) const SNAPSHOTS_KEPT: usize = 100;
/// How many older versions the metadata names in its log; the table library and other engines heed it.
pub(crate) const VERSIONS_MAX: &str = "write.metadata.previous-versions-max";

/// The property of a new table, and of one that lacks it.
pub(crate) fn versions_max() -> (String, String) {
    (VERSIONS_MAX.to_owned(), VERSIONS_KEPT.to_string())
}

/// What removes the snapshots beyond the newest `kept`, once `table` has one more.
///
/// It must follow the update that makes the new one current: the library drops a branch whose snapshot it removes.
pub(crate) fn removals(table: &Loaded, kept: usize) -> Vec<TableUpdate> {
    let metadata = &table.metadata;
    let mut by_age: Vec<(i64, i64)> =
        metadata.snapshots().map(|it| (it.sequence_number(), it.snapshot_id())).collect();
    by_age.sort_unstable();
    let too_many = (by_age.len() + 1).saturating_sub(kept.max(1));
    let removed: BTreeSet<i64> = by_age
        .into_iter()
        .take(too_many)
        .map(|(_, id)| id)
        .filter(|id| !table.referenced.contains(id))
        .collect();
    if removed.is_empty() {
        return Vec::new();
    }
    let statistics = metadata.statistics_iter().map(|file| file.snapshot_id);
    let partitions = metadata.partition_statistics_iter().map(|file| file.snapshot_id);
    let gone = |id: &i64| removed.contains(id);
    let mut updates = vec![TableUpdate::RemoveSnapshots { snapshot_ids: removed.iter().copied().collect() }];
    updates.extend(statistics.filter(gone).map(|snapshot_id| TableUpdate::RemoveStatistics { snapshot_id }));
    updates.extend(
        partitions.filter(gone).map(|snapshot_id| TableUpdate::RemovePartitionStatistics { snapshot_id }),
    );
    updates
}
