//! How capture is taken out of an application's database.

use std::time::Duration;

use rusqlite::Connection;

use crate::attached::{HEALS_MAX, Look};
use crate::drain::Compare;
use crate::foreign::{open_database, strip_at};
use crate::{Attached, Error, Result, capture, store};

/// Looks of a detach that may find the application's lock held.
const BUSY_LOOKS_MAX: u32 = 6;

/// How long one try for the write lock takes at most, and how many there are: half a minute of them.
const TRY: Duration = Duration::from_millis(3);
const TRIES_MAX: u32 = 10_000;

/// Takes the write lock of a database whose application hardly ever lets go of it: SQLite itself asks ever more seldom,
/// and would find none of the moments in between.
fn begin_between_others(user: &Connection) -> Result<()> {
    user.busy_timeout(TRY)?;
    let begin = || user.execute_batch("BEGIN IMMEDIATE").map_err(Error::Sqlite);
    let mut begun = begin();
    for _ in 1..TRIES_MAX {
        if !begun.as_ref().is_err_and(Error::is_busy) {
            break;
        }
        begun = begin();
    }
    user.busy_timeout(store::BUSY_TIMEOUT)?;
    begun
}

impl Attached {
    /// Drains everything and takes triggers and tables of capture out of the database. The log stays.
    ///
    /// # Errors
    ///
    /// What keeps the rest from being drained, as for [`Attached::look`]; [`Error::Restless`]. Nothing is removed then.
    pub fn detach(&mut self) -> Result<()> {
        for _ in 0..HEALS_MAX {
            self.look_until_quiet()?;
            let user = open_database(self.database())?;
            // Nobody would drain what came back with a loss of power.
            user.pragma_update(None, "synchronous", "extra")?;
            begin_between_others(&user)?;
            let done = self.detach_in(&user);
            let end = if matches!(done, Ok(true)) { "COMMIT" } else { "ROLLBACK" };
            user.execute_batch(end)?;
            if done? {
                return user.close().map_err(|(_, error)| error.into());
            }
        }
        Err(Error::Restless { path: self.database().to_owned() })
    }

    /// Looks until nothing is left, also when the application holds its lock for longer than one look waits.
    fn look_until_quiet(&mut self) -> Result<()> {
        let mut busy = 0;
        loop {
            match self.look() {
                Ok(look) if look.drained.more => {}
                Ok(_) => return Ok(()),
                Err(error) if error.is_busy() && busy < BUSY_LOOKS_MAX => busy += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Under the write lock, where nothing more is captured: what was captured since the last look is drained before
    /// it is removed. Gives false when capture must be found healthy first.
    fn detach_in(&mut self, user: &Connection) -> Result<bool> {
        let mut look = Look::default();
        loop {
            if !self.look_in(user, &mut look, Compare::WhenNeeded)? {
                return Ok(false);
            }
            if !look.drained.more {
                capture::remove_all(user)?;
                return Ok(true);
            }
        }
    }

    /// Undoes [`Attached::install`] for a log that is given up, also where nobody knows whether that was committed: takes
    /// capture out without draining it, and no loss of power brings it back.
    ///
    /// # Errors
    ///
    /// [`Error::Sqlite`]; nothing is removed then.
    pub fn uninstall(&mut self) -> Result<()> {
        let user = open_database(self.database())?;
        self.check_owner(&user)?;
        strip_at(&user)?;
        user.close().map_err(|(_, error)| error.into())
    }
}
