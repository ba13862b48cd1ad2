use std::path::{Path, PathBuf};

use cdc::{AttachOptions, AttachReport, Env as _, Installed, ObjectId, Project, Remaining, Tables};
use serde::Serialize;

use crate::failure::Failure;
use crate::output::{ProgressLine, brief, note, plural};
use crate::project::Target;
use crate::session::Session;

const EXAMPLES: &str = "\
Examples:
  cdc attach app.db --id crm.headless.ly/acme
  cdc attach app.db --id crm.headless.ly/acme --context crm.headless.ly
  cdc attach app.db --id local/app --tables customers,orders

Attaching writes triggers and tables named _cdc_* into the database, in one transaction: all of it or nothing. \
Rows that are there follow as snapshots, a few at a time and beside the application; a stop loses nothing: `cdc run` goes on. \
The application needs no change, but `ALTER TABLE … DROP COLUMN` fails until `cdc detach`; attach again after it. \
Attaching again also repairs what a migration took out and keeps what it is not told; `cdc detach` takes out everything.";

/// Capture the changes of an application's SQLite database
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The database
    #[arg(value_name = "DB")]
    database: PathBuf,
    /// The object it becomes: an https URL, of which `https://` may be omitted
    #[arg(long, value_parser = ObjectId::parse_short)]
    id: ObjectId,
    /// Its parent; made if it does not exist, unless it stands in [remotes] of cdc.toml
    #[arg(long, value_name = "ID")]
    context: Option<Target>,
    /// Only these tables, separated by commas
    #[arg(long, value_delimiter = ',', conflicts_with = "all")]
    tables: Vec<String>,
    /// All tables, also those made later; the default
    #[arg(long)]
    all: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Receipt<'a> {
    #[serde(rename = "$id")]
    id: &'a ObjectId,
    #[serde(rename = "$context", skip_serializing_if = "Option::is_none")]
    context: Option<&'a ObjectId>,
    database: &'a Path,
    journal_mode: &'a str,
    tables: &'a [String],
    snapshot_rows: u64,
    left_out: Vec<LeftOut<'a>>,
}

#[derive(Serialize)]
struct LeftOut<'a> {
    table: &'a str,
    reason: &'a str,
}

pub(super) async fn run(args: Args, session: &mut Session) -> Result<(), Failure> {
    let project = session.project()?;
    let given = args.context.as_ref().map(|context| context.id(&project)).transpose()?;
    // Attaching again repairs: what is not said stays as it is.
    let known = match project.object(&args.id) {
        Err(cdc::Error::UnknownObject { .. }) => None,
        found => Some(found?),
    };
    let context = given.or_else(|| known.as_ref()?.context.clone());
    let kept = known.and_then(|known| known.attached).filter(|_| args.tables.is_empty() && !args.all);
    let tables = kept.map_or_else(|| tables(&args.tables), |kept| kept.tables);
    let options = AttachOptions { database: args.database.clone(), id: args.id.clone(), context, tables };
    let report = attach(&project, session, &options)?;
    tell(&options, &report);
    backfill(&project, session, &options.id, &report.installed).await?;
    let installed = &report.installed;
    let left_out = installed.left_out.iter().map(|(table, reason)| LeftOut { table, reason }).collect();
    session.out.receipt(&Receipt {
        id: &options.id,
        context: options.context.as_ref(),
        database: &options.database,
        journal_mode: &report.journal_mode,
        tables: &report.captured,
        snapshot_rows: installed.rows,
        left_out,
    })
}

