use std::collections::BTreeMap;
use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::watch;

use crate::Watch;

/// Everything that is watched: one watcher of the system for all folders, however many databases lie in them. Systems
/// allow few watchers and many folders.
#[derive(Clone, Debug, Default)]
pub(crate) struct FolderWatches {
    /// Made for the first folder, and held while a folder comes or goes. Its own thread takes the routes only.
    watcher: Arc<Mutex<Option<RecommendedWatcher>>>,
    routes: Arc<Mutex<Routes>>,
}

type Routes = BTreeMap<PathBuf, Folder>;

#[derive(Debug, Default)]
struct Folder {
    is_watched: bool,
    /// Who is to be woken, by the name of the database.
    databases: BTreeMap<String, watch::Sender<u64>>,
}

/// The production [`Watch`]: the folder of the database is watched. Where that is not possible (too many folders, or
/// no watcher on this system) nothing wakes, and whoever looks regularly finds the changes.
#[derive(Debug)]
pub struct FolderWatch {
    database: PathBuf,
    watches: FolderWatches,
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

/// What SQLite appends to the name of a database.
const SUFFIXES: [&str; 4] = ["", "-wal", "-journal", "-shm"];

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wake(database: &watch::Sender<u64>) {
    database.send_modify(|count| *count += 1);
}

/// Wakes whoever watches a database that this event is about.
fn tell(routes: &Routes, event: &notify::Event) {
    if event.need_rescan() {
        // Events were lost.
        routes.values().flat_map(|folder| folder.databases.values()).for_each(wake);
    }
    if event.kind.is_access() {
        return;
    }
    for path in &event.paths {
        let (Some(folder), Some(file)) =
            (path.parent().and_then(|folder| routes.get(folder)), path.file_name())
        else {
            continue;
        };
        let file = file.to_string_lossy();
        let names = SUFFIXES.iter().filter_map(|suffix| file.strip_suffix(suffix));
        names.filter_map(|name| folder.databases.get(name)).for_each(wake);
    }
}

impl FolderWatches {
    fn begin(&self, folder: &Path, name: String) -> watch::Receiver<u64> {
        let mut watcher = lock(&self.watcher);
        let mut routes = lock(&self.routes);
        let known = routes.entry(folder.to_owned()).or_default();
        let events = known.databases.entry(name).or_default().subscribe();
        if known.is_watched {
            return events;
        }
        // Its thread may wait for the routes, and we for its thread.
        drop(routes);
        match self.watch_folder(&mut watcher, folder) {
            Ok(()) => {
                lock(&self.routes).entry(folder.to_owned()).or_default().is_watched = true;
            }
            Err(error) => {
                tracing::warn!(folder = %folder.display(), %error, "cannot watch the folder, looking regularly instead");
            }
        }
        events
    }

    fn watch_folder(&self, watcher: &mut Option<RecommendedWatcher>, folder: &Path) -> notify::Result<()> {
        if watcher.is_none() {
            let routes = Arc::clone(&self.routes);
            let on_event = move |event: notify::Result<notify::Event>| {
                if let Ok(event) = event {
                    tell(&lock(&routes), &event);
                }
            };
            *watcher = Some(notify::recommended_watcher(on_event)?);
        }
        watcher.as_mut().map_or(Ok(()), |watcher| watcher.watch(folder, RecursiveMode::NonRecursive))
    }

    /// One of those who watch a database goes.
    fn end(&self, folder: &Path, name: &str) {
        let mut watcher = lock(&self.watcher);
        let mut routes = lock(&self.routes);
        let Some(known) = routes.get_mut(folder) else { return };
        if known.databases.get(name).is_some_and(|events| events.receiver_count() <= 1) {
            known.databases.remove(name);
        }
        if !known.databases.is_empty() {
            return;
        }
        let was_watched = known.is_watched;
        routes.remove(folder);
        drop(routes);
        if let Some(watcher) = watcher.as_mut().filter(|_| was_watched) {
            // A folder that is gone is not watched any more.
            drop(watcher.unwatch(folder));
        }
    }
}

impl FolderWatch {
    pub(crate) fn new(watches: &FolderWatches, database: &Path) -> Self {
        let (folder, name) = place_of(database);
        let events = watches.begin(folder, name);
        Self { database: database.to_owned(), watches: watches.clone(), events }
    }
}

impl Drop for FolderWatch {
    fn drop(&mut self) {
        let (folder, name) = place_of(&self.database);
        self.watches.end(folder, &name);
    }
}

fn place_of(database: &Path) -> (&Path, String) {
    let name = database.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let folder = database.parent().filter(|folder| !folder.as_os_str().is_empty());
    (folder.unwrap_or(Path::new(".")), name)
}

impl Watch for FolderWatch {
    type State = DatabaseFiles;

    fn state(&mut self) -> DatabaseFiles {
        self.events.borrow_and_update();
        DatabaseFiles::of(&self.database)
    }

    async fn changed(&mut self) {
        if self.events.changed().await.is_err() {
            // Nobody wakes any more. To complete at once would keep whoever waits busy for ever.
            std::future::pending().await
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn without_a_watcher_nothing_wakes() {
        let folder = std::env::temp_dir().join("no-such-folder-to-be-watched");
        let watches = FolderWatches::default();
        let mut watch = FolderWatch::new(&watches, &folder.join("app.db"));
        assert!(!lock(&watches.routes).get(&folder).unwrap().is_watched);
        let woken = tokio::time::timeout(Duration::from_secs(60), watch.changed()).await;
        assert!(woken.is_err(), "a watch that cannot wake waits");
    }

    async fn wakes(watch: &mut FolderWatch, write: impl FnOnce()) -> bool {
        watch.state();
        write();
        tokio::time::timeout(Duration::from_millis(500), watch.changed()).await.is_ok()
    }

    #[tokio::test]
    async fn one_watcher_wakes_each_database_of_many_by_its_own_files_only() {
        let folder = std::env::temp_dir().join(format!("cdc-watched-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let watches = FolderWatches::default();
        let mut one = FolderWatch::new(&watches, &folder.join("one.db"));
        let mut other = FolderWatch::new(&watches, &folder.join("other.db"));
        let write = |name: &str| std::fs::write(folder.join(name), name).unwrap();
        for name in ["one.db", "one.db-wal", "one.db-journal"] {
            assert!(wakes(&mut one, || write(name)).await, "{name}");
        }
        other.state();
        assert!(!wakes(&mut other, || write("one.db-wal")).await);
        drop(other);
        let mut again = FolderWatch::new(&watches, &folder.join("one.db"));
        drop(one);
        assert!(wakes(&mut again, || write("one.db-wal")).await, "the one that is left");
        drop(again);
        assert!(lock(&watches.routes).is_empty());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
