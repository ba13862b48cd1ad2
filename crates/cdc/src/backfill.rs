use cdc_log::{Attached, Remaining};
use cdc_model::{Clock, ObjectId};
use cdc_replay::Progress;

use crate::registry::ProjectLock;
use crate::{Project, Result};

/// The taking up of rows that were there when their table was attached. What is taken stays when it is dropped; whoever
/// looks at the database next goes on.
#[derive(Debug)]
pub struct Backfill {
    attached: Attached,
    remaining: Remaining,
    progress: Progress,
    /// The project is this process's meanwhile.
    _lock: ProjectLock,
}

impl Project {
    /// Takes up the rows that were there when the object's database was attached, or those that are left of them, in the
    /// place of an engine. [`Backfill::remaining`] tells how many.
    ///
    /// # Errors
    ///
    /// [`Error::InUse`](crate::Error::InUse) when an engine works on the project: it takes them.
    /// [`Error::UnknownObject`](crate::Error::UnknownObject), [`Error::NotAttached`](crate::Error::NotAttached), or what is
    /// wrong with the database.
    pub fn backfill(&self, id: &ObjectId, clock: &Clock) -> Result<Backfill> {
        let lock = self.registry.lock()?;
        let attached = self.open_attached(&self.registry.require(id)?, clock)?;
        let remaining = attached.remaining()?;
        let progress = Progress { total: remaining.rows, ..Progress::default() };
        Ok(Backfill { attached, remaining, progress, _lock: lock })
    }
}

impl Backfill {
    /// What was to be taken up, or compared with the log, when this began.
    #[must_use]
    pub const fn remaining(&self) -> &Remaining {
        &self.remaining
    }

    /// Takes up a few more. `None` when all are in the log.
    ///
    /// # Errors
    ///
    /// What is wrong with the database or the log.
    pub fn step(&mut self) -> Result<Option<Progress>> {
        let drained = self.attached.look()?.drained;
        self.progress.records += drained.records;
        self.progress.scanned = (self.progress.scanned + drained.compared_rows).min(self.progress.total);
        Ok(drained.more.then_some(self.progress))
    }
}
