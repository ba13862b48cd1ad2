//! Reads a table from the store's bytes and holds it against what every archive promises.
//!
//! Nothing here is shared with the archive: metadata is read as JSON, manifests by the general Avro decoder and data
//! files by the Parquet one. The newest version is found by listing.

mod avro;
mod checks;
mod metadata;
mod rows;
pub use rows::Row;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::Bytes;

use crate::store::SimStore;
use crate::store::table::avro::{DataFile, Entry, ManifestRef};
use crate::store::table::checks::{Ledger, Out};
use crate::store::table::metadata::Metadata;

const MISSING: &str = "what a snapshot names is there";
const CHANGED: &str = "a committed file never changes";
const READABLE: &str = "every file is readable";

pub(crate) type VersionNumber = u64;

/// A promise about tables that was not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The promise.
    pub promise: &'static str,
    /// What was seen.
    pub saw: String,
}

/// How far a table says it is, as it spells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watermark {
    /// The log's epoch.
    pub epoch: String,
    /// The last sequence taken.
    pub sequence: i64,
    /// The log's digest there.
    pub digest: String,
    /// The log time of the newest row, in milliseconds.
    pub valid_through: Option<i64>,
}

/// What a check found that the one before had not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewRows {
    /// The newest version; 0 when there is no table.
    pub version: u64,
    /// How far the table says it is.
    pub watermark: Option<Watermark>,
    /// Rows that were not there before, sorted by sequence.
    pub rows: Vec<Row>,
    /// Data files of the current snapshot.
    pub files: usize,
    /// Snapshots that can still be read.
    pub snapshots: usize,
    /// Files that no retained snapshot names.
    pub orphans: Orphans,
}

/// Files below the table that no snapshot of the newest version names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Orphans {
    /// Data files.
    pub data: usize,
    /// Manifests and manifest lists, also those that only older versions name.
    pub metadata: usize,
}

/// Knows one table from check to check, and reads of it only what is new.
///
/// After a violation it is of no more use.
#[derive(Debug)]
pub struct TableOracle {
    folder: String,
    absent: Vec<RangeInclusive<i64>>,
    last: Option<Seen>,
    /// The newest version as it was after so many changes of the folder.
    newest: Option<(u64, Option<Arc<Metadata>>)>,
    /// The version that was parsed last, with its bytes.
    parsed: Option<(Bytes, Arc<Metadata>)>,
    /// What the last check found that is true until the folder changes again: after how many changes, and what.
    found: Option<(u64, NewRows)>,
    /// Manifest lists, manifests and data files by path: their bytes when first seen, and what is in them.
    lists: Known<ManifestRef>,
    manifests: Known<Entry>,
    files: BTreeMap<String, (Bytes, DataFile)>,
    ledger: Ledger,
}

/// Decoded files by path, with their bytes when first seen.
type Known<T> = BTreeMap<String, (Bytes, Arc<[T]>)>;

#[derive(Clone, Debug)]
struct Seen {
    metadata: Arc<Metadata>,
    watermark: Option<Watermark>,
}

/// The store below the table's folder while it is looked at.
struct View {
    objects: BTreeMap<String, Bytes>,
    base: String,
}

impl TableOracle {
    /// The table in this folder of the store, which need not be there yet.
    #[must_use]
    pub fn new(folder: impl Into<String>) -> Self {
        Self {
            folder: folder.into(),
            absent: Vec::new(),
            last: None,
            newest: None,
            parsed: None,
            found: None,
            lists: BTreeMap::new(),
            manifests: BTreeMap::new(),
            files: BTreeMap::new(),
            ledger: Ledger::default(),
        }
    }

    /// These sequences of the log are no rows: they were filtered away, or lie before a declared floor.
    pub fn declare_absent(&mut self, sequences: RangeInclusive<i64>) {
        self.absent.push(sequences);
        self.found = None;
    }

