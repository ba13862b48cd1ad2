//! Installs triggers in a user's database, and finds out whether they are still as they were installed.

use std::collections::{BTreeMap, BTreeSet};

use cdc_model::{JsonText, ObjectId, SchemaChange, SchemaColumn};
use rusqlite::{Connection, ErrorCode, OptionalExtension as _, Row, params};
use serde::{Deserialize, Serialize};

use super::rows::write_state;
use super::shape::{self, Shape, in_main, quoted};
use super::triggers::{Own, Triggers, drop_own};
use crate::{Error, Result, store};

/// Values every capture row has room for; what an emitted document needs.
const VALUES_MIN: usize = 8;

/// Which tables of a database are captured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Tables {
    /// Every table that can be captured, also those made later.
    #[default]
    All,
    /// These.
    Named(Vec<String>),
}

/// What an installation did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Installed {
    /// Tables whose triggers were installed, in order.
    pub tables: Vec<String>,
    /// Of these, tables whose rows the log never had.
    pub new: Vec<String>,
    /// The rows of the new tables, which the next looks take as snapshots.
    pub rows: u64,
    /// Tables left out by [`Tables::All`], with the reason.
    pub left_out: Vec<(String, String)>,
}

/// One captured table as `_cdc_table` has it.
#[derive(Clone, Debug)]
pub(crate) struct CapturedTable {
    pub(crate) id: i64,
    pub(crate) version: u32,
    pub(crate) shape: Shape,
}

/// The tables that the log has a shape of, with its newest version. The log may know more than the database, which
/// can be an older copy of itself or attached anew.
pub(crate) type KnownTables = BTreeMap<String, u32>;

/// What [`KnownTables`] are kept under in the log: `schema/` and the table, the version.
const KNOWN: &str = "schema/";

/// What their columns are kept under: `columns/` and the table.
const COLUMNS: &str = "columns/";

/// Remembers in the log that it has this version of a table's shape. Gives what the log says of it: how documents come
/// from those of the shape before.
pub(crate) fn know(log: &Connection, user: &Connection, table: &CapturedTable) -> Result<SchemaChange> {
    let shape = &table.shape;
    let mut schema = shape.schema_change(table.version);
    schema.renamed_from = renamed_from(log, user, &schema)?;
    let name = schema.renamed_from.as_ref().unwrap_or(&schema.collection);
    if let Some(before) = columns_of(log, name)? {
        let default = |column: &str| default_of(user, &shape.table, column);
        schema.changes = SchemaChange::guess(&before, &schema.columns, default);
    }
    if let Some(old) = &schema.renamed_from {
        for kept in [KNOWN, COLUMNS] {
            log.execute("DELETE FROM _cdc_meta WHERE key = ?1", [format!("{kept}{old}")])?;
        }
    }
    store::put_meta(log, &format!("{KNOWN}{}", shape.table), table.version)?;
    let columns = serde_json::to_string(&schema.columns)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    store::put_meta(log, &format!("{COLUMNS}{}", shape.table), columns)?;
    Ok(schema)
}

fn columns_of(log: &Connection, table: &str) -> Result<Option<Vec<SchemaColumn>>> {
    let text: Option<String> = store::meta(log, &format!("{COLUMNS}{table}"))?;
    let parsed = text.map(|text| serde_json::from_str(&text)).transpose();
    Ok(parsed.map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, error.into())
    })?)
}

/// The one table that the log knows with these columns and that is gone, when the table is not known itself.
fn renamed_from(log: &Connection, user: &Connection, schema: &SchemaChange) -> Result<Option<String>> {
    let known = known(log)?;
    if known.contains_key(&schema.collection) {
        return Ok(None);
    }
    let existing = shape::tables(user)?;
    let mut candidates = Vec::new();
    for table in known.into_keys().filter(|table| !existing.contains(table)) {
        if columns_of(log, &table)?.is_some_and(|columns| columns == schema.columns) {
            candidates.push(table);
        }
    }
    let only = (candidates.len() == 1).then(|| candidates.pop());
    Ok(only.flatten())
}

