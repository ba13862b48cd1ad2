//! The objects of a project: one folder each, with a small file that says what the object is.
//!
//! `.cdc/objects/{hash}/{name}/object.json`, with the first two digits of a hash of the id so that no folder has too many
//! entries, is written last when an object is made, so that a half-made object does not
//! exist; a process that runs the project picks new ones up.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use cdc_log::Tables;
use cdc_model::{Digest, ObjectId, mutant};
use serde::{Deserialize, Serialize};

use crate::error::file;
use crate::{Error, Result};

/// Objects lie in up to 256 folders.
const SHARD_DIGITS: usize = 2;

/// What an object is, as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectSpec {
    /// Its id.
    #[serde(rename = "$id")]
    pub id: ObjectId,
    /// Its parent.
    #[serde(rename = "$context", default, skip_serializing_if = "Option::is_none")]
    pub context: Option<ObjectId>,
    /// The application's database, if it is attached; else the engine owns the database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attached: Option<AttachedSpec>,
    /// It archives although it has a parent, which archives as well or hands on to one that does.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub archive: bool,
}

impl ObjectSpec {
    /// Whether its log is archived, where the project has a warehouse.
    #[must_use]
    pub const fn archives(&self) -> bool {
        self.archive || self.context.is_none()
    }
}

/// An attached database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AttachedSpec {
    /// Its absolute path.
    pub database: PathBuf,
    /// Which of its tables are captured.
    pub tables: Tables,
    /// Capture was taken out again; the log is still there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub detached: bool,
}

/// The lock of a project.
#[derive(Debug)]
pub(crate) struct ProjectLock(fs::File);

impl Drop for ProjectLock {
    /// Closing the file alone gives the lock back only when nobody else has it open: not while a child process that was
    /// forked meanwhile is about to run its program.
    fn drop(&mut self) {
        if let Err(error) = self.0.unlock() {
            tracing::warn!(%error, "the project's lock is given back with its file only");
        }
    }
}

/// The folder of a project.
#[derive(Clone, Debug)]
pub(crate) struct Registry {
    folder: PathBuf,
    /// Objects that another process serves, and where: parents of some here.
    elsewhere: BTreeMap<ObjectId, SocketAddr>,
}

