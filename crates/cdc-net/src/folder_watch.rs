use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::watch;

use crate::Watch;

/// The production [`Watch`]: the folder of the database is watched. Where that is not possible (too many watchers, or
/// none on this system) nothing wakes, and whoever looks regularly finds the changes.
#[derive(Debug)]
pub struct FolderWatch {
    database: PathBuf,
    _watcher: Option<RecommendedWatcher>,
    events: watch::Receiver<u64>,
}

/// What the file system tells about a database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DatabaseFiles {
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

impl DatabaseFiles {
    /// The database's file, its WAL and its rollback journal as they are now.
    fn of(database: &Path) -> Self {
        let state = |suffix: &str| {
            let mut path = database.as_os_str().to_owned();
            path.push(suffix);
            std::fs::metadata(PathBuf::from(path)).ok().as_ref().map(FileState::of)
        };
        Self { files: [state(""), state("-wal"), state("-journal")] }
    }
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
        Self { database: database.to_owned(), _watcher: watcher.ok(), events }
    }
}

impl Watch for FolderWatch {
    type State = DatabaseFiles;

    fn state(&mut self) -> DatabaseFiles {
        self.events.borrow_and_update();
        DatabaseFiles::of(&self.database)
    }

    async fn changed(&mut self) {
        if self.events.changed().await.is_err() {
            // There is no watcher. To complete at once would keep whoever waits busy for ever.
            std::future::pending().await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn without_a_watcher_nothing_wakes() {
        let folder = std::env::temp_dir().join("no-such-folder-to-be-watched");
        let mut watch = FolderWatch::new(&folder.join("app.db"));
        assert!(watch._watcher.is_none());
        let woken = tokio::time::timeout(std::time::Duration::from_secs(60), watch.changed()).await;
        assert!(woken.is_err(), "a watch that cannot wake waits");
    }
}
