use std::path::{Path, PathBuf};
use std::time::Duration;

use cdc::{AttachOptions, Cdc, Env as _, ObjectId, ObjectSpec, Project, Reader, Record, Sequence, Tag};

use super::{attach, follow, run};
use crate::args::Tuning;
use crate::failure::Failure;
use crate::output::{self, Answer, note, plural};
use crate::project;
use crate::session::Session;
use crate::signals::{Signals, Stop};

const EXAMPLES: &str = "\
Examples:
  cdc watch app.db                        every change any program makes
  cdc watch app.db --tables customers,orders --yes
  cdc watch app.db --yes -o debezium | ./my-consumer

Watching makes the current folder a project if it is none, and attaches the database if it is not attached; it asks \
before it installs its triggers. `cdc detach app.db` takes them out again.";

/// How long draining what was left from last time may take before the new is shown.
const CATCH_UP: Duration = Duration::from_secs(10);

/// How often it is looked whether something has stopped.
const LOOK: Duration = Duration::from_secs(1);

/// Other ids that are tried when the obvious one is taken.
const IDS_MAX: usize = 100;

/// See every change to a database as it happens
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The database
    #[arg(value_name = "DB")]
    database: PathBuf,
    /// Only these tables, separated by commas
    #[arg(long, value_delimiter = ',')]
    tables: Vec<String>,
    /// Install capture without asking
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    tuning: Tuning,
}

/// What is watched, and from where on.
struct Watched {
    spec: ObjectSpec,
    /// Attached just now: everything since then is shown, what was there before is not.
    new: bool,
}

pub(super) async fn run(args: Args, session: &mut Session, signals: &mut Signals) -> Result<(), Failure> {
    let known = known(&args, session)?;
    let (project, watched) = match known {
        Some((project, spec)) => (project, Watched { spec, new: false }),
        None => {
            agree(&args, session, signals).await?;
            install(&args, session)?
        }
    };
    let cdc = match run::engine(&project).await {
        Ok(cdc) => Some(cdc),
        Err(cdc::Error::InUse { .. }) => {
            note("another process runs this project; watching what it captures");
            None
        }
        Err(error) => return Err(error.into()),
    };
    let reader = project.reader(&session.env, &watched.spec.id).await?;
    let after = match &cdc {
        Some(cdc) => catch_up(session, signals, cdc, &watched, &reader).await?,
        None => Ok(reader.status().await?.tail.sequence),
    };
    let stop = match after {
        Ok(after) => watch(&args, session, signals, cdc.as_ref(), &watched, &reader, after).await,
        Err(stop) => Ok(stop),
    };
    if let Some(cdc) = cdc {
        cdc.stop().await;
    }
    let stop = stop?;
    tell_next(&args.database);
    stop.outcome()
}

/// The project and the object, if the database is attached already.
fn known(args: &Args, session: &Session) -> Result<Option<(Project, ObjectSpec)>, Failure> {
    if !project::exists(&session.global) || !args.database.is_file() {
        return Ok(None);
    }
    let project = project::open(&session.global, &args.tuning)?;
    let spec = project.object_of(&args.database)?;
    let attached = spec.filter(|spec| spec.attached.as_ref().is_some_and(|attached| !attached.detached));
    Ok(attached.map(|spec| (project, spec)))
}

/// Asks whether capture may be installed.
async fn agree(args: &Args, session: &Session, signals: &mut Signals) -> Result<(), Failure> {
    if !args.database.exists() {
        return Err(cdc::Error::from(cdc::LogError::NotFound { path: args.database.clone() }).into());
    }
    if args.yes {
        return Ok(());
    }
    let database = args.database.display();
    let question = format!(
        "Watching installs triggers and tables named _cdc_* in {database}; `cdc detach` takes them out. Go on?"
    );
    let (say, answer) = tokio::sync::oneshot::channel();
    session.env.blocking(move || drop(say.send(output::ask(&question))));
    match signals.until(answer).await {
        Ok(Ok(Answer::Yes)) => Ok(()),
        Ok(Ok(Answer::Nobody)) => Err(Failure::Usage {
            reason: format!("watching {database} installs triggers in it, and nobody is there to be asked"),
            help: "say --yes to agree",
        }),
        Ok(Ok(Answer::No) | Err(_)) | Err(_) => {
            note("nothing was installed");
            Err(Failure::Interrupted)
        }
    }
}

/// Attaches the database; when that fails, nothing stays.
fn install(args: &Args, session: &Session) -> Result<(Project, Watched), Failure> {
    let made = !project::exists(&session.global);
    if made {
        project::create(&session.global)?;
    }
    let installed = install_into(args, session);
    if installed.is_err() && made {
        project::uncreate(&session.global);
    }
    installed
}