/// The value that rows got which were there when a column was added. `None` where the column does not tell.
fn default_of(user: &Connection, table: &str, column: &str) -> Option<JsonText> {
    let sql = "SELECT type, coalesce(dflt_value, 'NULL') FROM pragma_table_xinfo(?1, 'main') WHERE name = ?2 AND hidden = 0";
    let default = |row: &Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?));
    let (declared, default) = user.query_row(sql, [table, column], default).ok()?;
    // As SQLite makes it of the declaration. What it makes nothing of is left to the comparison.
    let made = Connection::open_in_memory().ok()?;
    made.execute_batch(&format!(
        "CREATE TABLE t(c {declared} DEFAULT ({default})); INSERT INTO t DEFAULT VALUES"
    ))
    .ok()?;
    let json = made.query_row("SELECT c FROM t", [], |row| {
        Ok(super::assemble::values(row, 0, 1).ok().and_then(|values| Some(values.first()?.to_json())))
    });
    JsonText::new(json.ok()??).ok()
}

/// The tables that the log has a shape of.
pub(crate) fn known(log: &Connection) -> Result<KnownTables> {
    let mut statement = log.prepare_cached("SELECT key, value FROM _cdc_meta WHERE key GLOB 'schema/*'")?;
    let known = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get(1)?)))?;
    let table = |(key, version): (String, u32)| (key.strip_prefix(KNOWN).unwrap_or(&key).to_owned(), version);
    Ok(known.map(|known| known.map(table)).collect::<Result<_, _>>()?)
}

/// Makes the tables of capture.
pub(crate) fn prepare(conn: &Connection, id: &ObjectId, log: &str) -> Result<()> {
    let values: String = (0..VALUES_MIN).map(|at| format!(", v{at}")).collect();
    conn.execute_batch(&format!(
        "CREATE TABLE IF NOT EXISTS _cdc_meta(key TEXT PRIMARY KEY, value) WITHOUT ROWID;
         CREATE TABLE IF NOT EXISTS _cdc_table(id INTEGER PRIMARY KEY, name TEXT, version INTEGER, current INTEGER, shape TEXT);
         CREATE TABLE IF NOT EXISTS _cdc_capture(seq INTEGER PRIMARY KEY, ts, op, tbl, nonce{values});"
    ))?;
    store::put_meta(conn, "object", id.as_str())?;
    store::put_meta(conn, "log", log)
}

/// Whether the tables of capture are there.
pub(crate) fn is_prepared(conn: &Connection) -> Result<bool> {
    let exists = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name IN ('_cdc_meta', '_cdc_table', '_cdc_capture')";
    Ok(conn.query_row(exists, [], |row| row.get::<_, i64>(0))? == 3)
}

/// The tables that are captured now, by name.
pub(crate) fn current(conn: &Connection) -> Result<BTreeMap<String, CapturedTable>> {
    Ok(all_versions(conn, "WHERE current")?
        .into_iter()
        .map(|table| (table.shape.table.clone(), table))
        .collect())
}

/// Every version of every table that was ever captured here, by table id.
pub(crate) fn by_id(conn: &Connection) -> Result<BTreeMap<i64, CapturedTable>> {
    Ok(all_versions(conn, "")?.into_iter().map(|table| (table.id, table)).collect())
}

fn all_versions(conn: &Connection, condition: &str) -> Result<Vec<CapturedTable>> {
    let mut statement =
        conn.prepare(&format!("SELECT id, version, shape FROM _cdc_table {condition} ORDER BY id"))?;
    let mut rows = statement.query([])?;
    let mut tables = Vec::new();
    while let Some(row) = rows.next()? {
        // What somebody has edited is as good as gone: its table is installed anew.
        let version = row.get_ref(1)?.as_i64().ok().and_then(|version| u32::try_from(version).ok());
        let shape = row.get_ref(2)?.as_str().ok().and_then(|shape| serde_json::from_str(shape).ok());
        if let Some((version, shape)) = version.zip(shape) {
            tables.push(CapturedTable { id: row.get(0)?, version, shape });
        }
    }
    Ok(tables)
}

