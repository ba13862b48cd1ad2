//! Deleting old versions of the metadata and what only they name.
//!
//! The old versions are the journal of what is to be deleted: a version goes after everything that it names and the
//! next one does not. So a version that is there has all it names, a crash at any point leaves work that the next
//! sweep finds again, and files of a commit under way, which no version names, are never touched.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use cdc_model::mutant;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use crate::catalog::{FsCatalog, Loaded, NamedSnapshot, VERSIONS_KEPT, version_file, version_of};
use crate::manifest::{listed, manifests};
use crate::mark::FIRST_SEQUENCE;
use crate::snapshot::MANIFESTS_REPLACED;
use crate::{Result, Storage};

/// Objects deleted after one commit at most. One commit in the long run makes three that must go later.
const DELETES_MAX: usize = 16;
/// Old versions read after one commit at most. A table that was never swept catches up with several.
const VERSIONS_MAX: usize = 4;
/// Objects deleted at the same time.
const DELETES_AT_ONCE: usize = 8;

/// Where the deleting is.
#[derive(Debug, Default)]
pub(crate) struct Sweep {
    /// Versions that may have a file. Empty until the folder was listed.
    versions: BTreeSet<u64>,
    /// The oldest version, when it was read, and what must go before it.
    oldest: Option<(u64, Needless)>,
    /// What the version after it names, when that was read.
    next: Option<(u64, Vec<NamedSnapshot>)>,
}

/// Files to delete, manifests first: the lists tell which they are.
#[derive(Debug, Default)]
struct Needless {
    manifests: VecDeque<String>,
    lists: VecDeque<String>,
}

impl Sweep {
    /// Deletes a bounded part of what `table`, the newest version, made needless.
    pub(crate) async fn after_commit(
        &mut self,
        catalog: &FsCatalog,
        storage: &Storage,
        table: &Loaded,
    ) -> Result<()> {
        match self.versions.last() {
            Some(last) => self.versions.extend(last + 1..=table.version),
            None => self.versions = catalog.versions(&table.location).await?,
        }
        let kept_from = kept_from(table);
        let mut deletes_left = DELETES_MAX;
        for _ in 0..VERSIONS_MAX {
            let Some(version) = self.versions.first().copied().filter(|version| *version < kept_from) else {
                return Ok(());
            };
            let mut first = match self.oldest.take() {
                Some((read, first)) if read == version => first,
                _ => self.only_named_by(version, catalog, storage, table).await?,
            };
            let deleted = first.delete_some(deletes_left, storage).await;
            let finished = first.is_empty();
            self.oldest = Some((version, first));
            deletes_left = deletes_left.saturating_sub(deleted?);
            if !finished || deletes_left == 0 {
                return Ok(());
            }
            storage.delete(&version_file(&table.location, version)).await?;
            deletes_left -= 1;
            self.versions.remove(&version);
        }
        Ok(())
    }

    /// The files that `version` names and no later version does.
    async fn only_named_by(
        &mut self,
        version: u64,
        catalog: &FsCatalog,
        storage: &Storage,
        table: &Loaded,
    ) -> Result<Needless> {
        // Only the version that was built on this one tells what was removed. One that lies alone is the remains of a
        // commit that came too late.
        if !self.versions.contains(&(version + 1)) {
            return Ok(Needless::default());
        }
        let own = match self.next.take() {
            Some((read, named)) if read == version => Some(named),
            _ => catalog.named(&table.location, version).await?,
        };
        let Some(next) = catalog.named(&table.location, version + 1).await? else {
            return Ok(Needless::default());
        };
        let own = own.unwrap_or_default();
        let lists = removed_lists(&own, &next, table);
        let manifests = replaced_manifests(&own, &next, storage, table).await?;
        self.next = Some((version + 1, next));
        Ok(Needless { manifests, lists })
    }
}

/// The first version to keep: all that the newest names in its log, and no fewer than [`VERSIONS_KEPT`].
fn kept_from(table: &Loaded) -> u64 {
    let logged = table.metadata.metadata_log().iter().filter_map(|entry| {
        let (_, name) = entry.metadata_file.rsplit_once('/')?;
        version_of(name)
    });
    logged.chain([table.version.saturating_sub(VERSIONS_KEPT)]).min().unwrap_or(0)
}

