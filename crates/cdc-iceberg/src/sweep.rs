//! Deleting old versions of the metadata and what only they name.
//!
//! The old versions are the journal of what is to be deleted: a version goes after everything that it names and the
//! next one does not. So a version that is there has all it names, a crash at any point leaves work that the next
//! sweep finds again, and files of a commit under way, which no version names, are never touched.

use std::collections::{BTreeSet, VecDeque};

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use crate::catalog::{FsCatalog, Loaded, NamedSnapshot, VERSIONS_KEPT, version_file, version_of};
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
    oldest: Option<(u64, VecDeque<String>)>,
    /// What the version after it names, when that was read.
    next: Option<(u64, Vec<NamedSnapshot>)>,
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
                _ => self.only_named_by(version, catalog, table).await?,
            };
            let deleted = delete_some(&mut first, deletes_left, storage).await;
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
        table: &Loaded,
    ) -> Result<VecDeque<String>> {
        // Only the version that was built on this one tells what was removed. One that lies alone is the remains of a
        // commit that came too late.
        if !self.versions.contains(&(version + 1)) {
            return Ok(VecDeque::new());
        }
        let own = match self.next.take() {
            Some((read, named)) if read == version => Some(named),
            _ => catalog.named(&table.location, version).await?,
        };
        let next = catalog.named(&table.location, version + 1).await?;
        let files = match (&own, &next) {
            (Some(own), Some(next)) => removed_lists(own, next, table),
            _ => VecDeque::new(),
        };
        self.next = next.map(|next| (version + 1, next));
        Ok(files)
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
        .filter(|snapshot| !kept_ids.contains(&snapshot.snapshot_id))
        .map(|snapshot| snapshot.manifest_list.as_str())
        .filter(|list| list.starts_with(&folder) && !kept_lists.contains(list))
        .map(str::to_owned)
        .collect()
}

/// Deletes the first of `files`, `max` at most, and returns how many. What is gone already counts as deleted.
async fn delete_some(files: &mut VecDeque<String>, max: usize, storage: &Storage) -> Result<usize> {
    let count = files.len().min(max);
    let deletes: Vec<_> = files.iter().take(count).map(|file| storage.delete(file)).collect();
    stream::iter(deletes).buffer_unordered(DELETES_AT_ONCE).try_collect::<Vec<()>>().await?;
    files.drain(..count);
    Ok(count)
}
