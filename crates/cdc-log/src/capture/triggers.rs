//! The text of the triggers.
//!
//! A row changed by an ordinary statement is copied by one AFTER trigger into `_cdc_capture`. Rows that a
//! REPLACE conflict removes fire no DELETE trigger; for them a BEFORE trigger (the guard) stashes the rows that
//! conflict with NEW, and an AFTER trigger logs those that NEW has replaced as op `R`, just before the row that
//! replaced them.
//!
//! An ignored insert leaves its rows in the stash. They are told by their time, which is the same all through one step
//! of a statement, however deep its triggers go.
//!
//! SQLite sets up all registers and cursors of a trigger before it asks its WHEN. What is rarely needed therefore
//! lies in triggers on the stash and on a view, so that the triggers on the user's table stay small. None of those
//! names the user's table: it can be dropped, and SQLite refuses ALTER TABLE while anything names a table that is gone.
//!
//! The last trigger created fires first. So guards are created before all user triggers (nothing of the user's
//! runs between them and the write), AFTER triggers after all user triggers.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension as _};

use super::index_terms::{Expression, IndexText};
use super::rows::{NOW, write_state};
use super::shape::{Column, Shape, quoted};
use crate::Result;

/// Rows the stash of one table holds at most, for each of its unique indexes: rows of a statement and of those that
/// its cascades set off.
const STASH_ROWS: usize = 16;

/// The triggers of one table, and what they need beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Triggers {
    /// What is created first.
    pub(crate) own: Vec<Own>,
    /// BEFORE triggers: name and text.
    pub(crate) before: Vec<(String, String)>,
    /// AFTER triggers: name and text, in the order to create them.
    pub(crate) after: Vec<(String, String)>,
}

/// A table or view of ours and the triggers on it, in the order to create them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Own {
    pub(crate) name: String,
    pub(crate) text: String,
    /// Name and text.
    pub(crate) triggers: Vec<(String, String)>,
}

/// What takes the triggers' own table and view of a table id out.
pub(crate) fn drop_own(id: i64) -> String {
    format!("DROP VIEW IF EXISTS _cdc_written_{id}; DROP TABLE IF EXISTS _cdc_stash_{id}")
}

/// What the triggers of one table are made from.
struct Text<'a> {
    id: i64,
    shape: &'a Shape,
    table: String,
    stash: String,
    written: String,
    /// By what a row is found again, in the table and in the stash.
    keys: Vec<Key>,
    indexes: Vec<UniqueIndex>,
    conflict_columns: Vec<String>,
}

/// One part of the key by which a row is found again.
struct Key {
    /// Its name as SQL.
    name: String,
    /// Its place in a capture row.
    at: usize,
    /// `COLLATE …` of the index that keeps the key unique: keys that it takes for equal cannot both be there.
    collate: String,
}

