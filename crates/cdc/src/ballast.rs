//! Room that is kept on the disk for when it runs full.
//!
//! A log that cannot grow cannot shrink either: also what removes rows is written first. So a file takes some of the disk
//! as long as there is enough. It is given up when SQLite says that the disk is full, and from then on nothing new is
//! taken, from applications, callers or children of other machines, until the file is there again, whole. What empties the
//! disk goes on in its place: sending, archiving, storing what others have, pruning. Events of children on the same disk go up
//! while half of the file is there, because they go from below only once they are above.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use cdc_model::{fault, mutant, reached};
use cdc_net::Env;
use tokio::sync::watch;

use crate::engine::{Inner, blocking};
use crate::error::file;
use crate::shared::stopped;
use crate::{Error, Result};

/// What one step takes of the disk at most: others must not find it full because of us.
const STEP_BYTES: usize = 512 << 10;

/// Between two steps.
const STEP_EVERY: Duration = Duration::from_millis(250);

/// What a step that finds no room gives back of what the file has: others may need it sooner.
const GIVEN_BACK_BYTES: u64 = 512 << 10;

/// The file, and whether it was given up.
#[derive(Debug)]
pub(crate) struct Ballast {
    path: PathBuf,
    bytes: u64,
    pub(crate) given_up: watch::Sender<bool>,
}

impl Ballast {
    pub(crate) fn new(path: PathBuf, bytes: u64) -> Self {
        Self { path, bytes, given_up: watch::Sender::new(false) }
    }

    /// Whether the disk ran full, and there is not enough room again so far.
    pub(crate) fn is_given_up(&self) -> bool {
        *self.given_up.borrow()
    }

    /// Whether what lies on this disk already may go to another place on it.
    pub(crate) fn has_room_to_move(&self) -> bool {
        !self.is_given_up() || fs::metadata(&self.path).is_ok_and(|file| file.len() >= self.bytes / 2)
    }

    /// Gives the room to others, because of this error.
    pub(crate) fn note(&self, error: &Error) {
        if let Error::NotReopened { source, .. } = error {
            return self.note(source);
        }
        if self.bytes > 0 && matches!(error, Error::Log(error) if error.is_full_disk()) {
            self.give_up();
        }
    }

    fn give_up(&self) {
        if !self.given_up.send_replace(true) {
            reached!("disk.ballast-given-up");
            tracing::warn!(ballast = %self.path.display(), "the disk is full: nothing new is taken until there is room");
        }
        // What cannot be removed is no room for anybody, and is taken for a part of the next.
        drop(fs::remove_file(&self.path));
    }

    /// Takes some of what is missing. Gives whether all is there.
    fn take_some(&self) -> Result<bool> {
        let taken = || -> io::Result<bool> {
            let mut ballast = OpenOptions::new().append(true).create(true).open(&self.path)?;
            let had = ballast.metadata()?.len();
            let some = usize::try_from(self.bytes.saturating_sub(had)).unwrap_or(usize::MAX).min(STEP_BYTES);
            // File systems take the room when it is written; that it is on the disk later helps nobody.
            let written = match some > 0 && fault::is_full(&self.path) {
                true => Err(io::ErrorKind::StorageFull.into()),
                false => ballast.write_all(&noise(had, some)),
            };
            let less = had.saturating_sub(GIVEN_BACK_BYTES);
            written.or_else(|error| ballast.set_len(less).and(Err(error)))?;
            Ok(ballast.metadata()?.len() >= self.bytes)
        };
        taken().map_err(file(&self.path, "written"))
    }

    /// Takes all that is missing, when an engine begins. A disk without room for it is a full one, also where another
    /// engine has given it up: what there is of room is for what empties the disk.
    pub(crate) fn take(&self) -> Result<()> {
        if self.bytes == 0 {
            return Ok(());
        }
        if fs::metadata(&self.path).is_ok_and(|found| found.len() > self.bytes) {
            fs::remove_file(&self.path).map_err(file(&self.path, "removed"))?;
        }
        loop {
            match self.take_some() {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(Error::File { source, .. }) if source.kind() == io::ErrorKind::StorageFull => {
                    reached!("disk.full-from-the-start");
                    self.give_up();
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// Bytes that no file system stores in less room.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let (mut state, mut bytes) = (seed | 1, vec![0; len]);
    for part in bytes.chunks_exact_mut(8) {
        // Xorshift of 64 bits.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        part.copy_from_slice(&state.to_le_bytes());
    }
    bytes
}

/// Takes the room again, a step at a time, until the engine stops.
pub(crate) async fn drive<E: Env>(engine: Weak<Inner<E>>, env: E, mut stop: watch::Receiver<bool>) {
    let Some(ballast) = engine.upgrade().map(|engine| engine.ballast()) else { return };
    let mut given_up = ballast.given_up.subscribe();
    if mutant!("full-from-the-start-not-noticed") && given_up.changed().await.is_err() {
        return;
    }
    loop {
        tokio::select! {
            biased;
            () = stopped(&mut stop) => return,
            _ = given_up.wait_for(|given_up| *given_up) => {}
        }
        tokio::select! {
            biased;
            () = stopped(&mut stop) => return,
            () = env.sleep(STEP_EVERY) => {}
        }
        if mutant!("ballast-not-taken-again") {
            continue;
        }
        let taking = Arc::clone(&ballast);
        let taken = blocking(&env, move || taking.take_some());
        // There is no room so far, or not all of it.
        if !taken.await.unwrap_or(false) {
            continue;
        }
        ballast.given_up.send_replace(false);
        tracing::info!("there is room on the disk again");
        // Whoever was refused for want of room may never ask again.
        let objects = engine.upgrade().map(|engine| engine.all()).unwrap_or_default();
        if !mutant!("full-disk-told-for-ever") {
            objects.iter().for_each(|object| object.clear_passing("intake"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_taken_in_steps_and_given_up_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ballast");
        let ballast = Ballast::new(path.clone(), 1_200_000);
        ballast.take().unwrap();
        let len = || fs::metadata(&path).map(|file| file.len()).ok();
        assert_eq!(len(), Some(1_200_000));
        ballast.note(&Error::ShutDown);
        assert!(!ballast.is_given_up() && len().is_some());
        let full = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL);
        let full = cdc_log::Error::Sqlite(rusqlite::Error::SqliteFailure(full, None));
        ballast.note(&full.into());
        assert!(ballast.is_given_up() && len().is_none());
        let steps: Vec<bool> = (0..3).map(|_| ballast.take_some().unwrap()).collect();
        assert_eq!((steps, len()), (vec![false, false, true], Some(1_200_000)));
        // Of an engine with another setting.
        Ballast::new(path.clone(), 1000).take().unwrap();
        assert_eq!(len(), Some(1000));
        Ballast::new(path.clone(), 0).take().unwrap();
    }

    #[test]
    fn noise_does_not_compress() {
        let noise = noise(0, 1 << 16);
        let mut counts = [0_u32; 256];
        noise.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
        assert!(counts.iter().all(|count| (150..400).contains(count)), "{counts:?}");
    }
}