/// Takes up the rows that were there. What a stop leaves is taken by `cdc run`.
async fn backfill(
    project: &Project,
    session: &Session,
    id: &ObjectId,
    installed: &Installed,
) -> Result<(), Failure> {
    let mut backfill = match project.backfill(id, &session.env.clock()) {
        Err(cdc::Error::InUse { .. }) => {
            note("  another process works on this project: a `cdc run` takes up the rows that were there");
            return Ok(());
        }
        Err(cdc::Error::Log(error)) if error.is_busy() => {
            note(BUSY);
            return Ok(());
        }
        backfill => backfill?,
    };
    tell_resumed(backfill.remaining(), installed);
    let mut line = ProgressLine::new(&session.env);
    loop {
        match backfill.step() {
            Ok(Some(progress)) => line.show(&progress, "rows"),
            Ok(None) => return Ok(()),
            Err(cdc::Error::Log(error)) if error.is_busy() => {
                note(BUSY);
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        }
        // A stop is noticed here.
        tokio::task::yield_now().await;
    }
}

/// Why the rows are not all taken up.
const BUSY: &str = "  the database is busy; `cdc run` takes the rest of its rows";

/// Tells what is taken up or compared beside the tables that are new.
fn tell_resumed(remaining: &Remaining, installed: &Installed) {
    let resumed = remaining.tables.iter().filter(|table| !installed.new.contains(table));
    let names: Vec<_> = resumed.map(|table| brief(table, 60)).collect();
    if !names.is_empty() {
        let rows = plural(remaining.rows, "row");
        note(&format!(
            "  going on with what is left of {}: {rows} in all to be compared with the log",
            names.join(", ")
        ));
    }
}

/// The tables that were named, or all.
pub(super) fn tables(named: &[String]) -> Tables {
    if named.is_empty() { Tables::All } else { Tables::Named(named.to_vec()) }
}

/// Attaches, and makes the parent if it is missing; when attaching fails, the parent goes again.
pub(super) fn attach(
    project: &Project,
    session: &Session,
    options: &AttachOptions,
) -> Result<AttachReport, Failure> {
    check_id(project, options)?;
    let missing = match &options.context {
        Some(context) if *context != options.id && project.remote(context).is_none() => {
            match project.object(context) {
                Err(cdc::Error::UnknownObject { .. }) => Some(context),
                found => found.map(|_| None)?,
            }
        }
        _ => None,
    };
    if let Some(parent) = missing {
        project.create(parent, None)?;
    }
    let attached = project.attach(options, &session.env.clock());
    match (missing, &attached) {
        (Some(parent), Ok(_)) => note(&format!("created {parent} as a root: it archives what it receives")),
        (Some(parent), Err(_)) => drop(project.uncreate(parent)?),
        (None, _) => {}
    }
    Ok(attached?)
}

/// An id names one database; it is not given to another.
fn check_id(project: &Project, options: &AttachOptions) -> Result<(), Failure> {
    let spec = match project.object(&options.id) {
        Err(cdc::Error::UnknownObject { .. }) => return Ok(()),
        found => found?,
    };
    let database = spec.attached.map(|attached| attached.database);
    if database.is_some() && database == options.database.canonicalize().ok() {
        return Ok(());
    }
    Err(Failure::IdTaken { id: spec.id, database })
}

/// Tells what attaching did.
pub(super) fn tell(options: &AttachOptions, report: &AttachReport) {
    let (database, installed) = (options.database.display(), &report.installed);
    let journal = &report.journal_mode;
    note(&format!("attached {database} as {} (journal mode {journal}, left as it is)", options.id));
    if !installed.tables.is_empty() {
        let names: Vec<_> = installed.tables.iter().map(|name| brief(name, 60)).collect();
        let rows = plural(installed.rows, "row");
        note(&format!("  capturing {}; snapshot of {rows} that were there", names.join(", ")));
    }
    for (table, reason) in &installed.left_out {
        note(&format!("  left out {}: {reason}", brief(table, 60)));
    }
    if installed.tables.is_empty() {
        note("  nothing had to be installed");
        return;
    }
    tell_journal(&report.journal_mode);
    note(TOOLS);
}

/// Draining reads the database, and without a write-ahead log readers and writers wait for each other.
pub(super) fn tell_journal(journal_mode: &str) {
    if !journal_mode.eq_ignore_ascii_case("wal") {
        note(&format!(
            "  in journal mode {journal_mode} a program without a busy timeout may find the database locked while it is
  read: give it one (PRAGMA busy_timeout = 5000), or change the mode (PRAGMA journal_mode = WAL)"
        ));
    }
}

/// How common tools are told to leave the tables of capture alone.
const TOOLS: &str = r#"If a schema tool manages this database, let it ignore the tables _cdc_*:
  Alembic   context.configure(..., include_object=lambda obj, name, kind, *_: not (name or "").startswith("_cdc_"))
  Django    nothing to do: migrations concern managed models only; leave _cdc_* out of what inspectdb prints
  Prisma    tables: { external: ["_cdc_meta", "_cdc_table", "_cdc_capture"] }   and externalTables in prisma.config.ts
  Rails     ActiveRecord::SchemaDumper.ignore_tables << /\A_cdc_/
  sqlite3   .dump copies them, with their triggers; `cdc detach` first if the copy is for someone else
next: `cdc run` captures, propagates and archives until stopped"#;