/// What must be done so that capture is as it should be.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    /// Tables to install triggers for, with the version that is installed now.
    install: Vec<(Shape, Option<CapturedTable>)>,
    /// Captured tables that are gone.
    gone: Vec<CapturedTable>,
    /// Captured tables that are no longer wanted.
    unwanted: Vec<CapturedTable>,
    /// Table ids whose triggers are there although nobody knows of them.
    strays: Vec<i64>,
    /// What the database and the log know of tables, by name.
    known: KnownTables,
    /// Whether a table that cannot be captured is left out. Otherwise it was asked for by name.
    leave_out: bool,
    left_out: Vec<(String, String)>,
}

impl Plan {
    /// Compares the database with what should be installed. `known` is what the log knows.
    pub(crate) fn make(conn: &Connection, tables: &Tables, known: &KnownTables) -> Result<Self> {
        let leave_out = *tables == Tables::All;
        let mut plan = Self { known: known.clone(), leave_out, ..Self::default() };
        let mut installed = BTreeMap::new();
        if is_prepared(conn)? {
            installed = current(conn)?;
            let is_known = |id: &i64| installed.values().any(|table| table.id == *id);
            plan.strays = trigger_ids(conn)?.into_iter().filter(|id| !is_known(id)).collect();
            for table in by_id(conn)?.into_values() {
                let newest = plan.known.entry(table.shape.table).or_default();
                *newest = table.version.max(*newest);
            }
        }
        let existing = shape::tables(conn)?;
        let names = match tables {
            Tables::All => &existing,
            Tables::Named(names) => names,
        };
        for name in names {
            let is_it = |other: &&String| other.eq_ignore_ascii_case(name);
            if !existing.iter().any(|table| is_it(&table)) && plan.known.keys().any(|table| is_it(&table)) {
                // A table that was captured and is gone may come back.
                continue;
            }
            let shape = match (Shape::read(conn, name), tables) {
                (Ok(shape), _) => shape,
                (Err(error), Tables::All) => {
                    plan.left_out.push((name.clone(), error.to_string()));
                    continue;
                }
                (Err(error), Tables::Named(_)) => return Err(error),
            };
            plan.want(conn, &mut installed, shape)?;
        }
        let kept = |captured: &CapturedTable| existing.contains(&captured.shape.table);
        (plan.unwanted, plan.gone) = installed.into_values().partition(kept);
        plan.unwanted
            .retain(|captured| !plan.install.iter().any(|(shape, _)| shape.table == captured.shape.table));
        Ok(plan)
    }

    fn want(
        &mut self,
        conn: &Connection,
        installed: &mut BTreeMap<String, CapturedTable>,
        shape: Shape,
    ) -> Result<()> {
        let captured = installed.remove(&shape.table);
        let twice = self.install.iter().any(|(other, _)| other.table == shape.table);
        if !twice && !captured.as_ref().map_or(Ok(false), |captured| is_healthy(conn, captured, &shape))? {
            self.install.push((shape, captured));
        }
        Ok(())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.install.is_empty() && self.gone.is_empty() && self.unwanted.is_empty() && self.strays.is_empty()
    }

    pub(crate) fn left_out(&self) -> &[(String, String)] {
        &self.left_out
    }