fn install_into(args: &Args, session: &Session) -> Result<(Project, Watched), Failure> {
    let project = project::open(&session.global, &args.tuning)?;
    let (id, context) = match project.object_of(&args.database)? {
        Some(detached) => (detached.id, detached.context),
        None => (free_id(&project, &args.database)?, None),
    };
    let tables = attach::tables(&args.tables);
    let options = AttachOptions { database: args.database.clone(), id, context, tables };
    let report = attach::attach(&project, session, &options)?;
    let rows = plural(report.installed.rows, "row");
    note(&format!("attached {} as {} with {rows}", args.database.display(), options.id));
    for (table, reason) in &report.installed.left_out {
        note(&format!("  left out {table}: {reason}"));
    }
    attach::tell_journal(&report.journal_mode);
    let spec = project.object(&options.id)?;
    Ok((project, Watched { spec, new: true }))
}

/// `https://local/app` for `app.db`, with a number when that is taken.
fn free_id(project: &Project, database: &Path) -> Result<ObjectId, Failure> {
    let stem = database.file_stem().map(|stem| stem.to_string_lossy().to_lowercase()).unwrap_or_default();
    let safe = |char: char| if char.is_ascii_alphanumeric() { char } else { '-' };
    let name: String = stem.chars().map(safe).take(60).collect();
    let name = name.trim_matches('-');
    let name = if name.is_empty() { "database" } else { name };
    for number in 1..=IDS_MAX {
        let suffix = if number == 1 { String::new() } else { format!("-{number}") };
        let id = ObjectId::parse_short(&format!("local/{name}{suffix}"))?;
        match project.object(&id) {
            Err(cdc::Error::UnknownObject { .. }) => return Ok(id),
            Err(error) => return Err(error.into()),
            Ok(_) => {}
        }
    }
    Err(Failure::Usage {
        reason: format!("{IDS_MAX} databases named {name:?} are attached in this project already"),
        help: "`cdc attach DB --id ID` attaches it under an id of your choice; then watch it",
    })
}

/// Opens the object and takes in what was captured while nobody was looking. Gives the position from which on changes
/// are new.
async fn catch_up(
    session: &Session,
    signals: &mut Signals,
    cdc: &Cdc,
    watched: &Watched,
    reader: &Reader,
) -> Result<Result<Sequence, Stop>, Failure> {
    let object = cdc.object(watched.spec.id.as_str()).open().await?;
    if watched.new {
        return Ok(Ok(Sequence::ZERO));
    }
    let before = reader.status().await?.tail.sequence;
    let drained = async {
        tokio::select! {
            biased;
            // What has stopped is told while watching.
            flushed = object.flush() => drop(flushed),
            () = session.env.sleep(CATCH_UP) => {}
        }
    };
    if let Err(stop) = signals.until(drained).await {
        return Ok(Err(stop));
    }
    let after = reader.status().await?.tail.sequence;
    let missed = after.since(before);
    if missed > 0 {
        note(&format!("{} since last time; `cdc tail` shows them", plural(missed, "change")));
    }
    Ok(Ok(after))
}

async fn watch(
    args: &Args,
    session: &mut Session,
    signals: &mut Signals,
    cdc: Option<&Cdc>,
    watched: &Watched,
    reader: &Reader,
    after: Sequence,
) -> Result<Stop, Failure> {
    note(&format!("watching {}; Ctrl-C stops", args.database.display()));
    let wanted = |record: &Record| {
        let Some(change) = record.body.change()? else { return Ok(false) };
        let snapshot = watched.new && change.tag == Some(Tag::Snapshot);
        Ok(!snapshot
            && (args.tables.is_empty() || args.tables.iter().any(|table| *table == change.collection)))
    };
    let env = session.env.clone();
    let troubles = async {
        let mut news = run::News::default();
        loop {
            if let Some(cdc) = cdc {
                news.tell_troubles(cdc);
            }
            env.sleep(LOOK).await;
        }
    };
    tokio::select! {
        biased;
        stop = follow::follow(session, signals, reader, after, wanted) => stop,
        () = troubles => unreachable!("it looks for ever"),
    }
}

fn tell_next(database: &Path) {
    let database = database.display();
    note(&format!(
        "stopped. Capture stays installed, so changes made meanwhile are not lost. What to do next:
  cdc watch {database}                 go on
  cdc tail {database}                  the newest changes again
  cdc history {database} TABLE/KEY     how one row became what it is
  cdc fold {database} --at TIME        the tables as they were at a moment
  cdc replay {database} -o ndjson      everything, for a program
  cdc detach {database}                take the triggers out again"
    ));
}
