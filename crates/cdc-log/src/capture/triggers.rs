//! The text of the triggers.
//!
//! A row changed by an ordinary statement is copied by one AFTER trigger into `_cdc_capture`. Rows that a
//! REPLACE conflict removes fire no DELETE trigger; for them a BEFORE trigger (the guard) stashes the rows that
//! conflict with NEW, and an AFTER trigger logs those that are gone as op `R`, just before the row that replaced
//! them. Stale stash rows (of ignored inserts) do no harm, because only rows that are gone are logged.
//!
//! The last trigger created fires first. So guards are created before all user triggers (nothing of the user's
//! runs between them and the write), AFTER triggers after all user triggers.

use rusqlite::Connection;

use super::shape::{Shape, quoted};
use crate::Result;

/// Rows the stash of one table holds at most.
const STASH_ROWS: u32 = 64;

/// Milliseconds since 1970 by SQL that every SQLite since 3.26 has and that schemas may use untrusted.
const NOW: &str = "CAST((julianday('now')-2440587.5)*86400000+0.5 AS INTEGER)";

/// One trigger or table to create, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Triggers {
    /// The table in which the guard stashes rows.
    pub(crate) stash: (String, String),
    /// BEFORE triggers: name and text.
    pub(crate) before: Vec<(String, String)>,
    /// AFTER triggers: name and text, in the order to create them.
    pub(crate) after: Vec<(String, String)>,
}

/// What the triggers of one table are made from.
struct Text<'a> {
    id: i64,
    shape: &'a Shape,
    table: String,
    stash: String,
    conflicts: Vec<String>,
    unique_columns: Vec<String>,
}

impl Triggers {
    /// The triggers for a table whose capture rows carry the table id `id`.
    pub(crate) fn of(conn: &Connection, id: i64, shape: &Shape) -> Result<Self> {
        let indexes = UniqueIndex::read(conn, shape)?;
        let text = Text {
            id,
            shape,
            table: quoted(&shape.table),
            stash: format!("_cdc_stash_{id}"),
            conflicts: indexes.iter().map(UniqueIndex::conflict).collect(),
            unique_columns: unique_columns(shape, &indexes),
        };
        let stash_columns: Vec<String> = (0..shape.width()).map(|at| format!("v{at}")).collect();
        let stash =
            format!("CREATE TABLE {}(n INTEGER PRIMARY KEY, {})", text.stash, stash_columns.join(", "));
        let mut before = vec![text.guard_insert()];
        let mut after = vec![text.delete(), text.update(), text.insert(), text.replaced_by_insert()];
        if !text.unique_columns.is_empty() {
            before.push(text.guard_update());
            after.push(text.replaced_by_update());
        }
        Ok(Self { stash: (text.stash.clone(), stash), before, after })
    }
}

