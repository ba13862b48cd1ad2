use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use cdc::{ObjectId, ObjectSpec, Project, Sequence, Timestamp, Tokio};
use comfy_table::Cell;
use serde::Serialize;

use super::run::of_unreadable;
use crate::failure::{Failure, in_one_line};
use crate::output::{Row, note, number, plural};
use crate::session::Session;

const EXAMPLES: &str = "\
Examples:
  cdc tree                          all objects, parents first
  cdc tree -o ndjson | jq 'select(.lag > 0)'

TAIL is the newest sequence of an object's log, LAG how much of it the parent does not hold yet, ARCHIVED how far the \
log is archived. Objects with a parent are archived at their root. -> shows a parent that another process serves.

Behind a database stands when the last comparison of all its tables with the log had begun (comparedAt in ndjson): what \
bypassed capture before is in the log. The audit compares once a day, as [audit] in cdc.toml says. Collisions count how \
often the application held the database for longer than we waited; what it wrote was captured later.";

/// Show all objects with their parents, and how far each has come
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {}

/// One object and where it stands.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Line {
    #[serde(rename = "$id")]
    pub(super) id: ObjectId,
    #[serde(rename = "$context", skip_serializing_if = "Option::is_none")]
    context: Option<ObjectId>,
    /// Where another process serves the parent.
    #[serde(skip_serializing_if = "Option::is_none")]
    context_at: Option<SocketAddr>,
    depth: usize,
    pub(super) tail: Option<Sequence>,
    /// The oldest readable sequence, where older ones were pruned.
    #[serde(skip_serializing_if = "Option::is_none")]
    floor: Option<Sequence>,
    #[serde(skip_serializing_if = "Option::is_none")]
    acked: Option<Sequence>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) lag: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) archived: Option<Sequence>,
    /// When the last comparison of its tables with the log had begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    compared_at: Option<Timestamp>,
    /// How often its application held the database for longer than we waited.
    #[serde(skip_serializing_if = "Option::is_none")]
    collisions: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attached: Option<PathBuf>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    detached: bool,
    /// Why it could not be looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    trouble: Option<String>,
}

impl Row for Line {
    const COLUMNS: &'static [&'static str] = &["object", "tail", "lag", "archived", "database"];

    fn cells(&self) -> Vec<Cell> {
        let database = match (&self.trouble, &self.attached) {
            (Some(trouble), _) => format!("! {trouble}"),
            (None, Some(path)) if self.detached => format!("{} (detached)", path.display()),
            (None, Some(path)) => format!("{}{}", path.display(), self.watched()),
            (None, None) => String::new(),
        };
        let elsewhere = match (&self.context, self.context_at) {
            (Some(context), Some(address)) => format!(" -> {} at {address}", context.short()),
            _ => String::new(),
        };
        vec![
            Cell::new(format!("{}{}{elsewhere}", "  ".repeat(self.depth), self.id.short())),
            number(self.tail),
            number(self.lag),
            number(self.archived),
            Cell::new(database),
        ]
    }
}

impl Line {
    /// How its capture is watched over, for people.
    fn watched(&self) -> String {
        let compared = self.compared_at.map(|at| format!("compared {at}"));
        let collisions = self.collisions.map(|count| plural(count, "collision"));
        let parts: Vec<_> = compared.into_iter().chain(collisions).collect();
        if parts.is_empty() { String::new() } else { format!(" ({})", parts.join(", ")) }
    }
}

pub(super) async fn run(_args: Args, session: &mut Session) -> Result<(), Failure> {
    let project = session.project()?;
    let lines = collect(&project, &session.env).await?;
    project.unreadable()?.iter().for_each(|error| note(&of_unreadable(error)));
    if lines.is_empty() {
        note("no objects yet; `cdc attach DB --id ID` or `cdc create ID` makes one");
        return session.out.none();
    }
    session.out.rows(&lines)
}

/// Where every object stands, parents before their children.
pub(super) async fn collect(project: &Project, env: &Tokio) -> Result<Vec<Line>, Failure> {
    let objects = project.objects()?;
    let mut children: BTreeMap<Option<&ObjectId>, Vec<&ObjectSpec>> = BTreeMap::new();
    for spec in objects.values() {
        // An object whose parent is gone is shown all the same.
        let parent = spec.context.as_ref().filter(|parent| objects.contains_key(*parent));
        children.entry(parent).or_default().push(spec);
    }
    let mut lines = Vec::with_capacity(objects.len());
    let mut waiting: Vec<(usize, &ObjectSpec)> = Vec::new();
    let mut parent = (0, None);
    loop {
        let below = children.remove(&parent.1).unwrap_or_default();
        waiting.extend(below.into_iter().rev().map(|spec| (parent.0, spec)));
        let Some((depth, spec)) = waiting.pop() else { break };
        lines.push(line(project, env, spec, depth).await);
        parent = (depth + 1, Some(&spec.id));
    }
    Ok(lines)
}

async fn line(project: &Project, env: &Tokio, spec: &ObjectSpec, depth: usize) -> Line {
    let mut line = Line {
        id: spec.id.clone(),
        context: spec.context.clone(),
        context_at: spec.context.as_ref().and_then(|context| project.remote(context)),
        depth,
        tail: None,
        floor: None,
        acked: None,
        lag: None,
        archived: None,
        compared_at: None,
        collisions: None,
        attached: spec.attached.as_ref().map(|attached| attached.database.clone()),
        detached: spec.attached.as_ref().is_some_and(|attached| attached.detached),
        trouble: None,
    };
    if let Err(error) = look(project, env, &mut line).await {
        line.trouble = Some(in_one_line(&error));
    }
    line
}

async fn look(project: &Project, env: &Tokio, line: &mut Line) -> cdc::Result<()> {
    let reader = project.reader(env, &line.id).await?;
    let status = reader.status().await?;
    let tail = status.tail.sequence;
    line.tail = Some(tail);
    line.floor = Some(status.floor).filter(|floor| *floor > Sequence::new(1));
    line.acked = status.acked;
    line.compared_at = status.compared_at;
    line.collisions = Some(status.collisions).filter(|count| *count > 0);
    line.lag = status.acked.map(|acked| tail.since(acked));
    line.archived = reader
        .archive_status()
        .await?
        .map(|archive| archive.watermark.map_or(Sequence::ZERO, |mark| mark.sequence));
    Ok(())
}