    /// Carries the plan out inside the caller's transaction. When a table that is known is among them, the drain compares
    /// all at a barrier row. A new one is compared with nothing.
    pub(crate) fn carry_out(self, conn: &Connection) -> Result<Installed> {
        let mut installed = Installed { left_out: self.left_out, ..Installed::default() };
        let mut compare = !self.gone.is_empty();
        for id in self.strays {
            remove(conn, id)?;
        }
        for captured in self.gone.iter().chain(&self.unwanted) {
            let_go(conn, captured.id)?;
        }
        for (shape, captured) in self.install {
            let known = self.known.get(&shape.table).copied();
            match in_savepoint(conn, || install_table(conn, &shape, captured.as_ref(), known)) {
                Ok(()) => {}
                Err(error @ Error::WritesWouldFail { .. }) if self.leave_out => {
                    if let Some(captured) = captured {
                        let_go(conn, captured.id)?;
                    }
                    installed.left_out.push((shape.table, error.to_string()));
                    continue;
                }
                Err(error) => return Err(error),
            }
            compare |= known.is_some();
            if known.is_none() {
                installed.new.push(shape.table.clone());
            }
            installed.tables.push(shape.table);
        }
        if compare {
            write_barrier(conn)?;
        }
        Ok(installed)
    }
}

/// Takes back what `work` did when it fails.
fn in_savepoint<R>(conn: &Connection, work: impl FnOnce() -> Result<R>) -> Result<R> {
    conn.execute_batch("SAVEPOINT _cdc_install")?;
    let done = work();
    // A full disk takes the whole transaction back.
    if !conn.is_autocommit() {
        let back = if done.is_ok() { "" } else { "ROLLBACK TO _cdc_install; " };
        conn.execute_batch(&format!("{back}RELEASE _cdc_install"))?;
    }
    done
}

/// Installs capture of one table.
fn install_table(
    conn: &Connection,
    shape: &Shape,
    captured: Option<&CapturedTable>,
    known: Option<u32>,
) -> Result<()> {
    let id = put_table(conn, shape, captured, known.unwrap_or_default())?;
    install_triggers(conn, id, shape)?;
    if captured.is_none_or(|captured| captured.id != id) {
        write_row(conn, id, "T", &[])?;
    }
    Ok(())
}

/// How many rows these tables have.
pub(crate) fn count_rows(conn: &Connection, tables: &[String]) -> Result<u64> {
    let mut rows = 0;
    for table in tables {
        let count = format!("SELECT count(*) FROM {} NOT INDEXED", in_main(table));
        rows += conn.query_row(&count, [], |row| row.get::<_, u64>(0))?;
    }
    Ok(rows)
}

/// Ends the capture of a table.
fn let_go(conn: &Connection, id: i64) -> Result<()> {
    conn.execute("UPDATE _cdc_table SET current = 0 WHERE id = ?1", [id])?;
    remove(conn, id)
}

/// Asks the drain to compare: a row of its own, and its place, so that the drain need not search for it.
pub(crate) fn write_barrier(conn: &Connection) -> Result<()> {
    write_row(conn, 0, "B", &[])?;
    store::put_meta(conn, "barrier", conn.last_insert_rowid())
}

/// The newest barrier row.
pub(crate) fn barrier(conn: &Connection) -> Result<Option<i64>> {
    store::meta_of_others(conn, "barrier")
}

/// Writes one capture row of our own, values given as SQL.
pub(crate) fn write_row(conn: &Connection, id: i64, op: &str, values: &[String]) -> Result<()> {
    for statement in write_state(id, op, values) {
        conn.execute(&statement, [])?;
    }
    Ok(())
}

/// Under an id that no row names which waits, also when the table that it names was taken out of the list.
const PUT_TABLE: &str = "INSERT INTO _cdc_table(id, name, version, current, shape) VALUES (1 + max(\
    coalesce((SELECT max(id) FROM _cdc_table), 0), \
    coalesce((SELECT max(tbl) FROM _cdc_capture WHERE typeof(tbl) = 'integer' AND tbl < 1 << 32), 0)), ?1, ?2, 1, ?3)";

/// Records the table's shape. A changed shape is a new version with an id of its own, so that rows captured
/// before it are still decoded by the old one.
fn put_table(conn: &Connection, shape: &Shape, captured: Option<&CapturedTable>, newest: u32) -> Result<i64> {
    if let Some(captured) = captured {
        if captured.shape == *shape {
            return Ok(captured.id);
        }
        let_go(conn, captured.id)?;
    }
    let text = serde_json::to_string(shape)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    conn.execute(PUT_TABLE, params![shape.table, newest + 1, text])?;
    Ok(conn.last_insert_rowid())
}

