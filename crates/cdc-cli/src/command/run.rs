use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cdc::{Cdc, Deadline, Env as _, ObjectId, ObjectSpec, Opening, Project, Trouble};
use serde::Serialize;

use super::tree;
use crate::args::Tuning;
use crate::failure::{Exit, Failure, help, help_of, in_one_line};
use crate::output::{note, plural};
use crate::project;
use crate::session::Session;
use crate::signals::Signals;

const EXAMPLES: &str = "\
Examples:
  cdc run                                    until stopped
  cdc run --once                             until everything is quiet, as from cron
  cdc run --batch-size 1000 --warehouse /var/lib/cdc

Objects attached or created meanwhile are picked up. Ctrl-C and SIGTERM stop it in order, and whatever is under way \
then goes on with the next run; nothing is lost. One process at a time runs a project (exit code 5 otherwise). \
`cdc serve` does the same and takes the events of children in other processes.";

/// How often the project is looked at for new objects and for what has stopped.
const LOOK: Duration = Duration::from_secs(1);

/// How long an orderly stop may take.
const STOP_SECS: u64 = 10;

/// Capture, propagate and archive, until stopped or once
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Stop when everything is quiet
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    tuning: Tuning,
}

pub(super) async fn run(args: Args, session: &mut Session, signals: &mut Signals) -> Result<(), Failure> {
    let project = project::open(&session.global, &args.tuning)?;
    let cdc = engine(&project).await?;
    if args.once { once(session, signals, cdc).await } else { on(session, signals, cdc).await }
}

/// Opens the engine over a project; it is alone then.
pub(super) async fn engine(project: &Project) -> cdc::Result<Cdc> {
    Cdc::builder(project.folder()).settings(project.settings().clone()).open().await
}

/// Runs everything until somebody asks to stop.
pub(super) async fn on(session: &Session, signals: &mut Signals, cdc: Cdc) -> Result<(), Failure> {
    let mut news = News::default();
    news.tell_opened(&cdc).await?;
    let objects = plural(news.opened.len(), "object");
    note(&format!("running {objects} of {}; Ctrl-C stops", cdc.project().folder().display()));
    let stop = loop {
        news.tell_troubles(&cdc);
        if let Err(stop) = signals.until(session.env.sleep(LOOK)).await {
            break stop;
        }
        match signals.until(news.tell_opened(&cdc)).await {
            // What runs already goes on, whatever keeps the project from being read just now.
            Ok(told) => news.tell_unreadable(told),
            Err(stop) => break stop,
        }
    };
    shut_down(signals, cdc).await;
    stop.outcome()
}

/// Stops in order; a second signal stops at once.
pub(super) async fn shut_down(signals: &mut Signals, cdc: Cdc) {
    note(&format!(
        "stopping: what is under way is sent, for {STOP_SECS} s at most; Ctrl-C again stops at once"
    ));
    match signals.until(cdc.shutdown(Deadline::secs(STOP_SECS))).await {
        Ok(Ok(())) => note("stopped; everything was sent"),
        Ok(Err(error)) => {
            note(&format!("stopped; the next run goes on where this one ends: {}", in_one_line(&error)))
        }
        Err(_) => note("stopped at once; the next run goes on where this one ends"),
    }
}

/// What was told so far, so that each thing is told once.
#[derive(Debug, Default)]
pub(super) struct News {
    opened: BTreeSet<ObjectId>,
    failed: BTreeMap<ObjectId, String>,
    damaged: BTreeSet<String>,
    unreadable: Option<String>,
    stopped: BTreeMap<(ObjectId, &'static str), Trouble>,
}

impl News {
    /// Opens what is new in the project and tells of it.
    async fn tell_opened(&mut self, cdc: &Cdc) -> Result<(), Failure> {
        let Opening { opened: new, failed, unreadable } = cdc.open_all().await?;
        let reason = |error: &cdc::Error| with_help(in_one_line(error), help(error));
        let failed: BTreeMap<_, _> = failed.iter().map(|(id, error)| (id.clone(), reason(error))).collect();
        for (id, reason) in &failed {
            if self.failed.get(id) != Some(reason) {
                note(&format!("cannot open {id}: {reason}"));
            }
        }
        self.failed = failed;
        let damaged: BTreeSet<_> = unreadable.iter().map(of_unreadable).collect();
        damaged.difference(&self.damaged).for_each(|told| note(told));
        self.damaged = damaged;
        if new == 0 {
            return Ok(());
        }
        for (id, spec) in cdc.project().objects()? {
            if !self.failed.contains_key(&id) && self.opened.insert(id) {
                note(&opened(cdc.project(), &spec));
            }
        }
        Ok(())
    }

    /// Tells once why the project could not be read.
    fn tell_unreadable(&mut self, told: Result<(), Failure>) {
        let reason = told.err().map(|error| in_one_line(&error));
        if let Some(reason) = reason.as_ref().filter(|_| self.unreadable != reason) {
            note(&format!("cannot look for new objects: {reason}"));
        }
        self.unreadable = reason;
    }

