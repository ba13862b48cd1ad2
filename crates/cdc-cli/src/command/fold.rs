use cdc::{Filter, ObjectId, Sequence, Timestamp, Until};
use comfy_table::Cell;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::args::moment;
use crate::failure::Failure;
use crate::output::{Row, brief, note, number, plural};
use crate::project::Target;
use crate::session::Session;

const EXAMPLES: &str = "\
Examples:
  cdc fold app.db                                  every document as it is now
  cdc fold app.db --at 2026-01-15T12:00:00Z        as it was then
  cdc fold app.db --at 1000 --collection customers as the first 1000 records say
  cdc fold startups.studio --source crm.headless.ly/acme";

/// Print the documents that a history adds up to, now or at any moment
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The object's id or its database
    #[arg(value_name = "ID|DB")]
    object: Target,
    /// As of this sequence, or just before this time
    #[arg(long, value_name = "N|T", value_parser = moment)]
    at: Option<Until>,
    /// Only the documents of this object; may be given several times
    #[arg(long, value_name = "ID|DB")]
    source: Vec<Target>,
    /// Only this collection; may be given several times
    #[arg(long, value_name = "C")]
    collection: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    source: &'a ObjectId,
    collection: &'a str,
    document_id: &'a str,
    document: &'a RawValue,
    sequence: Sequence,
    timestamp: Timestamp,
}

impl Row for Line<'_> {
    const COLUMNS: &'static [&'static str] = &["source", "document", "sequence", "since", "state"];

    fn cells(&self) -> Vec<Cell> {
        let name = format!("{}/{}", self.collection, self.document_id);
        vec![
            Cell::new(self.source.short()),
            Cell::new(brief(&name, 60)),
            number(Some(self.sequence)),
            Cell::new(self.timestamp),
            Cell::new(brief(self.document.get(), 200)),
        ]
    }
}

pub(super) async fn run(args: Args, session: &mut Session) -> Result<(), Failure> {
    let reader = session.reader(&args.object).await?;
    let project = session.project()?;
    let sources: Result<_, _> = args.source.iter().map(|source| source.id(&project)).collect();
    let filter = Filter { collections: args.collection, operations: Vec::new(), sources: sources? };
    let mut replay = reader.replay().filter(filter);
    if let Some(at) = args.at {
        replay = replay.until(at);
    }
    let folded = replay.fold().await?;
    if folded.broken > 0 {
        let events = plural(folded.broken, "event");
        note(&format!("{events} did not continue the history before; `cdc verify` says more"));
    }
    let mut lines = Vec::new();
    for (source, collection, document_id, state) in folded.documents.iter() {
        let document: &RawValue = serde_json::from_str(&state.json).map_err(|source| Failure::Document {
            document: format!("{collection}/{document_id}"),
            source,
        })?;
        let (sequence, timestamp) = (state.sequence, state.timestamp);
        lines.push(Line { source, collection, document_id, document, sequence, timestamp });
    }
    session.out.rows(&lines)?;
    session.out.none()
}