impl Registry {
    /// The registry of the project in `folder`, which is made if it is missing.
    pub(crate) fn open(folder: &Path, elsewhere: BTreeMap<ObjectId, SocketAddr>) -> Result<Self> {
        let objects = folder.join(".cdc/objects");
        fs::create_dir_all(&objects).map_err(file(&objects, "written"))?;
        Ok(Self { folder: folder.to_owned(), elsewhere })
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn lock_path(&self) -> PathBuf {
        self.folder.join(".cdc/lock")
    }

    /// What takes room on the disk until it runs full.
    pub(crate) fn ballast(&self) -> PathBuf {
        self.folder.join(".cdc/ballast")
    }

    /// Whether an object is served here.
    pub(crate) fn is_here(&self, id: &ObjectId) -> Result<bool> {
        Ok(!self.elsewhere.contains_key(id) && self.get(id)?.is_some())
    }

    /// An error if another process serves the object.
    pub(crate) fn check_here(&self, id: &ObjectId) -> Result<()> {
        match self.elsewhere.get(id) {
            Some(address) => Err(Error::Elsewhere { id: id.clone(), address: *address }),
            None => Ok(()),
        }
    }

    /// Takes the project for this process, until the lock is dropped.
    pub(crate) fn lock(&self) -> Result<ProjectLock> {
        let path = self.lock_path();
        let lock = ProjectLock(fs::File::create(&path).map_err(file(&path, "written"))?);
        match lock.0.try_lock() {
            Ok(()) => self.check_home().map(|()| lock),
            Err(fs::TryLockError::WouldBlock) if mutant!("project-not-locked") => Ok(lock),
            Err(fs::TryLockError::WouldBlock) => {
                Err(Error::InUse { folder: self.folder.clone(), lock: path })
            }
            Err(fs::TryLockError::Error(source)) => Err(Error::File { path, action: "locked", source }),
        }
    }

    /// A copy of a project would drain the databases of the original, and both would lose track. A project that was
    /// moved is at home where it is now.
    fn check_home(&self) -> Result<()> {
        let path = self.folder.join(".cdc/home");
        let here = self.folder.canonicalize().map_err(file(&self.folder, "read"))?;
        let here = here.to_string_lossy().into_owned();
        let known = match fs::read_to_string(&path) {
            Ok(known) => Some(known),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(source) => return Err(Error::File { path, action: "read", source }),
        };
        if known.as_ref() == Some(&here) {
            return Ok(());
        }
        if let Some(original) = known {
            let its_home = Path::new(&original).join(".cdc/home");
            if fs::read_to_string(its_home).is_ok_and(|home| home == original) {
                return Err(Error::Copied { folder: self.folder.clone(), original: original.into() });
            }
        }
        fs::write(&path, here).map_err(file(&path, "written"))
    }

    /// The folder of one object. Earlier versions had no folders by hash; an object that lies so is left where it is.
    pub(crate) fn object_folder(&self, id: &ObjectId) -> PathBuf {
        let objects = self.folder.join(".cdc/objects");
        let flat = objects.join(id.file_name());
        if flat.join("object.json").exists() {
            return flat;
        }
        self.folder.join(object_folder(id))
    }

    /// The file of an object's log: the object's own database, or one beside an attached one.
    pub(crate) fn log_path(&self, spec: &ObjectSpec) -> PathBuf {
        let name = if spec.attached.is_some() { "log.db" } else { "object.db" };
        self.object_folder(&spec.id).join(name)
    }

    /// One object.
    pub(crate) fn get(&self, id: &ObjectId) -> Result<Option<ObjectSpec>> {
        read_spec(&self.object_folder(id).join("object.json"))
    }

    /// One object, which must exist.
    pub(crate) fn require(&self, id: &ObjectId) -> Result<ObjectSpec> {
        self.get(id)?.ok_or_else(|| Error::UnknownObject { id: id.clone(), folder: self.folder.clone() })
    }

    /// All objects, by id, and what is wrong with the descriptions that tell of none.
    pub(crate) fn list(&self) -> Result<(BTreeMap<ObjectId, ObjectSpec>, Vec<Error>)> {
        let (mut objects, mut unreadable) = (BTreeMap::new(), Vec::new());
        for folder in folders_in(&self.folder.join(".cdc/objects"))? {
            // A flat object may be called as a folder by hash is.
            let inner = if is_shard(&folder) { folders_in(&folder)? } else { Vec::new() };
            for folder in std::iter::once(folder).chain(inner) {
                match read_spec(&folder.join("object.json")) {
                    Ok(Some(spec)) => drop(objects.insert(spec.id.clone(), spec)),
                    Ok(None) => {}
                    Err(error) => unreadable.push(error),
                }
            }
        }
        Ok((objects, unreadable))
    }

    /// Stores an object: all of it or nothing, also through a crash.
    pub(crate) fn put(&self, spec: &ObjectSpec) -> Result<()> {
        self.check(spec)?;
        let (objects, folder) = (self.folder.join(".cdc/objects"), self.object_folder(&spec.id));
        fs::create_dir_all(&folder).map_err(file(&folder, "written"))?;
        let (path, draft) = (folder.join("object.json"), folder.join("object.json.new"));
        let text = serde_json::to_vec_pretty(spec)
            .map_err(|source| Error::Damaged { path: path.clone(), source })?;
        let write = || -> std::io::Result<()> {
            let mut new = fs::File::create(&draft)?;
            new.write_all(&text)?;
            new.sync_all()?;
            fs::rename(&draft, &path)?;
            fs::File::open(&folder)?.sync_all()?;
            // The folder itself may be new, and the one it is in.
            for above in folder.ancestors().skip(1).take_while(|above| above.starts_with(&objects)) {
                fs::File::open(above)?.sync_all()?;
            }
            Ok(())
        };
        write().map_err(file(&path, "written"))
    }

    /// Removes an object whose folder holds nothing but its description.
    pub(crate) fn remove_unopened(&self, id: &ObjectId) -> Result<bool> {
        let folder = self.object_folder(id);
        let path = folder.join("object.json");
        let bare = fs::read_dir(&folder)
            .is_ok_and(|mut entries| entries.all(|entry| entry.is_ok_and(|entry| entry.path() == path)));
        if !bare || !path.exists() {
            return Ok(false);
        }
        fs::remove_file(&path).map_err(file(&path, "removed"))?;
        fs::remove_dir(&folder).map_err(file(&folder, "removed"))?;
        self.remove_empty_shard(&folder);
        Ok(true)
    }

    /// Removes the folder by hash that a removed object's folder was in, if no other object lies there.
    pub(crate) fn remove_empty_shard(&self, object_folder: &Path) {
        if let Some(shard) = object_folder.parent().filter(|above| is_shard(above)) {
            drop(fs::remove_dir(shard));
        }
    }

    /// The parents of an object, nearest first, as far as they are known here.
    pub(crate) fn ancestors(&self, spec: &ObjectSpec) -> Result<Vec<ObjectId>> {
        let mut ancestors = Vec::new();
        let mut context = spec.context.clone();
        while let Some(id) = context {
            if id == spec.id || ancestors.contains(&id) {
                let mut circle = vec![spec.id.clone()];
                circle.append(&mut ancestors);
                circle.push(id);
                return Err(Error::Circle { circle });
            }
            context = self.get(&id)?.and_then(|parent| parent.context);
            ancestors.push(id);
        }
        Ok(ancestors)
    }

    /// Checks that an object may be made here, below the parent that it names.
    pub(crate) fn check(&self, spec: &ObjectSpec) -> Result<()> {
        self.check_here(&spec.id)?;
        self.ancestors(spec)?;
        if let Some(context) = &spec.context
            && !self.elsewhere.contains_key(context)
            && self.get(context)?.is_none()
        {
            return Err(Error::UnknownParent { id: spec.id.clone(), context: context.clone() });
        }
        Ok(())
    }
}

/// The folder of an object that this version makes, below the folder of its project. The database or the log of the
/// object is in it.
#[must_use]
pub fn object_folder(id: &ObjectId) -> PathBuf {
    let digest = Digest::of(id.as_str().as_bytes()).to_string();
    let shard: String = digest.chars().take(SHARD_DIGITS).collect();
    Path::new(".cdc/objects").join(shard).join(id.file_name())
}

fn is_shard(folder: &Path) -> bool {
    let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.len() == SHARD_DIGITS && name.bytes().all(|digit| digit.is_ascii_hexdigit())
}

fn folders_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut folders = Vec::new();
    for entry in fs::read_dir(folder).map_err(file(folder, "read"))? {
        let entry = entry.map_err(file(folder, "read"))?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            folders.push(entry.path());
        }
    }
    Ok(folders)
}

