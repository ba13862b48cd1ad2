//! Files that are not as SQLite or the log made them, and whose they are: what is to be done depends on that.

use std::path::Path;

use rusqlite::ErrorCode;

use crate::{Error, Log, Result, store};

/// Whose file is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// A log, or the database of an owned object, which its log lies in.
    Log,
    /// The database of an application.
    Database,
}

impl Error {
    /// In whose file what is stored is not what was written.
    #[must_use]
    #[expect(clippy::wildcard_enum_match_arm, reason = "the rest is no damage")]
    pub fn damage(&self) -> Option<Damage> {
        match self {
            Self::Corrupt { .. } | Self::Damaged { .. } | Self::Value(_) => Some(Damage::Log),
            Self::DatabaseDamaged { .. } => Some(Damage::Database),
            // What SQLite says of an application's database has its name.
            Self::Sqlite(error) => is_damage(error).then_some(Damage::Log),
            Self::NotCommitted { source } => source.damage(),
            _ => None,
        }
    }

    /// With the name of the log's file, where SQLite says that it is damaged.
    pub(crate) fn of_log(self, path: &Path) -> Self {
        match damage_in(&self) {
            Some(what) => Self::Damaged { path: path.to_owned(), what },
            None => self,
        }
    }

    /// With the name of the application's database, where SQLite says that it is damaged.
    pub(crate) fn of_database(self, path: &Path) -> Self {
        match damage_in(&self) {
            Some(what) => Self::DatabaseDamaged { path: path.to_owned(), what },
            None => self,
        }
    }
}

fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the rest is no damage")]
fn damage_in(error: &Error) -> Option<String> {
    const NOT_A_DATABASE: &str = "it is not a SQLite database";
    match error {
        Error::NotADatabase { path } if path.is_file() => Some(NOT_A_DATABASE.to_owned()),
        Error::Sqlite(error) => match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => Some(NOT_A_DATABASE.to_owned()),
            Some(ErrorCode::DatabaseCorrupt) => Some(error.to_string()),
            _ => None,
        },
        _ => None,
    }
}

/// Says which of two files is damaged where SQLite only says that one is: the log, or else the database. `known` is what
/// was found out before and holds until something is done without an error, because it takes reading the whole log.
pub(crate) fn blame<R>(known: &mut Option<Damage>, log: &Log, database: &Path, done: Result<R>) -> Result<R> {
    let error = match done {
        Ok(done) => {
            *known = None;
            return Ok(done);
        }
        Err(error @ Error::Sqlite(_)) if error.is_damage() => error,
        Err(error) => return Err(error),
    };
    let is_sound = || store::is_sound(&log.conn);
    let find = || if is_sound() { Damage::Database } else { Damage::Log };
    Err(match *known.get_or_insert_with(find) {
        Damage::Log => error.of_log(log.path()),
        Damage::Database => error.of_database(database),
    })
}
