//! The objects themselves: no faults, no time of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use cdc_model::Timestamp;
use futures_util::stream::{self, StreamExt as _};
use object_store::path::Path;
use object_store::{
    Attributes, CopyMode, Error, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, ObjectMeta,
    PutMode, PutResult, Result,
};
use xxhash_rust::xxh3::xxh3_128;

use crate::store::faults::{STORE, exists};

/// Objects by path, in the order of S3's listings.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    by_path: BTreeMap<Path, Object>,
    /// Every write gets the next number as its tag.
    writes: u64,
    /// What was ever written under a name that is written once, and is it still there or not.
    once: BTreeMap<Path, u128>,
    violations: Vec<String>,
    /// Changes so far below each folder.
    changes: BTreeMap<String, u64>,
}

/// What a request changes.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Put { path: Path, bytes: Bytes, mode: PutMode, attributes: Attributes },
    Delete { path: Path },
    Copy { from: Path, to: Path, mode: CopyMode },
}

#[derive(Clone, Debug)]
struct Object {
    bytes: Bytes,
    attributes: Attributes,
    tag: u64,
    modified: Timestamp,
}

impl Object {
    fn meta(&self, path: &Path) -> ObjectMeta {
        let since = Duration::from_millis(u64::try_from(self.modified.get()).unwrap_or_default());
        ObjectMeta {
            location: path.clone(),
            last_modified: (std::time::UNIX_EPOCH + since).into(),
            size: length(&self.bytes),
            e_tag: Some(tag(self.tag)),
            version: Some(self.tag.to_string()),
        }
    }
}

impl Objects {
    pub(crate) fn apply(&mut self, change: Change, now: Timestamp) -> Result<PutResult> {
        match change {
            Change::Put { path, bytes, mode, attributes } => self.put(&path, bytes, &mode, attributes, now),
            // A delete of nothing succeeds, as in S3.
            Change::Delete { path } => {
                self.delete(&path);
                Ok(PutResult { e_tag: None, version: None, extensions: Default::default() })
            }
            Change::Copy { from, to, mode } => {
                let Object { bytes, attributes, .. } = self.object(&from)?.clone();
                let mode = match mode {
                    CopyMode::Create => PutMode::Create,
                    CopyMode::Overwrite => PutMode::Overwrite,
                };
                self.put(&to, bytes, &mode, attributes, now)
            }
        }
    }

    pub(super) fn put(
        &mut self,
        path: &Path,
        bytes: Bytes,
        mode: &PutMode,
        attributes: Attributes,
        now: Timestamp,
    ) -> Result<PutResult> {
        match (mode, self.by_path.get(path)) {
            (PutMode::Create, Some(_)) => return Err(exists(path)),
            (PutMode::Update(expected), found) => {
                let found = found.map(|object| tag(object.tag));
                if found.is_none() || found != expected.e_tag {
                    let source = format!("{found:?} is not {:?}", expected.e_tag).into();
                    return Err(Error::Precondition { path: path.to_string(), source });
                }
            }
            (PutMode::Create, None) | (PutMode::Overwrite, _) => {}
        }
        self.watch(path, &bytes);
        let (tag, version) = self.insert(path, bytes, attributes, now);
        Ok(PutResult { e_tag: Some(tag), version: Some(version), extensions: Default::default() })
    }

    /// Writes without asking or watching.
    pub(crate) fn insert(
        &mut self,
        path: &Path,
        bytes: Bytes,
        attributes: Attributes,
        modified: Timestamp,
    ) -> (String, String) {
        self.writes += 1;
        self.note_change(path);
        let object = Object { bytes, attributes, tag: self.writes, modified };
        self.by_path.insert(path.clone(), object);
        (tag(self.writes), self.writes.to_string())
    }

    pub(crate) fn get(&self, path: &Path, options: &GetOptions) -> Result<GetResult> {
        let object = self.object(path)?;
        let meta = object.meta(path);
        options.check_preconditions(&meta)?;
        let range = match &options.range {
            Some(range) => in_object(range, meta.size)?,
            None => 0..meta.size,
        };
        let part = if options.head { Bytes::new() } else { slice(&object.bytes, &range)? };
        let payload = GetResultPayload::Stream(stream::iter([Ok(part)]).boxed());
        let attributes = object.attributes.clone();
        Ok(GetResult { payload, meta, range, attributes, extensions: Default::default() })
    }

