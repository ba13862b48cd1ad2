//! Notices that another process has committed to a database, without holding the database open.

use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::watch;

/// What the file system tells about a database: when this is unchanged, hardly anything was committed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Signature {
    files: [Option<FileState>; 3],
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct FileState {
    len: u64,
    modified: Option<SystemTime>,
    #[cfg(unix)]
    inode: (u64, u64),
}

impl FileState {
    fn of(metadata: &Metadata) -> Self {
        #[cfg(unix)]
        use std::os::unix::fs::MetadataExt as _;
        Self {
            len: metadata.len(),
            modified: metadata.modified().ok(),
            #[cfg(unix)]
            inode: (metadata.dev(), metadata.ino()),
        }
    }
}

impl Signature {
    /// The database's file, its WAL and its rollback journal as they are now.
    pub(crate) fn of(database: &Path) -> Self {
        let state = |suffix: &str| {
            let mut path = database.as_os_str().to_owned();
            path.push(suffix);
            std::fs::metadata(PathBuf::from(path)).ok().as_ref().map(FileState::of)
        };
        Self { files: [state(""), state("-wal"), state("-journal")] }
    }
}

/// Watches the folder of a database. Without a watcher (too many, or none on this system) the sweep finds changes.
#[derive(Debug)]
pub(crate) struct FolderWatch {
    _watcher: Option<RecommendedWatcher>,
    pub(crate) events: watch::Receiver<u64>,
}

impl FolderWatch {
    pub(crate) fn new(database: &Path) -> Self {
        let (sender, events) = watch::channel(0_u64);
        let name = database.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let on_event = move |event: notify::Result<notify::Event>| {
            let ours = |path: &PathBuf| {
                path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(&name))
            };
            let changes = |event: &notify::Event| !event.kind.is_access() && event.paths.iter().any(ours);
            if event.is_ok_and(|event| changes(&event)) {
                sender.send_modify(|count| *count += 1);
            }
        };
        let watcher = notify::recommended_watcher(on_event).and_then(|mut watcher| {
            let folder = database.parent().unwrap_or(Path::new("."));
            watcher.watch(folder, RecursiveMode::NonRecursive).map(|()| watcher)
        });
        if let Err(error) = &watcher {
            tracing::warn!(database = %database.display(), %error, "cannot watch the folder, looking regularly instead");
        }
        Self { _watcher: watcher.ok(), events }
    }
}
