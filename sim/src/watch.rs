//! How a process hears that a database was written: by chance.

use std::path::{Path, PathBuf};
use std::time::Duration;

use cdc::{Env, Watch};

use crate::disk::FileStates;
use crate::machine::Machine;

/// A watch that wakes at random times, whatever happens to the files: sooner or later than a change, without one, or so
/// late that who waits has looked by himself.
#[derive(Debug)]
pub(crate) struct SimWatch<E> {
    env: E,
    machine: Machine,
    database: PathBuf,
}

impl<E> SimWatch<E> {
    pub(crate) fn new(env: E, machine: Machine, database: &Path) -> Self {
        Self { env, machine, database: database.to_owned() }
    }
}

impl<E: Env> Watch for SimWatch<E> {
    type State = FileStates;

    fn state(&mut self) -> FileStates {
        self.machine.file_states(&self.database)
    }

    async fn changed(&mut self) {
        /// Of any magnitude from a millisecond to four seconds.
        const DOUBLINGS_MAX: u64 = 12;
        let doublings = u32::try_from(self.machine.draw(0, DOUBLINGS_MAX)).unwrap_or_default();
        let late_us = self.machine.draw(0, 1_000 << doublings);
        self.env.sleep(Duration::from_micros(late_us)).await;
    }
}