impl Key {
    fn read(conn: &Connection, shape: &Shape) -> Result<Vec<Self>> {
        let mut statement = conn.prepare(
            "SELECT coll FROM pragma_index_list(?1, 'main') AS i JOIN pragma_index_xinfo(i.name, 'main') AS x \
             WHERE i.origin = 'pk' AND x.name = ?2",
        )?;
        let by_rowid = shape.has_rowid();
        let mut key = |(name, at): (String, usize)| {
            let column = shape.columns.get(at).filter(|_| !by_rowid);
            let mut collate = String::new();
            if let Some(column) = column {
                let name: Option<String> =
                    statement.query_row([&*shape.table, &*column.name], |row| row.get(0)).optional()?;
                collate = name.map(|name| format!(" COLLATE {}", quoted(&name))).unwrap_or_default();
            }
            Ok(Self { name, at, collate })
        };
        shape.row_key().into_iter().map(&mut key).collect()
    }
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
            written: format!("_cdc_written_{id}"),
            keys: Key::read(conn, shape)?,
            conflict_columns: conflict_columns(conn, shape, &indexes)?,
            indexes,
        };
        let own = vec![text.stash_table(), text.written_view()];
        let before =
            vec![text.guard_insert(), text.guard_update(), text.unstash_update(), text.unstash_delete()];
        let after = vec![
            text.delete(),
            text.update(),
            text.insert(),
            text.replaced_by_insert(),
            text.replaced_by_update(),
        ];
        Ok(Self { own, before, after })
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

    fn capture(&self, op: &str, values: &[String]) -> Vec<String> {
        write_state(self.id, op, values)
    }

    fn insert(&self) -> (String, String) {
        self.trigger("insert", "AFTER INSERT ON {t}", &self.capture("I", &self.shape.values("NEW.")))
    }

    fn update(&self) -> (String, String) {
        let (old, new) = (self.shape.values("OLD."), self.shape.values("NEW."));
        let body = if self.shape.is_wide() {
            [self.capture("O", &old), self.capture("U", &new)].concat()
        } else {
            self.capture("U", &[old, new].concat())
        };
        self.trigger("update", "AFTER UPDATE ON {t}", &body)
    }

    fn delete(&self) -> (String, String) {
        self.trigger("delete", "AFTER DELETE ON {t}", &self.capture("D", &self.shape.values("OLD.")))
    }

    /// The conditions, joined by AND, that hold for every part of the key.
    fn of_keys(&self, condition: impl Fn(&Key) -> String) -> String {
        self.keys.iter().map(condition).collect::<Vec<_>>().join(" AND ")
    }

    /// The condition that a stash row (unqualified columns) has the key of `prefix` (`NEW.` or `OLD.`).
    fn stashed_is(&self, prefix: &str) -> String {
        self.of_keys(|Key { name, at, collate }| format!("v{at} IS {prefix}{name}{collate}"))
    }

    /// The condition that row `_cdc_t` of the table has the key of a stash row.
    fn is_stashed(&self) -> String {
        let stash = &self.stash;
        self.of_keys(|Key { name, at, collate }| format!("_cdc_t.{name} = {stash}.v{at}{collate}"))
    }

    /// The condition that a stash row is no longer in the table.
    fn stashed_is_gone(&self) -> String {
        format!("NOT EXISTS(SELECT 1 FROM {} AS _cdc_t WHERE {})", self.table, self.is_stashed())
    }

    /// Stashes the rows of the table that satisfy one of the conflict conditions and `more`.
    fn stash_rows(&self, more: &str) -> String {
        let conflicts = self.indexes.iter().flat_map(UniqueIndex::conflicts);
        let rows: Vec<String> = conflicts.map(|conflict| format!("({conflict}{more})")).collect();
        let columns: String = self.stash_values("").iter().map(|column| format!(", {column}")).collect();
        let values: String = self.shape.values("_cdc_t.").iter().map(|value| format!(", {value}")).collect();
        let (stash, table) = (&self.stash, &self.table);
        format!(
            "INSERT INTO {stash}(ts{columns}) SELECT {NOW}{values} FROM {table} AS _cdc_t WHERE {}",
            rows.join(" OR ")
        )
    }

    /// The values of a stash row, behind `prefix`.
    fn stash_values(&self, prefix: &str) -> Vec<String> {
        (0..self.shape.width()).map(|at| format!("{prefix}v{at}")).collect()
    }

    fn stash_table(&self) -> Own {
        let stash = &self.stash;
        let columns: String = self.stash_values("").iter().map(|column| format!(", {column}")).collect();
        let text = format!("CREATE TABLE {stash}(ts{columns})");
        Own { name: stash.clone(), text, triggers: vec![self.stashed(), self.replaced()] }
    }

    /// Keeps the stash small and each row in it once, as it was last.
    fn stashed(&self) -> (String, String) {
        let stash = &self.stash;
        let same = self.of_keys(|Key { at, collate, .. }| format!("v{at} IS NEW.v{at}{collate}"));
        let rows = STASH_ROWS * self.indexes.len().max(1);
        let forget = format!(
            "DELETE FROM {stash} WHERE ts <> NEW.ts OR rowid <= NEW.rowid - {rows} OR (rowid < NEW.rowid AND {same})"
        );
        self.trigger("stashed", &format!("AFTER INSERT ON {stash}"), &[forget])
    }

    /// Logs a stash row that is found gone and takes it out.
    fn replaced(&self) -> (String, String) {
        let mut body = self.capture("R", &self.stash_values("OLD."));
        body.push(format!("DELETE FROM {} WHERE rowid = OLD.rowid", self.stash));
        self.trigger("replaced", &format!("AFTER UPDATE OF ts ON {}", self.stash), &body)
    }

    /// The places of the values by which the row that was written is held against the stash.
    fn told_by(&self) -> BTreeSet<usize> {
        let terms = self.indexes.iter().flat_map(|index| &index.terms).filter_map(|term| term.at);
        terms.chain(self.keys.iter().map(|key| key.at)).collect()
    }

    /// The view that takes a row that was written: what tells it, and of an update its old key.
    fn written_view(&self) -> Own {
        let new = self.told_by().into_iter().map(|at| format!("NULL AS v{at}"));
        let old = self.keys.iter().map(|Key { at, .. }| format!("NULL AS o{at}"));
        let columns = new.chain(old).collect::<Vec<_>>().join(", ");
        let text = format!("CREATE VIEW {} AS SELECT {columns}", self.written);
        Own { name: self.written.clone(), text, triggers: vec![self.find_replaced()] }
    }

    /// Has the stash rows logged that cannot be there beside the row that was written, and forgets those that an
    /// earlier statement left behind.
    fn find_replaced(&self) -> (String, String) {
        let stash = &self.stash;
        let is_new = self.of_keys(|Key { at, collate, .. }| format!("v{at} IS NEW.v{at}{collate}"));
        let is_old = self.of_keys(|Key { at, collate, .. }| format!("v{at} IS NEW.o{at}{collate}"));
        let conflicts = self.indexes.iter().filter(|index| !self.is_key(index));
        let conflicts: String = conflicts
            .filter_map(UniqueIndex::stashed_conflict)
            .map(|conflict| format!(" OR ({conflict})"))
            .collect();
        let body = [
            format!("UPDATE {stash} SET ts = NULL WHERE (({is_new}){conflicts}) AND NOT ({is_old})"),
            format!("DELETE FROM {stash} WHERE ts <> {NOW}"),
        ];
        self.trigger("written", &format!("INSTEAD OF INSERT ON {}", self.written), &body)
    }

    /// Whether an index holds what a row is found by.
    fn is_key(&self, index: &UniqueIndex) -> bool {
        index.terms.iter().map(|term| term.at).eq(self.keys.iter().map(|key| Some(key.at)))
    }

    /// Hands the row that was written to the view.
    fn written(&self, is_update: bool) -> Vec<String> {
        let values = self.shape.values("NEW.");
        let (mut columns, mut row) = (Vec::new(), Vec::new());
        for at in self.told_by() {
            columns.push(format!("v{at}"));
            row.extend(values.get(at).cloned());
        }
        for Key { name, at, .. } in self.keys.iter().filter(|_| is_update) {
            columns.push(format!("o{at}"));
            row.push(format!("OLD.{name}"));
        }
        let written =
            format!("INSERT INTO {}({}) VALUES ({})", self.written, columns.join(", "), row.join(", "));
        let gone = format!("UPDATE {} SET ts = NULL WHERE {}", self.stash, self.stashed_is_gone());
        // What an expression or a condition makes conflict only the table can tell.
        let unclear = self.indexes.iter().any(|index| index.stashed_conflict().is_none());
        unclear.then_some(gone).into_iter().chain([written]).collect()
    }

    /// True when some row conflicts; one probe per unique index.
    fn any_conflict(&self, more: &str) -> String {
        let exists = |conflict: String| {
            format!("EXISTS(SELECT 1 FROM {} AS _cdc_t WHERE {conflict}{more})", self.table)
        };
        let probes = |index: &UniqueIndex| match index.rowid.as_ref().filter(|_| more.is_empty()) {
            // Cheaper than the other form. Of other columns it would copy the table were the index dropped.
            Some(rowid) => {
                vec![format!("NEW.{rowid} IN (SELECT _cdc_t.{rowid} FROM {} AS _cdc_t)", self.table)]
            }
            None => index.conflicts().into_iter().map(exists).collect(),
        };
        self.indexes.iter().flat_map(probes).collect::<Vec<_>>().join(" OR ")
    }

    fn guard_insert(&self) -> (String, String) {
        let head = format!("BEFORE INSERT ON {{t}} WHEN {}", self.any_conflict(""));
        self.trigger("guard_insert", &head, &[self.stash_rows("")])
    }

    fn guard_update(&self) -> (String, String) {
        let same = self.of_keys(|Key { name, collate, .. }| format!("_cdc_t.{name} IS OLD.{name}{collate}"));
        let other = format!(" AND NOT ({same})");
        let columns = self.conflict_columns.join(", ");
        let head = format!("BEFORE UPDATE OF {columns} ON {{t}} WHEN {}", self.any_conflict(&other));
        self.trigger("guard_update", &head, &[self.stash_rows(&other)])
    }

    /// Takes a row out of the stash before it is deleted or its key changes: it will be gone, but was not replaced,
    /// and a foreign key's action may insert other rows before our AFTER trigger runs.
    fn unstash(&self, name: &str, event: &str) -> (String, String) {
        let head = format!("BEFORE {event} ON {{t}} WHEN EXISTS(SELECT 1 FROM {})", self.stash);
        let forget = format!("DELETE FROM {} WHERE {}", self.stash, self.stashed_is("OLD."));
        self.trigger(name, &head, &[forget])
    }

    fn unstash_delete(&self) -> (String, String) {
        self.unstash("unstash_delete", "DELETE")
    }

    fn unstash_update(&self) -> (String, String) {
        self.unstash("unstash_update", &format!("UPDATE OF {}", self.conflict_columns.join(", ")))
    }

    fn replaced_by_insert(&self) -> (String, String) {
        let head = format!("AFTER INSERT ON {{t}} WHEN EXISTS(SELECT 1 FROM {})", self.stash);
        self.trigger("replaced_by_insert", &head, &self.written(false))
    }

    fn replaced_by_update(&self) -> (String, String) {
        let columns = self.conflict_columns.join(", ");
        let head = format!("AFTER UPDATE OF {columns} ON {{t}} WHEN EXISTS(SELECT 1 FROM {})", self.stash);
        self.trigger("replaced_by_update", &head, &self.written(true))
    }
}