    /// The data files of the current snapshot as last seen: their paths, rows, and first and last sequence.
    pub fn files(&self) -> impl Iterator<Item = (&str, usize, Option<(i64, i64)>)> {
        self.ledger.files().map(|(path, sequences)| {
            let ends = sequences.first().zip(sequences.last());
            (path, sequences.len(), ends.map(|(first, last)| (*first, *last)))
        })
    }

    /// How far the newest version says it is; `None` when it does not say so, or there is none.
    #[must_use]
    pub fn watermark(&mut self, store: &SimStore) -> Option<Watermark> {
        let metadata = self.newest(store, &mut Out::default())?;
        metadata::watermark(&metadata.properties).ok().flatten()
    }

    /// How often anything of the table was written or deleted so far.
    pub(crate) fn changes(&self, store: &SimStore) -> u64 {
        store.changes_below(&self.folder)
    }

    /// A property of the newest version.
    pub(crate) fn property(&mut self, store: &SimStore, key: &str) -> Option<String> {
        self.newest(store, &mut Out::default())?.properties.get(key).cloned()
    }

    /// Commits a property as another user of the table does: a next version that is the newest but for it. Gives
    /// whether it is the table's now.
    pub(crate) fn commit_property(&mut self, store: &SimStore, key: &str, value: &str) -> bool {
        let Some(version) = self.newest(store, &mut Out::default()).map(|newest| newest.version) else {
            return false;
        };
        let file = |version: VersionNumber| format!("{}/metadata/v{version}.metadata.json", self.folder);
        let json = store.object(&file(version)).and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let Some(mut json): Option<serde_json::Value> = json else { return false };
        if let Some(properties) = json.get_mut("properties").and_then(|it| it.as_object_mut()) {
            properties.insert(key.to_owned(), value.into());
        }
        store.create(&file(version + 1), json.to_string().into())
    }

    /// Looks at the table as it is now.
    ///
    /// # Errors
    ///
    /// All promises that it breaks.
    pub fn check(&mut self, store: &SimStore) -> Result<NewRows, Vec<Violation>> {
        let changes = self.changes(store);
        if let Some((_, found)) = self.found.as_ref().filter(|(at, _)| *at == changes) {
            return Ok(found.clone());
        }
        let mut out = Out::default();
        let found = self.look(store, &mut out).unwrap_or_default();
        let violations = out.into_violations();
        if !violations.is_empty() {
            return Err(violations);
        }
        self.found = Some((changes, NewRows { rows: Vec::new(), ..found.clone() }));
        Ok(found)
    }

    fn look(&mut self, store: &SimStore, out: &mut Out) -> Option<NewRows> {
        let metadata = self.newest(store, out)?;
        let base = metadata.location.strip_suffix(&self.folder).map(str::to_owned);
        let Some(base) = base else {
            out.broken("a table lies where it says", format!("{} in {}", metadata.location, self.folder));
            return None;
        };
        let view = View { objects: store.objects_below(&self.folder), base };
        let property =
            metadata::watermark(&metadata.properties).map_err(|saw| out.broken(checks::MARKS, saw)).ok()?;
        let summary = metadata.current().map(|current| metadata::watermark(&current.summary));
        let summary = summary.transpose().map_err(|saw| out.broken(checks::MARKS, saw)).ok()?.flatten();
        checks::marks_agree(property.as_ref(), summary.as_ref(), out);
        if let Some(last) = &self.last {
            checks::moves_on(last.metadata.version, metadata.version, out);
            checks::mark_moves_on(last.watermark.as_ref(), property.as_ref(), out);
            out.ensure(last.metadata.uuid == metadata.uuid, "a table stays the same table", || {
                metadata.uuid.clone()
            });
        }
        let named = self.retained(&metadata, &view, out);
        let current = self.current_files(&metadata, &view, out);
        let rows = self.take(&metadata, &current, &view, out);
        self.ledger.check(property.as_ref(), &self.absent, out);
        checks::totals(&metadata, &current, out);
        let found = NewRows {
            version: metadata.version,
            watermark: property.clone(),
            rows,
            files: current.len(),
            snapshots: metadata.snapshots.len(),
            orphans: orphans(&view, &named),
        };
        self.last = Some(Seen { metadata, watermark: property });
        Some(found)
    }

