//! What all disks of a process share: the mounts, SQLite's randomness, the time.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

use super::state::{Shared, held};
use crate::random::Random;

/// The Julian day number of 1970-01-01, in milliseconds.
const UNIX_EPOCH_JULIAN_MS: i64 = 210_866_760_000_000;

static MOUNTS: RwLock<BTreeMap<String, Weak<Shared>>> = RwLock::new(BTreeMap::new());
static RANDOMNESS: Mutex<Option<Random>> = Mutex::new(None);
static UNIX_MS: AtomicI64 = AtomicI64::new(0);
static SLEEPS: AtomicU64 = AtomicU64::new(0);

/// Sets the time that SQLite's date functions read, in milliseconds since 1970.
pub fn set_time(unix_ms: i64) {
    UNIX_MS.store(unix_ms, Ordering::Relaxed);
}

/// How often SQLite has slept in this process, as its busy handler does. It never really sleeps.
pub fn sleeps() -> u64 {
    SLEEPS.load(Ordering::Relaxed)
}

pub(super) fn note_sleep() {
    SLEEPS.fetch_add(1, Ordering::Relaxed);
}

pub(super) fn julian_ms() -> i64 {
    UNIX_MS.load(Ordering::Relaxed).saturating_add(UNIX_EPOCH_JULIAN_MS)
}

pub(super) fn seed_randomness(seed: u64) {
    *held(&RANDOMNESS) = Some(Random::stream(seed, "sqlite"));
}

pub(super) fn fill_randomness(into: &mut [u8]) {
    let mut stream = held(&RANDOMNESS);
    let stream = stream.get_or_insert_with(|| Random::stream(0, "sqlite"));
    for bytes in into.chunks_mut(size_of::<u64>()) {
        let drawn = stream.next().to_le_bytes();
        bytes.iter_mut().zip(drawn).for_each(|(byte, drawn)| *byte = drawn);
    }
}

/// Mounts a disk; its root ends in a slash.
pub(super) fn mount(disk: &Arc<Shared>) {
    let mut mounts = MOUNTS.write().unwrap_or_else(PoisonError::into_inner);
    mounts.retain(|_root, disk| disk.strong_count() > 0);
    let root = disk.root();
    let nested = mounts.keys().find(|other| root.starts_with(*other) || other.starts_with(root));
    assert!(nested.is_none(), "a disk is mounted at {nested:?} already, and {root} lies in or around it");
    mounts.insert(root.to_owned(), Arc::downgrade(disk));
}

/// The disk that a file of this absolute path belongs to. Roots do not nest, so no other root sorts between it and
/// its files.
pub(super) fn disk_of(path: &str) -> Option<Arc<Shared>> {
    let mounts = MOUNTS.read().unwrap_or_else(PoisonError::into_inner);
    let (root, disk) = mounts.range::<str, _>((Bound::Unbounded, Bound::Included(path))).next_back()?;
    path.starts_with(root.as_str()).then(|| disk.upgrade()).flatten()
}

/// The absolute path of a file, with links of its folders followed.
pub(super) fn full_path(path: &Path) -> Option<String> {
    let plain = lexical(&std::path::absolute(path).ok()?);
    if let Some(known) = plain.to_str()
        && disk_of(known).is_some_and(|disk| disk.knows(known))
    {
        return Some(known.to_owned());
    }
    let real = plain.canonicalize().or_else(|_absent| {
        let folder = plain.parent().unwrap_or(&plain).canonicalize()?;
        Ok::<_, std::io::Error>(folder.join(plain.file_name().unwrap_or_default()))
    });
    real.unwrap_or(plain).into_os_string().into_string().ok()
}

fn lexical(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => plain.push(part),
        }
    }
    plain
}