/// Installs the triggers, and proves that the application can write the table with them.
fn install_triggers(conn: &Connection, id: i64, shape: &Shape) -> Result<()> {
    let refused = |error| Error::WritesWouldFail { table: shape.table.clone(), error };
    remove(conn, id)?;
    widen(conn, shape.values_max())?;
    match put_triggers(conn, id, shape) {
        Err(Error::Sqlite(error)) if error.sqlite_error_code() == Some(ErrorCode::Unknown) => {
            return Err(refused(error));
        }
        put => put?,
    }
    if let Err(error) = compile_writes(conn, shape)
        && compiles_without(conn, id, shape)?
    {
        return Err(refused(error));
    }
    Ok(())
}

/// Whether the table could be written before. It may be beyond this connection: its indexes can use functions of the
/// application's.
fn compiles_without(conn: &Connection, id: i64, shape: &Shape) -> Result<bool> {
    conn.execute_batch("SAVEPOINT _cdc_without")?;
    let compiles = remove(conn, id).map(|()| compile_writes(conn, shape).is_ok());
    conn.execute_batch("ROLLBACK TO _cdc_without; RELEASE _cdc_without")?;
    compiles
}

/// Compiles a write of each kind, with all triggers that it fires.
fn compile_writes(conn: &Connection, shape: &Shape) -> Result<(), rusqlite::Error> {
    let table = in_main(&shape.table);
    let mut statement = conn.prepare("SELECT name FROM pragma_table_xinfo(?1, 'main') WHERE hidden = 0")?;
    let columns = statement.query_map([&shape.table], |row| row.get::<_, String>(0))?;
    let mut columns = columns.map(|name| name.map(|name| quoted(&name))).collect::<Result<Vec<_>, _>>()?;
    columns.extend(shape.rowid.clone());
    let set: Vec<String> = columns.iter().map(|name| format!("{name} = NULL")).collect();
    for write in [
        format!("INSERT INTO {table} DEFAULT VALUES"),
        format!("UPDATE {table} SET {}", set.join(", ")),
        format!("DELETE FROM {table}"),
    ] {
        conn.prepare(&format!("EXPLAIN {write}"))?;
    }
    Ok(())
}

fn put_triggers(conn: &Connection, id: i64, shape: &Shape) -> Result<()> {
    let triggers = Triggers::of(conn, id, shape)?;
    let users = triggers_on(conn, &shape.table)?;
    for (name, ..) in &users {
        conn.execute_batch(&format!("DROP TRIGGER {}", in_main(name)))?;
    }
    for own in &triggers.own {
        conn.execute_batch(&own.text)?;
    }
    let own = triggers.own.iter().flat_map(|own| &own.triggers).map(|(_, text)| text);
    let [before, after] = [&triggers.before, &triggers.after].map(|ours| ours.iter().map(|(_, text)| text));
    let users = users.iter().map(|(_, text, _)| text);
    for text in own.chain(before).chain(users).chain(after) {
        // A trigger without a schema goes where its table's name is met first. SQLite stores its text without one.
        conn.execute_batch(&text.replacen("CREATE TRIGGER ", "CREATE TRIGGER main.", 1))?;
    }
    Ok(())
}

/// Makes the capture table at least `values` values wide.
fn widen(conn: &Connection, values: usize) -> Result<()> {
    for at in width(conn)?..values {
        conn.execute_batch(&format!("ALTER TABLE _cdc_capture ADD COLUMN v{at}"))?;
    }
    Ok(())
}

/// For how many values the capture table has room.
fn width(conn: &Connection) -> Result<usize> {
    let width = "SELECT count(*) FROM pragma_table_info('_cdc_capture') WHERE name GLOB 'v[0-9]*'";
    let width: i64 = conn.query_row(width, [], |row| row.get(0))?;
    Ok(usize::try_from(width).unwrap_or_default())
}