    /// The newest version by the listing, none when there is no table.
    fn newest(&mut self, store: &SimStore, out: &mut Out) -> Option<Arc<Metadata>> {
        let changes = self.changes(store);
        if let Some((_, newest)) = self.newest.as_ref().filter(|(at, _)| *at == changes) {
            return newest.clone();
        }
        let mut seen = Out::default();
        let newest = self.read_newest(store, &mut seen);
        // What is broken is told to everybody who asks.
        self.newest = seen.is_empty().then(|| (changes, newest.clone()));
        out.extend(seen);
        newest
    }

    fn read_newest(&mut self, store: &SimStore, out: &mut Out) -> Option<Arc<Metadata>> {
        let folder = format!("{}/metadata", self.folder);
        let paths = store.paths_below(&folder);
        let number = |path: &String| path.strip_prefix(&format!("{folder}/")).and_then(version_of);
        let versions: BTreeSet<VersionNumber> = paths.iter().filter_map(number).collect();
        let Some(newest) = versions.last().copied() else {
            out.ensure(self.last.is_none(), "a table stays", || "it has no version any more".to_owned());
            return None;
        };
        let hint = store.object(&format!("{folder}/version-hint.text"));
        checks::hint(&versions, hint.as_deref(), out);
        let bytes = store.object(&format!("{folder}/v{newest}.metadata.json")).unwrap_or_default();
        if let Some((of, parsed)) = &self.parsed
            && parsed.version == newest
            && same(of, &bytes)
        {
            return Some(Arc::clone(parsed));
        }
        let parsed = Metadata::parse(newest, &bytes)
            .map_err(|saw| out.broken(READABLE, format!("v{newest}.metadata.json: {saw}")))
            .ok()
            .map(Arc::new)?;
        self.parsed = Some((bytes, Arc::clone(&parsed)));
        Some(parsed)
    }

    /// Holds that all that retained snapshots name is there as it was first seen, and returns their paths.
    fn retained(&mut self, metadata: &Metadata, view: &View, out: &mut Out) -> BTreeSet<String> {
        let mut named = BTreeSet::new();
        for snapshot in metadata.snapshots.values() {
            let Some(list) = view.path(&snapshot.list, out) else { continue };
            let is_new = !self.lists.contains_key(list);
            named.insert(list.to_owned());
            let manifests = read(&mut self.lists, list, view, avro::manifests, out);
            for manifest in manifests.iter().flat_map(|manifests| manifests.iter()) {
                let Some(path) = view.path(&manifest.path, out) else { continue };
                if named.contains(path) && !is_new {
                    continue;
                }
                let entries = read(&mut self.manifests, path, view, avro::entries, out);
                if let Some(entries) = entries.as_ref().filter(|_| is_new) {
                    checks::manifest(manifest, view.objects.get(path).map_or(0, Bytes::len), entries, out);
                }
                if named.insert(path.to_owned()) {
                    let live =
                        entries.iter().flat_map(|entries| entries.iter()).filter(|entry| entry.is_live());
                    named.extend(live.filter_map(|entry| self.data_file(&entry.file, view, out)));
                }
            }
        }
        named
    }

    /// The path of a data file that is there, as it was first seen, and of which nothing else was said before.
    fn data_file(&mut self, file: &DataFile, view: &View, out: &mut Out) -> Option<String> {
        let path = view.path(&file.path, out)?;
        let Some(bytes) = view.objects.get(path) else {
            out.broken(MISSING, format!("{path} is missing"));
            return None;
        };
        match self.files.get(path) {
            Some((known, said)) => {
                out.ensure(same(known, bytes), CHANGED, || path.to_owned());
                out.ensure(said == file, "manifests say the same of a file", || {
                    format!("{path}: {said:?}, then {file:?}")
                });
            }
            None => drop(self.files.insert(path.to_owned(), (bytes.clone(), file.clone()))),
        }
        Some(path.to_owned())
    }