    /// Tells what has stopped since, and what goes on again.
    pub(super) fn tell_troubles(&mut self, cdc: &Cdc) {
        let troubles = cdc.troubles().into_iter();
        let stopped: BTreeMap<_, _> = troubles.map(|(id, trouble)| ((id, trouble.what), trouble)).collect();
        for ((id, what), trouble) in &stopped {
            if self.stopped.get(&(id.clone(), *what)) != Some(trouble) {
                let how = if trouble.remedy == cdc::Remedy::Retry { "waiting" } else { "stopped" };
                let told = format!("{how}: the {what} of {id}: {}", trouble.reason);
                note(&with_help(told, trouble.damage.map(help_of)));
            }
        }
        for (id, what) in self.stopped.keys().filter(|known| !stopped.contains_key(known)) {
            note(&format!("recovered: the {what} of {id}"));
        }
        self.stopped = stopped;
    }
}

/// What to tell of a description of an object that cannot be read.
pub(super) fn of_unreadable(error: &cdc::Error) -> String {
    with_help(format!("cannot open an object: {}", in_one_line(error)), help(error))
}

/// What happened, and what to do about it in a line below.
fn with_help(told: String, help: Option<&str>) -> String {
    match help {
        Some(help) => format!("{told}\n  help: {help}"),
        None => told,
    }
}

fn opened(project: &Project, spec: &ObjectSpec) -> String {
    let mut parent = String::new();
    if let Some(context) = &spec.context {
        let at = project.remote(context).map(|address| format!(" at {address}")).unwrap_or_default();
        parent = format!(" -> {context}{at}");
    }
    let database = match &spec.attached {
        Some(attached) if attached.detached => format!(" (detached from {})", attached.database.display()),
        Some(attached) => format!(" (attached to {})", attached.database.display()),
        None => String::new(),
    };
    format!("opened {}{parent}{database}", spec.id)
}

/// What `--once` did, for programs.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    objects: usize,
    records: u64,
    archived: u64,
    under_way: u64,
    stopped: Vec<String>,
}

async fn once(session: &mut Session, signals: &mut Signals, cdc: Cdc) -> Result<(), Failure> {
    let (project, env) = (cdc.project().clone(), session.env.clone());
    let mut exits = Vec::new();
    let mut reasons = Vec::new();
    let mut helps = BTreeSet::new();
    let work = async {
        let opening = cdc.open_all().await?;
        let quiet = cdc.quiet().await;
        Ok::<_, Failure>((opening, quiet))
    };
    let (Opening { failed, unreadable, .. }, quiet) = match signals.until(work).await {
        Ok(done) => done?,
        // Whoever ends `--once` early gets less than was asked for, whichever signal it was.
        Err(_) => {
            cdc.stop().await;
            return Err(Failure::Interrupted);
        }
    };
    for (id, error) in failed {
        reasons.push(format!("  cannot open {id}: {}", in_one_line(&error)));
        helps.extend(help(&error));
        exits.push(Failure::from(error).exit());
    }
    for error in unreadable {
        reasons.push(format!("  cannot open an object: {}", in_one_line(&error)));
        helps.extend(help(&error));
        exits.push(Failure::from(error).exit());
    }
    let mut troubles = cdc.troubles();
    // A link that had nothing to send may find its parent gone.
    troubles.retain(|(_, trouble)| quiet.is_err() || trouble.remedy != cdc::Remedy::Retry);
    for (id, trouble) in &troubles {
        let is_passing = trouble.remedy == cdc::Remedy::Retry;
        let (how, exit) =
            if is_passing { ("waits", Exit::Unreachable) } else { ("has stopped", Exit::Failure) };
        reasons.push(format!("  the {} of {id} {how}: {}", trouble.what, trouble.reason));
        helps.extend(trouble.damage.map(help_of));
        exits.push(exit);
    }
    if let (Err(error), true) = (quiet, troubles.is_empty()) {
        reasons.push(format!("  {}", in_one_line(&error)));
        exits.push(Failure::from(error).exit());
    }
    cdc.stop().await;
    summarise(session, &project, &env, &reasons).await?;
    if reasons.is_empty() {
        return Ok(());
    }
    // Several objects may need the same.
    reasons.extend(helps.into_iter().map(|help| format!("  help: {help}")));
    let unreachable = exits.iter().all(|exit| *exit == Exit::Unreachable);
    Err(Failure::Incomplete { reasons, exit: if unreachable { Exit::Unreachable } else { Exit::Failure } })
}

async fn summarise(
    session: &mut Session,
    project: &Project,
    env: &cdc::Tokio,
    reasons: &[String],
) -> Result<(), Failure> {
    let lines = tree::collect(project, env).await?;
    let summary = Summary {
        objects: lines.len(),
        records: lines.iter().filter_map(|line| Some(line.tail?.get())).sum(),
        archived: lines.iter().filter_map(|line| Some(line.archived?.get())).sum(),
        under_way: lines.iter().filter_map(|line| line.lag).sum(),
        stopped: reasons.iter().map(|reason| reason.trim().to_owned()).collect(),
    };
    note(&format!(
        "{}, {} in their logs, {} archived, {} under way",
        plural(summary.objects, "object"),
        plural(summary.records, "record"),
        summary.archived,
        summary.under_way
    ));
    session.out.receipt(&summary)
}