impl Text<'_> {
    fn trigger(&self, name: &str, head: &str, body: &[String]) -> (String, String) {
        let name = format!("_cdc_{}_{name}", self.id);
        let body: String = body.iter().map(|statement| format!("{statement};\n")).collect();
        let text =
            format!("CREATE TRIGGER {name} {head} BEGIN\n{body}END", head = head.replace("{t}", &self.table));
        (name, text)
    }

    /// `INSERT INTO _cdc_capture` of one row, values given as SQL.
    fn capture(&self, op: &str, values: &[String]) -> String {
        let (head, row) = capture_row(self.id, op, values);
        format!("{head} VALUES ({row})")
    }

    fn insert(&self) -> (String, String) {
        self.trigger("insert", "AFTER INSERT ON {t}", &[self.capture("I", &self.shape.values("NEW."))])
    }

    fn update(&self) -> (String, String) {
        let (old, new) = (self.shape.values("OLD."), self.shape.values("NEW."));
        let body = if self.shape.is_wide() {
            vec![self.capture("O", &old), self.capture("U", &new)]
        } else {
            vec![self.capture("U", &[old, new].concat())]
        };
        self.trigger("update", "AFTER UPDATE ON {t}", &body)
    }

    fn delete(&self) -> (String, String) {
        let unstash = format!("DELETE FROM {} WHERE {}", self.stash, self.stashed_is("OLD."));
        self.trigger(
            "delete",
            "AFTER DELETE ON {t}",
            &[self.capture("D", &self.shape.values("OLD.")), unstash],
        )
    }

    /// The condition that a stash row (unqualified columns) has the key of `prefix` (`NEW.` or `OLD.`).
    fn stashed_is(&self, prefix: &str) -> String {
        let equal = self.shape.row_key().into_iter().map(|(name, at)| format!("v{at} IS {prefix}{name}"));
        equal.collect::<Vec<_>>().join(" AND ")
    }

    /// The condition that a stash row is no longer in the table.
    fn stashed_is_gone(&self) -> String {
        let equal = self
            .shape
            .row_key()
            .into_iter()
            .map(|(name, at)| format!("_cdc_t.{name} = {}.v{at}", self.stash));
        format!(
            "NOT EXISTS(SELECT 1 FROM {} AS _cdc_t WHERE {})",
            self.table,
            equal.collect::<Vec<_>>().join(" AND ")
        )
    }

    /// Stashes the rows of the table that satisfy one of the conflict conditions and `more`.
    fn stash_rows(&self, more: &str) -> Vec<String> {
        let stash = &self.stash;
        let rows: Vec<String> = self.conflicts.iter().map(|conflict| format!("({conflict}{more})")).collect();
        let columns: String = (0..self.shape.width()).map(|at| format!("v{at}, ")).collect();
        let values = self.shape.values("_cdc_t.").join(", ");
        let keys: Vec<String> = self
            .shape
            .row_key()
            .into_iter()
            .map(|(name, at)| format!("_cdc_t.{name} = {stash}.v{at}"))
            .collect();
        let conflicting = format!("FROM {} AS _cdc_t WHERE {}", self.table, rows.join(" OR "));
        vec![
            format!("DELETE FROM {stash} WHERE n <= (SELECT max(n) FROM {stash}) - {STASH_ROWS}"),
            format!(
                "DELETE FROM {stash} WHERE EXISTS(SELECT 1 {} AND {})",
                parenthesised(&conflicting),
                keys.join(" AND ")
            ),
            format!("INSERT INTO {stash}({columns}n) SELECT {values}, NULL {conflicting}"),
        ]
    }

    /// True when some row conflicts; one probe per unique index.
    fn any_conflict(&self, more: &str) -> String {
        let probe = |conflict: &String| {
            format!("EXISTS(SELECT 1 FROM {} AS _cdc_t WHERE {conflict}{more})", self.table)
        };
        self.conflicts.iter().map(probe).collect::<Vec<_>>().join(" OR ")
    }

    fn guard_insert(&self) -> (String, String) {
        let head = format!("BEFORE INSERT ON {{t}} WHEN {}", self.any_conflict(""));
        self.trigger("guard_insert", &head, &self.stash_rows(""))
    }

    fn guard_update(&self) -> (String, String) {
        let same: Vec<String> = self
            .shape
            .row_key()
            .into_iter()
            .map(|(name, _)| format!("_cdc_t.{name} IS OLD.{name}"))
            .collect();
        let other = format!(" AND NOT ({})", same.join(" AND "));
        let columns = self.unique_columns.join(", ");
        let head = format!("BEFORE UPDATE OF {columns} ON {{t}} WHEN {}", self.any_conflict(&other));
        self.trigger("guard_update", &head, &self.stash_rows(&other))
    }

    /// Logs the stash rows that `gone` holds for as replaced and takes them out.
    fn replaced(&self, gone: &str) -> Vec<String> {
        let values: Vec<String> = (0..self.shape.width()).map(|at| format!("v{at}")).collect();
        let (head, row) = capture_row(self.id, "R", &values);
        vec![
            format!("{head} SELECT {row} FROM {} WHERE {gone}", self.stash),
            format!("DELETE FROM {} WHERE {gone}", self.stash),
        ]
    }

    fn replaced_by_insert(&self) -> (String, String) {
        let head = format!("AFTER INSERT ON {{t}} WHEN EXISTS(SELECT 1 FROM {})", self.stash);
        let gone = format!("({}) OR {}", self.stashed_is("NEW."), self.stashed_is_gone());
        self.trigger("replaced_by_insert", &head, &self.replaced(&gone))
    }

    fn replaced_by_update(&self) -> (String, String) {
        let columns = self.unique_columns.join(", ");
        let head = format!("AFTER UPDATE OF {columns} ON {{t}} WHEN EXISTS(SELECT 1 FROM {})", self.stash);
        let keys = self.shape.row_key();
        let same: Vec<String> = keys.iter().map(|(name, _)| format!("NEW.{name} IS OLD.{name}")).collect();
        let same = same.join(" AND ");
        let (is_new, is_old) = (self.stashed_is("NEW."), self.stashed_is("OLD."));
        let forget = format!("DELETE FROM {} WHERE ({is_old}) AND NOT ({same})", self.stash);
        let gone = format!("(({is_new}) AND NOT ({same})) OR {}", self.stashed_is_gone());
        let body = [vec![forget], self.replaced(&gone)].concat();
        self.trigger("replaced_by_update", &head, &body)
    }
}

/// The head of an INSERT into the capture table, and its row; values given as SQL.
pub(crate) fn capture_row(id: i64, op: &str, values: &[String]) -> (String, String) {
    let columns: String = (0..values.len()).map(|at| format!(", v{at}")).collect();
    let values: String = values.iter().map(|value| format!(", {value}")).collect();
    (
        format!("INSERT INTO _cdc_capture(ts, op, tbl, nonce{columns})"),
        format!("{NOW}, '{op}', {id}, random(){values}"),
    )
}

/// `FROM t WHERE a OR b` with the condition in parentheses, so that more can be added with AND.
fn parenthesised(from_where: &str) -> String {
    from_where.replacen("WHERE ", "WHERE (", 1) + ")"
}

