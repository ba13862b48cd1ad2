use cdc::{ObjectId, Verified};
use comfy_table::Cell;
use serde::Serialize;

use crate::failure::Failure;
use crate::output::{Row, brief, note, number, plural};
use crate::project::Target;
use crate::session::Session;

const EXAMPLES: &str = "\
Examples:
  cdc verify                        every log, every hop between them, every archive
  cdc verify --rows                 and the live tables against what the history adds up to
  cdc verify app.db --rows -o ndjson

The exit code is 4 when something differs. \
UNDER WAY counts events that the parent does not hold yet.";

/// Recount everything: order, gaps, digests, hops, archives, and live tables
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Only this object, by id or database
    #[arg(value_name = "ID|DB")]
    object: Option<Target>,
    /// Compare live tables too; attached databases are drained first
    #[arg(long)]
    rows: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    #[serde(rename = "$id")]
    id: ObjectId,
    records: u64,
    own: u64,
    documents: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    archived: Option<u64>,
    under_way: u64,
    rows_compared: bool,
    difference: Option<String>,
}

impl From<(ObjectId, Verified)> for Line {
    fn from((id, verified): (ObjectId, Verified)) -> Self {
        let Verified { records, own, documents, archived, under_way, rows_compared, difference } = verified;
        Self { id, records, own, documents, archived, under_way, rows_compared, difference }
    }
}

impl Row for Line {
    const COLUMNS: &'static [&'static str] =
        &["object", "records", "own", "documents", "archived", "under way", "rows", "difference"];

    fn cells(&self) -> Vec<Cell> {
        let difference = self.difference.as_deref().map_or("none".to_owned(), |text| brief(text, 300));
        vec![
            Cell::new(self.id.short()),
            number(Some(self.records)),
            number(Some(self.own)),
            number(Some(self.documents)),
            number(self.archived),
            number(Some(self.under_way)),
            Cell::new(if self.rows_compared { "compared" } else { "-" }),
            Cell::new(difference),
        ]
    }
}

pub(super) async fn run(args: Args, session: &mut Session) -> Result<(), Failure> {
    let project = session.project()?;
    let only = args.object.as_ref().map(|object| object.find(&project)).transpose()?.map(|spec| spec.id);
    let verified = project.verify(&session.env, only.as_ref(), args.rows).await?;
    let lines: Vec<Line> = verified.into_iter().map(Line::from).collect();
    session.out.rows(&lines)?;
    session.out.none()?;
    let differing = lines.iter().filter(|line| line.difference.is_some()).count();
    let first = lines.into_iter().find_map(|line| Some((line.id, line.difference?)));
    match first {
        None => {
            note("no difference");
            Ok(())
        }
        Some((id, difference)) => {
            note(&format!("{} with a difference", plural(differing, "object")));
            Err(Failure::Difference { id, difference, objects: differing })
        }
    }
}