    /// The live data files of the current snapshot by path.
    fn current_files(&self, metadata: &Metadata, view: &View, out: &mut Out) -> BTreeMap<String, DataFile> {
        let list = metadata.current().and_then(|current| view.path(&current.list, out));
        let manifests = list.and_then(|list| self.lists.get(list)).map(|(_, manifests)| manifests.iter());
        let entries = |manifest: &ManifestRef| {
            let path = manifest.path.strip_prefix(&view.base)?;
            self.manifests.get(path).map(|(_, entries)| entries.iter())
        };
        let files: Vec<&DataFile> = (manifests.into_iter().flatten().filter_map(entries).flatten())
            .filter(|entry| entry.is_live())
            .map(|entry| &entry.file)
            .collect();
        checks::named_once(&files, out);
        let by_path =
            |file: &&DataFile| Some((file.path.strip_prefix(&view.base)?.to_owned(), (*file).clone()));
        files.iter().filter_map(by_path).collect()
    }

    /// Reads the data files that are new in the current snapshot, and forgets those that left it.
    fn take(
        &mut self,
        metadata: &Metadata,
        current: &BTreeMap<String, DataFile>,
        view: &View,
        out: &mut Out,
    ) -> Vec<Row> {
        self.ledger.keep(|path| current.contains_key(path));
        let mut new = BTreeMap::new();
        for (path, file) in current {
            let Some(bytes) = view.objects.get(path).filter(|_| !self.ledger.has(path)) else { continue };
            match rows::read(bytes) {
                Ok(rows) => {
                    checks::file(file, path, bytes.len(), &rows, &metadata.fields, out);
                    self.ledger.add(path, rows, &mut new, out);
                }
                Err(saw) => out.broken(READABLE, format!("{path}: {saw}")),
            }
        }
        let new: Vec<Row> = new.into_values().collect();
        self.ledger.follow(&new, out);
        new
    }
}

impl View {
    /// The path in the store of an address in the metadata.
    fn path<'a>(&self, address: &'a str, out: &mut Out) -> Option<&'a str> {
        let path = address.strip_prefix(&self.base);
        out.ensure(path.is_some(), "a table names what is in its warehouse", || address.to_owned());
        path
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.promise, self.saw)
    }
}

/// What is in a file, decoded when first seen and held to be the same from then on.
fn read<T>(
    known: &mut Known<T>,
    path: &str,
    view: &View,
    decode: impl FnOnce(&[u8]) -> Result<Vec<T>, String>,
    out: &mut Out,
) -> Option<Arc<[T]>> {
    let Some(bytes) = view.objects.get(path) else {
        out.broken(MISSING, format!("{path} is missing"));
        return None;
    };
    if let Some((first, decoded)) = known.get(path) {
        out.ensure(same(first, bytes), CHANGED, || path.to_owned());
        return Some(Arc::clone(decoded));
    }
    let decoded: Arc<[T]> =
        decode(bytes).map_err(|saw| out.broken(READABLE, format!("{path}: {saw}"))).ok()?.into();
    known.insert(path.to_owned(), (bytes.clone(), Arc::clone(&decoded)));
    Some(decoded)
}

/// The store hands out the bytes it holds, so those that nobody wrote again are found at the same place.
fn same(first: &Bytes, now: &Bytes) -> bool {
    (first.as_ptr() == now.as_ptr() && first.len() == now.len()) || first == now
}

fn orphans(view: &View, named: &BTreeSet<String>) -> Orphans {
    let count = |ending: &str| {
        view.objects.keys().filter(|path| path.ends_with(ending) && !named.contains(*path)).count()
    };
    Orphans { data: count(".parquet"), metadata: count(".avro") }
}

fn version_of(name: &str) -> Option<VersionNumber> {
    name.strip_prefix('v')?.strip_suffix(".metadata.json")?.parse().ok()
}
