use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cdc_iceberg::{Location, Storage};
use cdc_log::{AttachReport, Attached, Log, Tables};
use cdc_model::{Clock, ObjectId, mutant};

use crate::error::file;
use crate::registry::{AttachedSpec, ObjectSpec, Registry};
use crate::{Error, Result, Settings};

/// A project on disk: its objects and settings. Nothing runs; any number of processes may hold one and read, also
/// while an engine works on the same folder.
#[derive(Clone, Debug)]
pub struct Project {
    pub(crate) registry: Registry,
    pub(crate) settings: Settings,
    /// Used in the place of the folder that the settings name.
    store: Option<Storage>,
}

/// Where logs are archived.
#[derive(Clone, Debug)]
pub(crate) enum Warehouse {
    Folder(Location),
    Store(Storage),
}

impl Warehouse {
    /// Makes what is missing of it.
    pub(crate) fn open(&self) -> Result<Storage> {
        match self {
            Self::Folder(location) => Ok(Storage::open(location)?),
            Self::Store(storage) => Ok(storage.clone()),
        }
    }

    /// As it is.
    pub(crate) fn existing(&self) -> Result<Storage> {
        match self {
            Self::Folder(location) => Ok(Storage::existing(location)?),
            Self::Store(storage) => Ok(storage.clone()),
        }
    }
}

/// What [`Project::attach`] is told.
#[derive(Clone, Debug)]
pub struct AttachOptions {
    /// The application's database.
    pub database: PathBuf,
    /// The object it becomes.
    pub id: ObjectId,
    /// Its parent.
    pub context: Option<ObjectId>,
    /// Which of its tables are captured.
    pub tables: Tables,
}

/// How long attaching and detaching wait for an application's lock.
const WORK_PATIENCE: Duration = Duration::from_secs(5);

/// Whether a failed attempt has left nothing in the database.
struct Clean(bool);

/// What [`Cdc::open_all`](crate::Cdc::open_all) came to.
#[derive(Debug)]
pub struct Opening {
    /// How many objects were opened anew.
    pub opened: usize,
    /// Those that could not be opened, and why.
    pub failed: Vec<(ObjectId, Error)>,
    /// As [`Project::unreadable`].
    pub unreadable: Vec<Error>,
}

impl Project {
    /// The project in `folder`, which is made if it is missing.
    ///
    /// # Errors
    ///
    /// [`Error::File`] when the folder cannot be made.
    pub fn open(folder: impl AsRef<Path>, settings: Settings) -> Result<Self> {
        let registry = Registry::open(folder.as_ref(), settings.remotes.clone())?;
        Ok(Self { registry, settings, store: None })
    }

    /// The same project, archiving into a store that is open already in the place of the folder that its settings
    /// name.
    #[must_use]
    pub fn with_store(self, store: Storage) -> Self {
        Self { store: Some(store), ..self }
    }