/// The columns whose change can bring an update into conflict with another row, as an UPDATE names them.
///
/// `UPDATE OF` goes by the names in the statement's SET list: a generated column is never in it, the row id under
/// any of its names. What an expression or the condition of a partial index reads is not worked out.
fn conflict_columns(conn: &Connection, shape: &Shape, indexes: &[UniqueIndex]) -> Result<Vec<String>> {
    let mut statement =
        conn.prepare("SELECT name FROM pragma_table_xinfo(?1, 'main') WHERE hidden IN (2, 3)")?;
    let generated = statement.query_map([&shape.table], |row| row.get::<_, String>(0))?;
    let of_table = |name: &str| format!("_cdc_t.{}", quoted(name));
    let generated: Vec<String> = generated.map(|name| Ok(of_table(&name?))).collect::<Result<_>>()?;
    let any = |index: &UniqueIndex| {
        let unclear = |term: &Term| term.at.is_none() || generated.contains(&term.of_table);
        index.predicate.is_some() || index.terms.iter().any(unclear)
    };
    let any = indexes.iter().any(any);
    let conflicts = |name: &&str| {
        any || indexes.iter().any(|index| index.terms.iter().any(|term| term.of_table == of_table(name)))
    };
    let columns = shape.columns.iter().map(|column| &*column.name).filter(conflicts).map(quoted);
    let rowid = shape.rowid_names().map(str::to_owned);
    Ok(columns.chain(rowid).collect())
}

