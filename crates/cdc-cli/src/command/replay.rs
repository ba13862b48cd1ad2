use cdc::{Cursor, Filter, Operation, ReplayBuilder, Timestamp, Until};
use futures_util::TryStreamExt as _;

use crate::args::moment;
use crate::failure::Failure;
use crate::output::{ProgressLine, View, note};
use crate::project::Target;
use crate::session::Session;

const EXAMPLES: &str = "\
Examples:
  cdc replay app.db                       everything
  cdc replay app.db --after 1000 --until 2000 --collection customers
  cdc replay app.db --from-time 2026-01-15T00:00:00Z -o debezium
  cdc replay startups.studio --source crm.headless.ly/acme --operation delete

A bare integer is a sequence; a time is RFC 3339 or @ and milliseconds since 1970, by the clock of the log that is \
read. The log and the archive are read as one history. With -o ndjson each line has the cursor to go on --after.";

/// Print the history of an object, from any position or moment
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The object's id or its database
    #[arg(value_name = "ID|DB")]
    object: Target,
    /// Begin after this sequence or cursor
    #[arg(long, value_name = "N", conflicts_with = "from_time")]
    after: Option<Cursor>,
    /// Begin with the first record at or after this time
    #[arg(long, value_name = "T")]
    from_time: Option<Timestamp>,
    /// End with this sequence, or before this time
    #[arg(long, value_name = "N|T", value_parser = moment)]
    until: Option<Until>,
    /// Only this collection; may be given several times
    #[arg(long, value_name = "C")]
    collection: Vec<String>,
    /// Only this operation: insert, update or delete; may be given several times
    #[arg(long, value_name = "O")]
    operation: Vec<Operation>,
    /// Only what happened in this object; may be given several times
    #[arg(long, value_name = "ID|DB")]
    source: Vec<Target>,
    /// Changes of table schemas too
    #[arg(long)]
    schema: bool,
}

pub(super) async fn run(args: Args, session: &mut Session) -> Result<(), Failure> {
    let reader = session.reader(&args.object).await?;
    let project = session.project()?;
    let sources: Result<_, _> = args.source.iter().map(|source| source.id(&project)).collect();
    let filter = Filter { collections: args.collection, operations: args.operation, sources: sources? };
    let from = args.from_time.map(Cursor::at_time).or(args.after).unwrap_or(Cursor::START);
    let mut replay = reader.replay().after(from).filter(filter);
    if let Some(until) = args.until {
        replay = replay.until(until);
    }
    if args.schema {
        replay = replay.with_schema_changes();
    }
    let view = View { of: reader.spec().id.clone(), placed: true };
    if print(session, replay, &view).await? == 0 {
        note("no event matches");
    }
    session.out.none()
}

/// Prints a replay as it is read. Gives how many events there were.
pub(super) async fn print(session: &mut Session, replay: ReplayBuilder, view: &View) -> Result<u64, Failure> {
    let mut progress = ProgressLine::beside_events(&session.env);
    let mut batches = replay.stream();
    let mut printed = 0;
    while let Some(batch) = batches.try_next().await? {
        for record in &batch.records {
            session.out.record(record, view)?;
            printed += 1;
        }
        session.out.flush()?;
        progress.show(&batch.progress, "positions");
    }
    Ok(printed)
}