/// The manifest lists of the snapshots that were removed with the step from one version to the next.
fn removed_lists(own: &[NamedSnapshot], next: &[NamedSnapshot], table: &Loaded) -> VecDeque<String> {
    let folder = format!("{}/metadata/", table.location);
    let kept_ids: BTreeSet<i64> = next.iter().map(|snapshot| snapshot.snapshot_id).collect();
    let kept_lists: BTreeSet<&str> = next
        .iter()
        .map(|snapshot| snapshot.manifest_list.as_str())
        .chain(table.metadata.snapshots().map(|snapshot| snapshot.manifest_list()))
        .collect();
    own.iter()
        .filter(|snapshot| !kept_ids.contains(&snapshot.snapshot_id) || mutant!("live-list-deleted"))
        .map(|snapshot| snapshot.manifest_list.as_str())
        .filter(|list| list.starts_with(&folder))
        .filter(|list| !kept_lists.contains(list) || mutant!("live-list-deleted"))
        .map(str::to_owned)
        .collect()
}

/// The manifests that a merge replaced, of the snapshots removed with the step from one version to the next.
async fn replaced_manifests(
    own: &[NamedSnapshot],
    next: &[NamedSnapshot],
    storage: &Storage,
    table: &Loaded,
) -> Result<VecDeque<String>> {
    let mut found = VecDeque::new();
    for (removed, child) in merges(own, next) {
        let (before, after) =
            (in_list(removed, storage, table).await?, in_list(child, storage, table).await?);
        if let (Some(before), Some(after)) = (before, after) {
            found.extend(before.difference(&after).cloned());
        }
    }
    if !found.is_empty() {
        let folder = format!("{}/metadata/", table.location);
        let live: BTreeSet<String> =
            manifests(storage, table).await?.into_iter().map(|manifest| manifest.manifest_path).collect();
        found.retain(|manifest| manifest.starts_with(&folder) && !live.contains(manifest));
    }
    Ok(found)
}

/// The removed snapshots whose child was a merge of ours, with that child.
///
/// Only where every snapshot left descends from the child: none of those lists what it replaced. After a rollback, or
/// with a tag on an older snapshot, the manifests stay.
fn merges<'a>(
    own: &'a [NamedSnapshot],
    next: &'a [NamedSnapshot],
) -> Vec<(&'a NamedSnapshot, &'a NamedSnapshot)> {
    let all: BTreeMap<(i64, i64), &NamedSnapshot> =
        own.iter().chain(next).map(|it| ((it.sequence_number, it.snapshot_id), it)).collect();
    let first_kept = next.iter().map(|it| it.sequence_number).min();
    let newest_first: Vec<&NamedSnapshot> = all.into_values().rev().collect();
    let pairs = newest_first.iter().zip(newest_first.iter().skip(1));
    pairs
        .take_while(|(child, parent)| child.parent_snapshot_id == Some(parent.snapshot_id))
        .filter(|(child, parent)| {
            first_kept.is_some_and(|first| parent.sequence_number < first)
                && child.summary.contains_key(MANIFESTS_REPLACED)
                && child.summary.contains_key(FIRST_SEQUENCE)
        })
        .map(|(child, parent)| (*parent, *child))
        .collect()
}

/// The paths of the manifests in a snapshot's list; none when the list is gone.
async fn in_list(
    snapshot: &NamedSnapshot,
    storage: &Storage,
    table: &Loaded,
) -> Result<Option<BTreeSet<String>>> {
    let listed = listed(storage, &snapshot.manifest_list, table.metadata.format_version()).await?;
    Ok(listed.map(|listed| listed.into_iter().map(|manifest| manifest.manifest_path).collect()))
}

impl Needless {
    fn is_empty(&self) -> bool {
        self.manifests.is_empty() && self.lists.is_empty()
    }

    /// Deletes the first files, `max` at most, and returns how many. What is gone already counts as deleted.
    async fn delete_some(&mut self, max: usize, storage: &Storage) -> Result<usize> {
        let manifests = delete_first(&mut self.manifests, max, storage).await?;
        if !self.manifests.is_empty() {
            return Ok(manifests);
        }
        let lists = delete_first(&mut self.lists, max - manifests, storage).await?;
        Ok(manifests + lists)
    }
}

async fn delete_first(files: &mut VecDeque<String>, max: usize, storage: &Storage) -> Result<usize> {
    let count = files.len().min(max);
    let deletes: Vec<_> = files.iter().take(count).map(|file| storage.delete(file)).collect();
    stream::iter(deletes).buffer_unordered(DELETES_AT_ONCE).try_collect::<Vec<()>>().await?;
    files.drain(..count);
    Ok(count)
}