/// One term of a unique index: as it reads over the table, and over NEW.
struct Term {
    of_table: String,
    /// More than one when no single form has the values of NEW as the index has them.
    of_new: Vec<String>,
    collation: Option<String>,
    /// The column's place in a capture row; none of an expression.
    at: Option<usize>,
}

/// What can make two rows conflict: the row's own key or a unique index.
///
/// Of a partial index the condition is asked of the row in the table (SQLite uses the index only then), not of NEW:
/// conflicts may be overestimated, because only rows that are gone afterwards are logged.
struct UniqueIndex {
    /// The name of the row id, when that is what it is.
    rowid: Option<String>,
    terms: Vec<Term>,
    predicate: Option<String>,
}

impl UniqueIndex {
    fn read(conn: &Connection, shape: &Shape) -> Result<Vec<Self>> {
        let mut indexes = Vec::new();
        if let Some((name, at)) = shape.row_key().into_iter().next().filter(|_| shape.has_rowid()) {
            let of_new = vec![format!("NEW.{name}")];
            let term = Term { of_new, of_table: format!("_cdc_t.{name}"), collation: None, at: Some(at) };
            indexes.push(Self { rowid: Some(name), terms: vec![term], predicate: None });
        }
        let mut statement = conn
            .prepare("SELECT name FROM pragma_index_list(?1, 'main') WHERE \"unique\" ORDER BY seq DESC")?;
        let names =
            statement.query_map([&shape.table], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
        let new_row = NewRow::read(conn, shape)?;
        for name in names {
            indexes.push(Self::named(conn, &new_row, &name)?);
        }
        Ok(indexes)
    }

    fn named(conn: &Connection, new_row: &NewRow<'_>, index: &str) -> Result<Self> {
        let text = "SELECT coalesce((SELECT sql FROM sqlite_master WHERE type = 'index' AND name = ?1), '')";
        let text: String = conn.query_row(text, [index], |row| row.get(0))?;
        let text = IndexText::parse(&text);
        let mut statement = conn.prepare(
            "SELECT seqno, name, coll FROM pragma_index_xinfo(?1, 'main') WHERE key ORDER BY seqno",
        )?;
        let mut rows = statement.query([index])?;
        let mut terms = Vec::new();
        while let Some(row) = rows.next()? {
            let at = usize::try_from(row.get::<_, u32>(0)?).unwrap_or(usize::MAX);
            let collation = Some(row.get::<_, String>(2)?);
            terms.push(match row.get::<_, Option<String>>(1)? {
                Some(name) => Term {
                    of_new: vec![new_row.value(&name)],
                    of_table: format!("_cdc_t.{}", quoted(&name)),
                    collation,
                    at: new_row.shape.place(&name),
                },
                None => {
                    let expression = text.terms.get(at).cloned().unwrap_or_default();
                    let expression = Expression::parse(&expression);
                    Term {
                        of_new: new_row.evaluate(&expression),
                        of_table: format!("({})", expression.over("_cdc_t")),
                        collation,
                        at: None,
                    }
                }
            });
        }
        let predicate = text.predicate.map(|predicate| Expression::parse(&predicate).over("_cdc_t"));
        Ok(Self { rowid: None, terms, predicate })
    }

    /// The conditions under any of which row `_cdc_t` of the table conflicts with NEW.
    fn conflicts(&self) -> Vec<String> {
        let forms = self.terms.iter().map(|term| term.of_new.len()).max().unwrap_or_default();
        (0..forms).map(|form| self.conflict(form)).collect()
    }

    fn conflict(&self, form: usize) -> String {
        let equal = self.terms.iter().map(|term| {
            let of_new = term.of_new.get(form).or(term.of_new.first()).map_or("NULL", String::as_str);
            format!("{} = {of_new}{}", term.of_table, collate(term.collation.as_deref()))
        });
        let predicate = self.predicate.iter().map(|predicate| format!("({predicate})"));
        equal.chain(predicate).collect::<Vec<_>>().join(" AND ")
    }

    /// The condition that a stash row (unqualified columns) conflicts with NEW, as the trigger on the view has it.
    /// None when the stashed values alone cannot tell.
    fn stashed_conflict(&self) -> Option<String> {
        let equal = |term: &Term| {
            let collate = collate(term.collation.as_deref());
            term.at.map(|at| format!("v{at} = NEW.v{at}{collate}"))
        };
        let equal: Option<Vec<String>> = self.terms.iter().map(equal).collect();
        equal.filter(|_| self.predicate.is_none()).map(|equal| equal.join(" AND "))
    }
}

fn collate(collation: Option<&str>) -> String {
    collation.map(|name| format!(" COLLATE {}", quoted(name))).unwrap_or_default()
}

/// The values of NEW as a conflict meets them: a NOT NULL column given NULL has its default there, because that is
/// what REPLACE puts in its place.
struct NewRow<'a> {
    shape: &'a Shape,
    defaults: Vec<(String, Option<String>)>,
}