    pub(crate) fn get_ranges(&self, path: &Path, ranges: &[std::ops::Range<u64>]) -> Result<Vec<Bytes>> {
        let bytes = &self.object(path)?.bytes;
        let part =
            |range: &std::ops::Range<u64>| slice(bytes, &in_object(&range.clone().into(), length(bytes))?);
        ranges.iter().map(part).collect()
    }

    /// Whether there was anything.
    pub(crate) fn delete(&mut self, path: &Path) -> bool {
        let found = self.by_path.remove(path).is_some();
        if found {
            self.note_change(path);
        }
        found
    }

    /// How often anything below a folder was written or deleted so far.
    pub(crate) fn changes_below(&self, folder: &str) -> u64 {
        self.changes.get(folder).copied().unwrap_or(0)
    }

    fn note_change(&mut self, path: &Path) {
        let path = path.as_ref();
        for folder in path.match_indices('/').filter_map(|(at, _)| path.get(..at)) {
            match self.changes.get_mut(folder) {
                Some(changes) => *changes += 1,
                None => drop(self.changes.insert(folder.to_owned(), 1)),
            }
        }
    }

    pub(crate) fn list(&self, prefix: &Path) -> Vec<ObjectMeta> {
        self.entries_below(prefix).map(|(path, object)| object.meta(path)).collect()
    }

    pub(crate) fn list_with_delimiter(&self, prefix: &Path) -> ListResult {
        let mut folders = BTreeSet::new();
        let mut objects = Vec::new();
        for (path, object) in self.entries_below(prefix) {
            let mut parts = path.prefix_match(prefix).into_iter().flatten();
            match (parts.next(), parts.next()) {
                (Some(folder), Some(_)) => drop(folders.insert(prefix.clone().join(folder))),
                _ => objects.push(object.meta(path)),
            }
        }
        let common_prefixes = folders.into_iter().collect();
        ListResult { common_prefixes, objects, extensions: Default::default() }
    }

    /// The bytes of an object, as it is now.
    pub(crate) fn bytes(&self, path: &Path) -> Option<&Bytes> {
        self.by_path.get(path).map(|object| &object.bytes)
    }

    pub(crate) fn below(&self, prefix: &Path) -> impl Iterator<Item = (&Path, &Bytes)> {
        self.entries_below(prefix).map(|(path, object)| (path, &object.bytes))
    }

    pub(crate) fn violations(&self) -> &[String] {
        &self.violations
    }

    fn object(&self, path: &Path) -> Result<&Object> {
        let missing = || Error::NotFound { path: path.to_string(), source: "no such object".into() };
        self.by_path.get(path).ok_or_else(missing)
    }

    fn entries_below(&self, prefix: &Path) -> impl Iterator<Item = (&Path, &Object)> {
        let begins = |path: &Path| path.as_ref().starts_with(prefix.as_ref());
        let inside = |path: &Path| path.prefix_match(prefix).is_some_and(|mut parts| parts.next().is_some());
        self.by_path
            .range(prefix.clone()..)
            .take_while(move |(path, _)| begins(path))
            .filter(move |(path, _)| inside(path))
    }

    /// Names that are written once keep their bytes. The number of a version may come again after its deletion: such a
    /// commit counts for nothing, which the reader of the table decides.
    fn watch(&mut self, path: &Path, bytes: &Bytes) {
        let Some(kind) = Once::of(path) else { return };
        let digest = xxh3_128(bytes);
        let before = self.once.insert(path.clone(), digest);
        let again = kind == Once::Name || self.by_path.contains_key(path);
        if again && before.is_some_and(|before| before != digest) {
            self.violations.push(format!("{path} was written again with other bytes"));
        }
    }
}

/// A name that is written once: forever, or as long as the object is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Once {
    Name,
    WhileThere,
}

impl Once {
    fn of(path: &Path) -> Option<Self> {
        let name = path.filename()?;
        let ends = |ending: &str| name.ends_with(ending);
        if ends(".parquet") || ends(".avro") {
            return Some(Self::Name);
        }
        ends(".metadata.json").then_some(Self::WhileThere)
    }
}

fn tag(number: u64) -> String {
    format!("\"{number}\"")
}

fn length(bytes: &Bytes) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

fn in_object(range: &GetRange, size: u64) -> Result<std::ops::Range<u64>> {
    range.as_range(size).map_err(|source| Error::Generic { store: STORE, source: Box::new(source) })
}

fn slice(bytes: &Bytes, range: &std::ops::Range<u64>) -> Result<Bytes> {
    let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
    let (start, end) = (place(range.start), place(range.end));
    if start > end {
        return Err(Error::Generic { store: STORE, source: "a range ends before it begins".into() });
    }
    Ok(bytes.slice(start..end))
}