/// Triggers on a table in creation order: name, text, place.
fn triggers_on(conn: &Connection, table: &str) -> Result<Vec<(String, String, i64)>> {
    let mut statement = conn.prepare(
        "SELECT name, sql, rowid FROM sqlite_master WHERE type = 'trigger' AND tbl_name = ?1 COLLATE NOCASE ORDER BY rowid",
    )?;
    let triggers = statement.query_map([table], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    Ok(triggers.collect::<Result<_, _>>()?)
}

/// The table ids that triggers are there of.
fn trigger_ids(conn: &Connection) -> Result<BTreeSet<i64>> {
    let mut statement = conn.prepare(
        "SELECT CAST(substr(name, 6) AS INTEGER) FROM sqlite_master WHERE type = 'trigger' AND name GLOB '_cdc_[0-9]*_*'",
    )?;
    let ids = statement.query_map([], |row| row.get(0))?;
    Ok(ids.collect::<Result<_, _>>()?)
}

/// Drops the triggers of a table id and what they need, wherever they are now.
fn remove(conn: &Connection, id: i64) -> Result<()> {
    let mut statement =
        conn.prepare("SELECT name FROM sqlite_master WHERE type = 'trigger' AND name GLOB ?1")?;
    let names = statement
        .query_map([format!("_cdc_{id}_*")], |row| row.get(0))?
        .collect::<Result<Vec<String>, _>>()?;
    for name in names {
        conn.execute_batch(&format!("DROP TRIGGER {}", in_main(&name)))?;
    }
    conn.execute_batch(&drop_own(id))?;
    Ok(())
}

/// Takes everything of capture out of the database.
pub(crate) fn remove_all(conn: &Connection) -> Result<()> {
    if !is_prepared(conn)? {
        return Ok(());
    }
    let mut ids = trigger_ids(conn)?;
    ids.extend(by_id(conn)?.into_keys());
    for id in ids {
        remove(conn, id)?;
    }
    conn.execute_batch("DROP TABLE _cdc_capture; DROP TABLE _cdc_table; DROP TABLE _cdc_meta;")?;
    Ok(())
}

/// Whether triggers that were found are those that are wanted.
fn are<'t>(found: &[(String, String, i64)], wanted: impl Iterator<Item = &'t (String, String)>) -> bool {
    found.iter().map(|(name, text, _)| (name, text)).eq(wanted.map(|(name, text)| (name, text)))
}

/// Whether a table or view of ours and its triggers are as they were installed.
fn is_there(conn: &Connection, own: &Own) -> Result<bool> {
    let text = "SELECT sql FROM sqlite_master WHERE type IN ('table', 'view') AND name = ?1";
    let text: Option<String> = conn.query_row(text, [&own.name], |row| row.get(0)).optional()?;
    Ok(text.as_ref() == Some(&own.text) && are(&triggers_on(conn, &own.name)?, own.triggers.iter()))
}

/// Whether the triggers are those that would be installed now, in their places before and after the user's, and the capture
/// table, which may have been made anew, has room for what they write.
fn is_healthy(conn: &Connection, captured: &CapturedTable, shape: &Shape) -> Result<bool> {
    if captured.shape != *shape || width(conn)? < shape.values_max() {
        return Ok(false);
    }
    let expected = Triggers::of(conn, captured.id, shape)?;
    for own in &expected.own {
        if !is_there(conn, own)? {
            return Ok(false);
        }
    }
    let prefix = format!("_cdc_{}_", captured.id);
    let found = triggers_on(conn, &shape.table)?;
    let (ours, users): (Vec<_>, Vec<_>) = found.into_iter().partition(|(name, ..)| name.starts_with(&prefix));
    if !are(&ours, expected.before.iter().chain(&expected.after)) {
        return Ok(false);
    }
    let place = |at: usize| ours.get(at).map(|(_, _, place)| *place);
    let last_before = place(expected.before.len().saturating_sub(1));
    let first_after = place(expected.before.len());
    Ok(users.iter().all(|(_, _, place)| last_before < Some(*place) && Some(*place) < first_after))
}
