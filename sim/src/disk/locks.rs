use rusqlite::ffi;

use super::code::{Code, Result};

/// How far a connection has locked a database, in SQLite's order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    #[default]
    None,
    Shared,
    Reserved,
    Pending,
    Exclusive,
}

impl Level {
    pub(super) const fn from_sqlite(level: i32) -> Self {
        match level {
            ffi::SQLITE_LOCK_NONE => Self::None,
            ffi::SQLITE_LOCK_SHARED => Self::Shared,
            ffi::SQLITE_LOCK_RESERVED => Self::Reserved,
            ffi::SQLITE_LOCK_PENDING => Self::Pending,
            _ => Self::Exclusive,
        }
    }

    pub(super) const fn to_sqlite(self) -> i32 {
        match self {
            Self::None => ffi::SQLITE_LOCK_NONE,
            Self::Shared => ffi::SQLITE_LOCK_SHARED,
            Self::Reserved => ffi::SQLITE_LOCK_RESERVED,
            Self::Pending => ffi::SQLITE_LOCK_PENDING,
            Self::Exclusive => ffi::SQLITE_LOCK_EXCLUSIVE,
        }
    }
}

/// The locks that all connections of the process hold on one file: `unixInodeInfo` of `os_unix.c`.
#[derive(Debug, Default)]
pub(super) struct Locks {
    level: Level,
    shared: u32,
}

impl Locks {
    /// `unixLock`: raises what a connection holds to `want`.
    ///
    /// # Errors
    ///
    /// `SQLITE_BUSY`; an attempt at EXCLUSIVE that fails leaves PENDING, so that no new reader comes in.
    pub(super) fn lock(&mut self, held: &mut Level, want: Level) -> Result<()> {
        if *held >= want {
            return Ok(());
        }
        if *held != self.level && (self.level >= Level::Pending || want > Level::Shared) {
            return Err(Code(ffi::SQLITE_BUSY));
        }
        if want == Level::Shared {
            self.level = self.level.max(Level::Shared);
            self.shared += 1;
            *held = Level::Shared;
            return Ok(());
        }
        if want == Level::Exclusive {
            if *held == Level::Reserved {
                *held = Level::Pending;
                self.level = Level::Pending;
            }
            if self.shared > 1 {
                return Err(Code(ffi::SQLITE_BUSY));
            }
        }
        *held = want;
        self.level = want;
        Ok(())
    }

    /// `unixUnlock`: lowers what a connection holds to SHARED or NONE.
    pub(super) fn unlock(&mut self, held: &mut Level, want: Level) {
        if *held <= want {
            return;
        }
        if *held > Level::Shared {
            self.level = Level::Shared;
        }
        if want == Level::None {
            self.shared -= 1;
            if self.shared == 0 {
                self.level = Level::None;
            }
        }
        *held = want;
    }

    /// Whether some connection is about to write.
    pub(super) fn is_reserved(&self) -> bool {
        self.level > Level::Shared
    }
}

#[cfg(test)]
mod tests {
    use super::{Level, Locks};

    #[test]
    fn a_writer_waits_for_readers_and_keeps_new_ones_out() {
        let mut locks = Locks::default();
        let (mut reader, mut writer, mut late) = (Level::None, Level::None, Level::None);
        locks.lock(&mut reader, Level::Shared).expect("nobody is there");
        locks.lock(&mut writer, Level::Shared).expect("readers share");
        locks.lock(&mut writer, Level::Reserved).expect("readers bear a writer to be");
        assert!(locks.lock(&mut reader, Level::Reserved).is_err(), "one writer");
        assert!(locks.lock(&mut writer, Level::Exclusive).is_err(), "a reader is there");
        assert_eq!(writer, Level::Pending);
        assert!(locks.lock(&mut late, Level::Shared).is_err(), "no new reader");
        locks.unlock(&mut reader, Level::None);
        locks.lock(&mut writer, Level::Exclusive).expect("the readers are gone");
        locks.unlock(&mut writer, Level::None);
        locks.lock(&mut late, Level::Shared).expect("the writer is gone");
        assert!(!locks.is_reserved());
    }
}
