use cdc::{ArchiveStatus, ObjectId, Sequence, Timestamp};
use comfy_table::Cell;
use serde::Serialize;

use crate::failure::Failure;
use crate::output::Row;
use crate::project::Target;
use crate::session::Session;

const EXAMPLES: &str = "\
Examples:
  cdc archive status startups.studio
  cdc archive status startups.studio -o ndjson | jq .location

The archive is an Apache Iceberg table of Parquet files; any engine that reads Iceberg \
reads it at its location.";

/// Show what is archived
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Show the archive of an object: where it is, how far it reaches, and its files
    Status {
        /// The object's id or its database
        #[arg(value_name = "ID|DB")]
        object: Target,
    },
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    #[serde(rename = "$id")]
    id: ObjectId,
    location: String,
    metadata_version: u64,
    snapshots: usize,
    files: usize,
    rows: u64,
    bytes: u64,
    watermark: Option<Sequence>,
    tail: Sequence,
    lag: u64,
    valid_through: Option<Timestamp>,
    first_sequence: Option<Sequence>,
    oldest: Option<Timestamp>,
    newest: Option<Timestamp>,
}

/// A line of the table that shows one archive upright.
#[derive(Serialize)]
struct Property(&'static str, String);

impl Row for Property {
    const COLUMNS: &'static [&'static str] = &["property", "value"];

    fn cells(&self) -> Vec<Cell> {
        vec![Cell::new(self.0), Cell::new(&self.1)]
    }
}

impl Line {
    fn new(id: ObjectId, tail: Sequence, status: ArchiveStatus) -> Self {
        let watermark = status.watermark.map(|mark| mark.sequence);
        Self {
            id,
            location: status.location,
            metadata_version: status.metadata_version,
            snapshots: status.snapshots,
            files: status.files,
            rows: status.rows,
            bytes: status.bytes,
            watermark,
            tail,
            lag: tail.since(watermark.unwrap_or_default()),
            valid_through: status.valid_through,
            first_sequence: status.first_sequence,
            oldest: status.oldest,
            newest: status.newest,
        }
    }

    fn properties(self) -> Vec<Property> {
        let or_none = |time: Option<Timestamp>| time.map_or_else(|| "-".to_owned(), |time| time.to_string());
        vec![
            Property("object", self.id.to_string()),
            Property("location", self.location),
            Property("watermark", format!("{} of {}", self.watermark.unwrap_or_default(), self.tail)),
            Property("lag", self.lag.to_string()),
            Property("rows", self.rows.to_string()),
            Property("files", self.files.to_string()),
            Property("bytes", self.bytes.to_string()),
            Property("snapshots", self.snapshots.to_string()),
            Property("metadata version", self.metadata_version.to_string()),
            Property("oldest event", or_none(self.oldest)),
            Property("newest event", or_none(self.newest)),
            Property("valid through", or_none(self.valid_through)),
        ]
    }
}

pub(super) async fn run(args: Args, session: &mut Session) -> Result<(), Failure> {
    let Action::Status { object } = args.action;
    let reader = session.reader(&object).await?;
    let id = reader.spec().id.clone();
    let Some(status) = reader.archive_status().await? else {
        let root = session.project()?.ancestors(&id)?.pop();
        return Err(Failure::NoArchive { id, root });
    };
    let line = Line::new(id, reader.status().await?.tail.sequence, status);
    if session.out.is_for_people() {
        return session.out.rows(&line.properties());
    }
    session.out.value(&line)
}