impl<'a> NewRow<'a> {
    fn read(conn: &Connection, shape: &'a Shape) -> Result<Self> {
        let mut statement = conn
            .prepare("SELECT name, iif(\"notnull\", dflt_value, NULL) FROM pragma_table_xinfo(?1, 'main')")?;
        let columns = statement.query_map([&shape.table], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(Self { shape, defaults: columns.collect::<Result<_, _>>()? })
    }

    fn value(&self, column: &str) -> String {
        let default =
            self.defaults.iter().find(|(name, _)| name == column).and_then(|(_, default)| default.as_deref());
        let new = format!("NEW.{}", quoted(column));
        match default {
            Some(default) => format!("coalesce({new}, {})", default_value(default)),
            None => new,
        }
    }

    /// An expression over NEW.
    ///
    /// What it compares depends on the affinity and collation of its columns, and NEW has no affinity. An empty
    /// SELECT from the table lends the collations. Casts lend the affinities, but change a value that its column
    /// could not convert: such a value is found by the form without casts.
    fn evaluate(&self, expression: &Expression) -> Vec<String> {
        let columns = &self.shape.columns;
        let row = |value: &dyn Fn(&Column) -> String| {
            let named = |column| format!("{} AS {}", value(column), quoted(&column.name));
            columns.iter().map(named).collect::<Vec<_>>().join(", ")
        };
        let raw = |column: &Column| self.value(&column.name);
        let over = |rows: &str| format!("(SELECT {} FROM ({rows}) AS _cdc_t)", expression.over("_cdc_t"));
        if !expression.compares {
            return vec![over(&format!("SELECT {}", row(&raw)))];
        }
        let cast = |column: &Column| match column.affinity() {
            "BLOB" => raw(column),
            affinity => format!("CAST({} AS {affinity})", raw(column)),
        };
        let lender = row(&|column| quoted(&column.name));
        let lender = format!("SELECT {lender} FROM {} WHERE 0", quoted(&self.shape.table));
        let lent = |values: &str| over(&format!("{lender} UNION ALL SELECT {values}"));
        vec![lent(&row(&raw)), lent(&row(&cast))]
    }
}

/// A default as a value. SQLite takes a bare or quoted name there for a string, elsewhere for a column.
fn default_value(default: &str) -> String {
    const VALUES: [&str; 6] = ["null", "true", "false", "current_time", "current_date", "current_timestamp"];
    let string = |text: &str| format!("'{}'", text.replace('\'', "''"));
    for (open, close) in [('"', '"'), ('`', '`'), ('[', ']')] {
        if let Some(text) = default.strip_prefix(open).and_then(|text| text.strip_suffix(close)) {
            return string(&text.replace(&format!("{close}{close}"), &close.to_string()));
        }
    }
    let is_name = default.starts_with(|c: char| c.is_alphabetic() || c == '_')
        && default.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '$')
        && !VALUES.iter().any(|value| default.eq_ignore_ascii_case(value));
    if is_name { string(default) } else { default.to_owned() }
}