fn read_spec(path: &Path) -> Result<Option<ObjectSpec>> {
    match fs::read(path) {
        Ok(text) => {
            let spec = serde_json::from_slice(&text);
            spec.map(Some).map_err(|source| Error::Damaged { path: path.to_owned(), source })
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::File { path: path.to_owned(), action: "read", source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(id: &str, context: Option<&str>) -> ObjectSpec {
        let parse = |text: &str| ObjectId::parse_short(text).unwrap();
        ObjectSpec { id: parse(id), context: context.map(parse), attached: None, archive: false }
    }

    #[test]
    fn objects_are_stored_and_a_circle_or_a_missing_parent_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let registry = Registry::open(folder.path(), BTreeMap::new()).unwrap();
        let (root, child) = (spec("a.b", None), spec("a.b/c", Some("a.b")));
        assert!(matches!(registry.put(&child), Err(Error::UnknownParent { .. })));
        registry.put(&root).unwrap();
        registry.put(&child).unwrap();
        assert_eq!(registry.ancestors(&child).unwrap(), std::slice::from_ref(&root.id));
        let circle = registry.put(&spec("a.b", Some("a.b/c"))).unwrap_err();
        assert_eq!(circle.to_string(), "this $context closes a circle: a.b -> a.b/c -> a.b");
        assert!(matches!(registry.put(&spec("x.y", Some("x.y"))), Err(Error::Circle { .. })));
        assert_eq!(registry.list().unwrap().0.len(), 2);
        assert!(matches!(registry.require(&spec("x.y", None).id), Err(Error::UnknownObject { .. })));
    }

    #[test]
    fn a_project_is_free_at_once_also_when_a_forked_child_has_its_lock_file_open() {
        let folder = tempfile::tempdir().unwrap();
        let registry = Registry::open(folder.path(), BTreeMap::new()).unwrap();
        let lock = registry.lock().unwrap();
        let of_child = lock.0.try_clone().unwrap();
        assert!(matches!(registry.lock(), Err(Error::InUse { .. })));
        drop(lock);
        drop(registry.lock().unwrap());
        drop(of_child);
    }

    #[test]
    fn objects_fan_out_over_folders_and_those_that_lie_flat_stay_where_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let registry = Registry::open(folder.path(), BTreeMap::new()).unwrap();
        let objects = folder.path().join(".cdc/objects");
        let flat = spec("a.b/flat", None);
        let its_folder = objects.join(flat.id.file_name());
        fs::create_dir(&its_folder).unwrap();
        fs::write(its_folder.join("object.json"), serde_json::to_vec(&flat).unwrap()).unwrap();
        assert_eq!(registry.log_path(&flat), its_folder.join("object.db"));
        for n in 0..300 {
            registry.put(&spec(&format!("a.b/{n}"), None)).unwrap();
        }
        assert_eq!(registry.list().unwrap().0.len(), 301);
        assert!(registry.remove_unopened(&flat.id).unwrap());
        assert_eq!(registry.list().unwrap().0.len(), 300);
        let shards = folders_in(&objects).unwrap();
        assert!(shards.iter().all(|shard| is_shard(shard)), "{shards:?}");
        assert!(shards.len() > 100, "{}", shards.len());
    }

    #[test]
    fn only_one_process_takes_a_project() {
        let folder = tempfile::tempdir().unwrap();
        let registry = Registry::open(folder.path(), BTreeMap::new()).unwrap();
        let lock = registry.lock().unwrap();
        assert!(matches!(registry.lock(), Err(Error::InUse { .. })));
        drop(lock);
        registry.lock().unwrap();
    }
}
