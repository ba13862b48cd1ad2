use cdc::{Cursor, Losses, ObjectId, Pruned, Reader, Sequence};
use comfy_table::Cell;
use serde::Serialize;

use super::run::of_unreadable;
use crate::failure::Failure;
use crate::output::{Row, note, number, plural};
use crate::project::Target;
use crate::session::Session;

const EXAMPLES: &str = "\
Examples:
  cdc prune                               bring every log within the limits of cdc.toml, once
  cdc prune app.db                        only this one
  cdc prune app.db --through 1000         what would be dropped, and for whom
  cdc prune app.db --through 1000 --yes   drop it

Hot rows go once everybody has taken them: the root and the archives on the way, and every subscriber with a checkpoint. \
Where nothing archives, the root's log is the last copy and only --through drops anything. The newest row always stays. \
`cdc run` and `cdc serve` prune by themselves; set [retention] in cdc.toml.";

/// Drop hot rows that are over the limits, or all up to a position
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Only this object, by id or database
    #[arg(value_name = "ID|DB")]
    object: Option<Target>,
    /// Drop everything up to this position, inclusive, whoever still needs it: a sequence such as 1000
    #[arg(long, value_name = "CURSOR", requires = "object")]
    through: Option<Cursor>,
    /// With --through: drop it, instead of saying what would be dropped
    #[arg(long, requires = "through")]
    yes: bool,
}

/// What went of one log.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    #[serde(rename = "$id")]
    id: ObjectId,
    pruned: u64,
    bytes: u64,
    floor: Sequence,
    /// Who holds back records that are over the limits.
    held: Vec<Loss>,
}

/// Records that somebody still needs.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Loss {
    by: String,
    at: Sequence,
    records: u64,
}

impl From<cdc::Loss> for Loss {
    fn from(loss: cdc::Loss) -> Self {
        Self { by: loss.holder.to_string(), at: loss.at, records: loss.records }
    }
}

impl Line {
    fn new(id: ObjectId, pruned: Pruned) -> Self {
        let held = pruned.held.into_iter().map(Loss::from).collect();
        Self { id, pruned: pruned.records, bytes: pruned.bytes, floor: pruned.floor, held }
    }
}

impl Row for Line {
    const COLUMNS: &'static [&'static str] = &["object", "pruned", "bytes", "floor", "held back by"];

    fn cells(&self) -> Vec<Cell> {
        let held = self.held.iter().map(|held| format!("{}: {} after {}", held.by, held.records, held.at));
        vec![
            Cell::new(self.id.short()),
            number(Some(self.pruned)),
            number(Some(self.bytes)),
            number(Some(self.floor)),
            Cell::new(held.collect::<Vec<_>>().join("\n")),
        ]
    }
}

/// What `--through` would drop.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Question {
    #[serde(rename = "$id")]
    id: ObjectId,
    through: Sequence,
    records: u64,
    losses: Vec<Loss>,
}

impl Row for Loss {
    const COLUMNS: &'static [&'static str] = &["not yet taken by", "at", "loses"];

    fn cells(&self) -> Vec<Cell> {
        vec![Cell::new(&self.by), number(Some(self.at)), number(Some(self.records))]
    }
}

pub(super) async fn run(args: Args, session: &mut Session) -> Result<(), Failure> {
    let project = session.project()?;
    if let (Some(object), Some(through)) = (&args.object, args.through) {
        let reader = session.reader(object).await?;
        return match args.yes {
            true => drop_through(&reader, through, session).await,
            false => ask(&reader, through, session).await,
        };
    }
    let objects = match &args.object {
        Some(object) => vec![object.find(&project)?.id],
        None => {
            project.unreadable()?.iter().for_each(|error| note(&of_unreadable(error)));
            project.objects()?.into_keys().collect()
        }
    };
    let mut lines = Vec::new();
    for id in objects {
        if project.settings().retention.of(&id).is_all() {
            continue;
        }
        let pruned = project.reader(&session.env, &id).await?.prune().await?;
        lines.push(Line::new(id, pruned));
    }
    if lines.is_empty() {
        note("no limits are set, so nothing is pruned; set some under [retention] in cdc.toml");
    }
    session.out.rows(&lines)?;
    session.out.none()
}

async fn drop_through(reader: &Reader, through: Cursor, session: &mut Session) -> Result<(), Failure> {
    let pruned = reader.prune_through(through.sequence).await?;
    session.out.rows(&[Line::new(reader.spec().id.clone(), pruned)])
}

async fn ask(reader: &Reader, through: Cursor, session: &mut Session) -> Result<(), Failure> {
    let Losses { through, records, losses } = reader.losses(through.sequence).await?;
    let id = reader.spec().id.clone();
    let losses: Vec<Loss> = losses.into_iter().map(Loss::from).collect();
    let what = format!("{} up to {through} would be dropped from the log of {id}", plural(records, "record"));
    note(&match losses.is_empty() {
        true => format!("{what}; everybody has taken them"),
        false => {
            format!("{what}; links, archives and subscribers that lose some stop until they are set anew")
        }
    });
    if session.out.is_for_people() {
        session.out.rows(&losses)?;
    } else {
        session.out.value(&Question { id, through, records, losses })?;
    }
    note("nothing was dropped; --yes drops it");
    Ok(())
}