    /// The project's folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.registry.folder()
    }

    /// Its settings.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// All objects, by id, but those whose description cannot be read ([`Project::unreadable`]).
    ///
    /// # Errors
    ///
    /// [`Error::File`] when the project cannot be read.
    pub fn objects(&self) -> Result<BTreeMap<ObjectId, ObjectSpec>> {
        Ok(self.registry.list()?.0)
    }

    /// What is wrong with descriptions of objects ([`Error::Damaged`], [`Error::File`]). The others are not touched by it.
    ///
    /// # Errors
    ///
    /// [`Error::File`] when the project cannot be read.
    pub fn unreadable(&self) -> Result<Vec<Error>> {
        Ok(self.registry.list()?.1)
    }

    /// One object.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownObject`].
    pub fn object(&self, id: &ObjectId) -> Result<ObjectSpec> {
        self.registry.require(id)
    }

    /// Where another process serves an object, as the settings say.
    #[must_use]
    pub fn remote(&self, id: &ObjectId) -> Option<SocketAddr> {
        self.settings.remotes.get(id).copied()
    }

    /// The object a database is attached to.
    ///
    /// # Errors
    ///
    /// [`Error::File`] when the path or the project cannot be read.
    pub fn object_of(&self, database: &Path) -> Result<Option<ObjectSpec>> {
        let database = database.canonicalize().map_err(file(database, "read"))?;
        let attached =
            |spec: &ObjectSpec| spec.attached.as_ref().is_some_and(|attached| attached.database == database);
        Ok(self.objects()?.into_values().find(attached))
    }

    /// The parents of an object, nearest first.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownObject`].
    pub fn ancestors(&self, id: &ObjectId) -> Result<Vec<ObjectId>> {
        self.registry.ancestors(&self.registry.require(id)?)
    }

    /// Makes an object whose database the engine owns. Gives false when it was there already, with this parent.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownParent`], [`Error::Circle`], [`Error::Elsewhere`], or [`Error::OtherParent`] when it exists with
    /// another.
    pub fn create(&self, id: &ObjectId, context: Option<&ObjectId>) -> Result<bool> {
        self.create_as(&ObjectSpec {
            id: id.clone(),
            context: context.cloned(),
            attached: None,
            archive: false,
        })
    }

    pub(crate) fn create_as(&self, spec: &ObjectSpec) -> Result<bool> {
        let (id, context) = (&spec.id, spec.context.as_ref());
        if let Some(found) = self.registry.get(id)? {
            if found.context.as_ref() == context || mutant!("second-parent-ignored") {
                return Ok(false);
            }
            return Err(Error::OtherParent { id: id.clone(), found: found.context });
        }
        self.registry.put(spec)?;
        Ok(true)
    }

    /// Takes back [`Project::create`] of an object that nothing has opened since. Gives false, and changes nothing,
    /// when it is not there, has a log or is attached.
    ///
    /// # Errors
    ///
    /// [`Error::File`].
    pub fn uncreate(&self, id: &ObjectId) -> Result<bool> {
        self.registry.remove_unopened(id)
    }

    /// Attaches an application's database: installs capture in it and records the object. All or nothing: when
    /// this fails, the database is as it was. The rows that are there are taken up by the engine, or by
    /// [`Project::backfill`].
    ///
    /// # Errors
    ///
    /// What is wrong with the database or the object; [`Error::InUse`] when the object exists and an engine works
    /// on the project.
    pub fn attach(&self, options: &AttachOptions, clock: &Clock) -> Result<AttachReport> {
        let database = options.database.canonicalize();
        let database =
            database.map_err(|_missing| cdc_log::Error::NotFound { path: options.database.clone() })?;
        let attached = AttachedSpec { database, tables: options.tables.clone(), detached: false };
        let known = self.registry.get(&options.id)?;
        let _lock = match &known {
            None => None,
            Some(known) => {
                let same_kind =
                    known.attached.as_ref().is_some_and(|known| known.database == attached.database);
                if known.context != options.context || !same_kind {
                    return Err(Error::OtherParent { id: options.id.clone(), found: known.context.clone() });
                }
                Some(self.registry.lock()?)
            }
        };
        let spec = ObjectSpec {
            id: options.id.clone(),
            context: options.context.clone(),
            attached: Some(attached),
            archive: known.is_some_and(|known| known.archive),
        };
        self.registry.check(&spec)?;
        let folder = self.registry.object_folder(&spec.id);
        let folder_is_new = !folder.exists();
        fs::create_dir_all(&folder).map_err(file(&folder, "written"))?;
        let report = self.install(&spec, folder_is_new, clock);
        if matches!(&report, Err((_, Clean(true)))) && folder_is_new {
            // The log in it has taken nothing. What cannot be removed is used by the next attempt.
            drop(fs::remove_dir_all(&folder));
            self.registry.remove_empty_shard(&folder);
        }
        report.map_err(|(error, _)| error)
    }

    /// Installs capture and records the object. A new object's capture is taken out again when that fails; an error
    /// says whether the database is free of it.
    fn install(
        &self,
        spec: &ObjectSpec,
        is_new: bool,
        clock: &Clock,
    ) -> Result<AttachReport, (Error, Clean)> {
        let mut attached = self.open_attached(spec, clock).map_err(|error| (error, Clean(true)))?;
        let installed = match attached.install() {
            // Tables that are refused leave the database as it was.
            Err(
                error @ (cdc_log::Error::UnknownTable { .. }
                | cdc_log::Error::UnsupportedTable { .. }
                | cdc_log::Error::WritesWouldFail { .. }
                | cdc_log::Error::IsALog { .. }),
            ) => return Err((error.into(), Clean(true))),
            installed => installed.map_err(Error::from),
        };
        let recorded = installed.and_then(|report| self.registry.put(spec).map(|()| report));
        recorded.map_err(|error| {
            let clean = is_new && attached.uninstall().is_ok();
            (error, Clean(clean))
        })
    }

    /// Drains what is left and takes capture out of an attached database. The log stays.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownObject`], [`Error::InUse`], or what is wrong with the database.
    pub fn detach(&self, id: &ObjectId, clock: &Clock) -> Result<PathBuf> {
        let mut spec = self.registry.require(id)?;
        let _lock = self.registry.lock()?;
        let mut attached = self.open_attached(&spec, clock)?;
        attached.detach()?;
        let database = attached.database().to_owned();
        if let Some(attached) = &mut spec.attached {
            attached.detached = true;
        }
        self.registry.put(&spec)?;
        Ok(database)
    }

    /// Takes capture out of a database whose log is lost or elsewhere, and forgets a database that is gone. What was
    /// captured and not drained is lost. Gives the object it was attached to here, if any.
    ///
    /// # Errors
    ///
    /// [`Error::InUse`], or what is wrong with the database.
    pub fn detach_by_force(&self, database: &Path) -> Result<Option<ObjectId>> {
        let _lock = self.registry.lock()?;
        let path = database.canonicalize().unwrap_or_else(|_gone| database.to_owned());
        if path.exists() {
            cdc_log::strip(&path)?;
        }
        let is_it = |spec: &ObjectSpec| spec.attached.as_ref().is_some_and(|known| known.database == path);
        let Some(mut spec) = self.objects()?.into_values().find(is_it) else { return Ok(None) };
        if let Some(attached) = &mut spec.attached {
            attached.detached = true;
        }
        self.registry.put(&spec)?;
        Ok(Some(spec.id))
    }

    /// An object's database and log, once the database was looked at.
    pub(crate) fn open_attached(&self, spec: &ObjectSpec, clock: &Clock) -> Result<Attached> {
        self.open_attached_by(Attached::open_within, WORK_PATIENCE, spec, clock)
    }

    /// An object's log, and its database for looks that do not wait longer for a lock of the application than `patience`.
    /// Where there is a log, what is wrong with the database is found by the first look.
    pub(crate) fn open_attached_log(
        &self,
        patience: Duration,
        spec: &ObjectSpec,
        clock: &Clock,
    ) -> Result<Attached> {
        let is_logged = self.registry.log_path(spec).exists();
        let open = if is_logged { Attached::open_log } else { Attached::open_within };
        self.open_attached_by(open, patience, spec, clock)
    }

    fn open_attached_by(
        &self,
        open: fn(Duration, &Path, &Path, &ObjectId, Tables, &Clock) -> cdc_log::Result<Attached>,
        patience: Duration,
        spec: &ObjectSpec,
        clock: &Clock,
    ) -> Result<Attached> {
        let Some(attached) = &spec.attached else {
            return Err(Error::NotAttached { id: spec.id.clone() });
        };
        let (log, tables) = (self.registry.log_path(spec), attached.tables.clone());
        Ok(open(patience, &attached.database, &log, &spec.id, tables, clock)?)
    }

    /// Opens an object's log for reading along.
    pub(crate) fn open_log(&self, spec: &ObjectSpec, clock: &Clock) -> Result<Log> {
        let folder = self.registry.object_folder(&spec.id);
        fs::create_dir_all(&folder).map_err(file(&folder, "written"))?;
        Ok(Log::open(self.registry.log_path(spec), &spec.id, clock)?)
    }

    /// Where an object archives; `None` when it does not.
    pub(crate) fn warehouse(&self, spec: &ObjectSpec) -> Result<Option<Warehouse>> {
        if spec.archives() { self.any_warehouse() } else { Ok(None) }
    }

    /// Checks the address of the warehouse.
    ///
    /// # Errors
    ///
    /// [`Error::Archive`] when it is not understood.
    pub fn check_warehouse(&self) -> Result<()> {
        self.any_warehouse().map(drop)
    }

    fn any_warehouse(&self) -> Result<Option<Warehouse>> {
        let Some(archive) = &self.settings.archive else { return Ok(None) };
        if let Some(store) = &self.store {
            return Ok(Some(Warehouse::Store(store.clone())));
        }
        let location: Location = archive.warehouse.parse()?;
        if location.path().is_relative() {
            return Ok(Some(Warehouse::Folder(Location::folder(self.folder().join(location.path())))));
        }
        Ok(Some(Warehouse::Folder(location)))
    }
}
