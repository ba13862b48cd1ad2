use std::path::{Path, PathBuf};

use cdc_log::Log;
use cdc_model::{Clock, ObjectId};
use rusqlite::Connection;

use crate::failure::Broken;
use crate::plan::CrashPoint;
use crate::rows;

/// One object: its files, and its log while it lives.
///
/// A crash keeps what the process had written to its files and nothing else: the files are copied as they are, then
/// the handles go, and the next life opens the copy. Whatever closing them does to the old files is seen by nobody, and
/// the copy is recovered from its WAL as after a kill.
#[derive(Debug)]
pub(crate) struct Object {
    id: ObjectId,
    folder: PathBuf,
    clock: Clock,
    life: u32,
    log: Option<Log>,
    /// The checkers' own connection to the file of this life.
    reader: Option<Connection>,
    armed: Option<CrashPoint>,
}

/// What became of a transaction.
#[derive(Debug)]
pub(crate) enum Ended<R> {
    Committed(R),
    /// It gave up by itself.
    GivenUp,
    CrashedBefore,
    CrashedAfter(R),
}

/// The reason with which a transaction gives up that is meant to.
pub(crate) const ON_PURPOSE: &str = "on purpose";

impl Object {
    pub(crate) fn create(folder: PathBuf, id: ObjectId, clock: Clock) -> Result<Self, Broken> {
        std::fs::create_dir(&folder)?;
        let mut object = Self { id, folder, clock, life: 0, log: None, reader: None, armed: None };
        object.open()?;
        Ok(object)
    }

    pub(crate) const fn id(&self) -> &ObjectId {
        &self.id
    }

    /// Counts the crashes.
    pub(crate) const fn life(&self) -> u32 {
        self.life
    }

    pub(crate) const fn log(&self) -> Option<&Log> {
        self.log.as_ref()
    }

    pub(crate) const fn log_mut(&mut self) -> Option<&mut Log> {
        self.log.as_mut()
    }

    /// A reader of what lies in the files, for the checkers; `None` while the object is down.
    pub(crate) const fn reader(&self) -> Option<&Connection> {
        self.reader.as_ref()
    }

    /// The file of the current life.
    fn path(&self) -> PathBuf {
        self.path_of(self.life)
    }

    fn path_of(&self, life: u32) -> PathBuf {
        self.folder.join(format!("life-{life}.db"))
    }

    pub(crate) fn open(&mut self) -> Result<(), Broken> {
        assert!(self.log.is_none(), "an object is opened once");
        let path = self.path();
        self.log = Some(Log::open(&path, &self.id, &self.clock)?);
        self.reader = Some(rows::open(&path)?);
        Ok(())
    }

    /// Lets the next transaction end in a crash; `None` takes that back.
    pub(crate) const fn arm(&mut self, point: Option<CrashPoint>) {
        self.armed = point;
    }

    /// Crashes between two pieces of work.
    pub(crate) fn crash(&mut self) -> Result<(), Broken> {
        copy_files(&self.path(), &self.path_of(self.life + 1))?;
        self.die()
    }

    fn die(&mut self) -> Result<(), Broken> {
        let old = self.path();
        self.log = None;
        self.reader = None;
        self.life += 1;
        self.armed = None;
        remove_files(&old)
    }

    /// Keeps a copy of the files of an object that is down.
    pub(crate) fn keep_copy(&self) -> Result<(), Broken> {
        assert!(self.log.is_none(), "only the files of a dead object are kept");
        Ok(copy_files(&self.path(), &self.folder.join("copy.db"))?)
    }

    /// Puts the kept copy in the place of the files of an object that is down.
    pub(crate) fn restore_copy(&self) -> Result<(), Broken> {
        assert!(self.log.is_none(), "only the files of a dead object are replaced");
        remove_files(&self.path())?;
        Ok(copy_files(&self.folder.join("copy.db"), &self.path())?)
    }

    /// Runs one transaction. `work` calls the gate when only the COMMIT is left.
    pub(crate) fn commit<R>(
        &mut self,
        work: impl FnOnce(&mut Log, &mut dyn FnMut() -> cdc_log::Result<()>) -> cdc_log::Result<R>,
    ) -> Result<Ended<R>, Broken> {
        let armed = self.armed;
        let (from, to) = (self.path(), self.path_of(self.life + 1));
        let mut crashed = None;
        let mut gate = || {
            if armed == Some(CrashPoint::BeforeCommit) {
                crashed = Some(copy_files(&from, &to));
                return Err(cdc_log::Error::GivenUp { reason: "the object crashed".to_owned() });
            }
            Ok(())
        };
        let log = self.log.as_mut().expect("only a living object works");
        let done = work(log, &mut gate);
        if let Some(copied) = crashed {
            copied?;
            self.die()?;
            return Ok(Ended::CrashedBefore);
        }
        match done {
            Ok(done) if armed.is_some() => {
                self.crash()?;
                Ok(Ended::CrashedAfter(done))
            }
            Ok(done) => Ok(Ended::Committed(done)),
            Err(cdc_log::Error::GivenUp { reason }) if reason == ON_PURPOSE => Ok(Ended::GivenUp),
            Err(error) => Err(error.into()),
        }
    }
}

/// The database and its WAL. The index of the WAL is memory that a crash takes along.
fn files(database: &Path) -> [PathBuf; 2] {
    let mut wal = database.as_os_str().to_owned();
    wal.push("-wal");
    [database.to_owned(), wal.into()]
}

fn copy_files(from: &Path, to: &Path) -> std::io::Result<()> {
    for (from, to) in files(from).iter().zip(files(to)) {
        if from.exists() {
            std::fs::copy(from, to)?;
        }
    }
    Ok(())
}

fn remove_files(database: &Path) -> Result<(), Broken> {
    for file in files(database) {
        if file.exists() {
            std::fs::remove_file(file)?;
        }
    }
    Ok(())
}