/// The columns whose change can bring an update into conflict with another row.
fn unique_columns(shape: &Shape, indexes: &[UniqueIndex]) -> Vec<String> {
    if indexes.iter().any(|index| index.terms.iter().any(|term| term.expression)) {
        return shape.columns.iter().map(|column| quoted(&column.name)).collect();
    }
    let named = |column: &&super::shape::Column| {
        let name = quoted(&column.name);
        indexes.iter().any(|index| index.terms.iter().any(|term| term.of_table == name))
    };
    shape.columns.iter().filter(named).map(|column| quoted(&column.name)).collect()
}

/// One term of a unique index: as it reads over the table, and over NEW.
struct Term {
    of_table: String,
    of_new: String,
    collation: Option<String>,
    expression: bool,
}

/// What can make two rows conflict: the row's own key or a unique index.
///
/// The predicate of a partial index is left out: conflicts may be overestimated, because only rows that are gone
/// afterwards are logged.
struct UniqueIndex {
    terms: Vec<Term>,
}

impl UniqueIndex {
    fn read(conn: &Connection, shape: &Shape) -> Result<Vec<Self>> {
        let mut indexes = Vec::new();
        let row_key = shape.row_key().into_iter().map(|(name, _)| Term {
            of_new: format!("NEW.{name}"),
            of_table: name,
            collation: None,
            expression: false,
        });
        if shape.rowid.is_some() || shape.rowid_alias.is_some() {
            indexes.push(Self { terms: row_key.collect() });
        }
        let mut statement =
            conn.prepare("SELECT name FROM pragma_index_list(?1) WHERE \"unique\" ORDER BY seq DESC")?;
        let names =
            statement.query_map([&shape.table], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
        for name in names {
            indexes.push(Self { terms: Self::terms(conn, shape, &name)? });
        }
        Ok(indexes)
    }

    fn terms(conn: &Connection, shape: &Shape, index: &str) -> Result<Vec<Term>> {
        let text = "SELECT coalesce((SELECT sql FROM sqlite_master WHERE type = 'index' AND name = ?1), '')";
        let text: String = conn.query_row(text, [index], |row| row.get(0))?;
        let expressions = super::index_terms::index_terms(&text);
        let mut statement = conn
            .prepare("SELECT seqno, cid, name, coll FROM pragma_index_xinfo(?1) WHERE key ORDER BY seqno")?;
        let mut rows = statement.query([index])?;
        let mut terms = Vec::new();
        while let Some(row) = rows.next()? {
            let (at, cid): (u32, i64) = (row.get(0)?, row.get(1)?);
            let at = usize::try_from(at).unwrap_or(usize::MAX);
            let collation = Some(row.get::<_, String>(3)?);
            terms.push(match row.get::<_, Option<String>>(2)? {
                Some(name) => Term {
                    of_new: new_or_default(conn, shape, &name)?,
                    of_table: quoted(&name),
                    collation,
                    expression: false,
                },
                // The row id itself, under any of its names.
                None if cid == -1 => {
                    let name = shape.rowid.clone().unwrap_or_else(|| "rowid".to_owned());
                    Term { of_new: format!("NEW.{name}"), of_table: name, collation: None, expression: false }
                }
                None => {
                    let expression = expressions.get(at).cloned().unwrap_or_default();
                    let columns: Vec<String> = shape
                        .columns
                        .iter()
                        .map(|column| quoted(&column.name))
                        .map(|name| format!("NEW.{name} AS {name}"))
                        .collect();
                    let of_new = format!("(SELECT {expression} FROM (SELECT {}))", columns.join(", "));
                    Term { of_new, of_table: expression, collation, expression: true }
                }
            });
        }
        Ok(terms)
    }

    fn conflict(&self) -> String {
        let equal = self.terms.iter().map(|term| {
            let table = if term.expression {
                format!("({})", term.of_table)
            } else {
                format!("_cdc_t.{}", term.of_table)
            };
            let collation =
                term.collation.as_ref().map(|name| format!(" COLLATE {}", quoted(name))).unwrap_or_default();
            format!("{table} = {}{collation}", term.of_new)
        });
        equal.collect::<Vec<_>>().join(" AND ")
    }
}

/// NEW's value, or the column's default where REPLACE would put it: a NOT NULL column given NULL.
fn new_or_default(conn: &Connection, shape: &Shape, column: &str) -> Result<String> {
    let default = "SELECT dflt_value FROM pragma_table_xinfo(?1) WHERE name = ?2 AND \"notnull\"";
    let mut statement = conn.prepare(default)?;
    let mut rows = statement.query([&shape.table, column])?;
    let default: Option<String> = rows.next()?.map(|row| row.get(0)).transpose()?.flatten();
    let new = format!("NEW.{}", quoted(column));
    Ok(default.map_or(new.clone(), |default| format!("coalesce({new}, {default})")))
}
