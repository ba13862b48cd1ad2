//! What a database's schema was when capture was last found healthy.

use cdc_model::{Digest, Sequence, Timestamp};
use rusqlite::Connection;

use crate::{Error, Result, store};

/// A database's schema: its cookie, how many objects it has, and a digest of their texts in their order.
///
/// Two copies of one database can come to the same cookie by different ways. A trigger that was dropped and made
/// again leaves only the cookie changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Schema {
    cookie: i64,
    objects: i64,
    texts: Digest,
}

/// What the [`Schema`] with which capture was last found healthy is kept under in the log.
const SCHEMA: &str = "database_schema";

impl Schema {
    pub(crate) fn read(user: &Connection) -> Result<Self> {
        let cookie = user.query_row("PRAGMA schema_version", [], |row| row.get(0))?;
        let mut statement =
            user.prepare("SELECT tbl_name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY rowid")?;
        let mut rows = statement.query([])?;
        let (mut objects, mut texts) = (0, Digest::ZERO);
        while let Some(row) = rows.next()? {
            let (table, text) = (row.get_ref(0)?.as_bytes_or_null(), row.get_ref(1)?.as_bytes_or_null());
            let (table, text) = (table.map_err(from_sql)?, text.map_err(from_sql)?);
            let row = [table.unwrap_or_default(), b"\0", text.unwrap_or_default()];
            texts = texts.then(Sequence::ZERO, Timestamp::ZERO, &row);
            objects += 1;
        }
        Ok(Self { cookie, objects, texts })
    }

    pub(crate) fn stored(log: &Connection) -> Result<Option<Self>> {
        let text: Option<String> = store::meta(log, SCHEMA)?;
        let parse = |text: &str| {
            let mut parts = text.split(' ');
            Some(Self {
                cookie: parts.next()?.parse().ok()?,
                objects: parts.next()?.parse().ok()?,
                texts: parts.next()?.parse().ok()?,
            })
        };
        Ok(text.as_deref().and_then(parse))
    }

    pub(crate) fn store(self, log: &Connection) -> Result<()> {
        store::put_meta(log, SCHEMA, format!("{} {} {}", self.cookie, self.objects, self.texts))
    }

    /// Whether more was done since `old` than making objects, each of which moves the cookie by one: triggers of
    /// ours may have been away meanwhile, or row ids may have been renumbered (VACUUM).
    pub(crate) const fn hides_something_since(&self, old: &Self) -> bool {
        self.cookie != old.cookie && self.cookie - old.cookie != self.objects - old.objects
    }
}

fn from_sql(error: rusqlite::types::FromSqlError) -> Error {
    Error::Sqlite(error.into())
}
