use cdc::{Reader, Record, Sequence};

use super::follow;
use crate::failure::Failure;
use crate::output::{View, note};
use crate::project::Target;
use crate::session::Session;
use crate::signals::Signals;

const EXAMPLES: &str = "\
Examples:
  cdc tail app.db                              the newest 20 changes
  cdc tail crm.headless.ly --last 5 --follow   the newest 5, and then each one as it arrives
  cdc tail app.db --follow -o ndjson | jq .documentId

A log grows while `cdc run` or `cdc watch` is at work; it is read directly, \
so both may go on meanwhile.";

/// Print the newest changes of an object, and follow it
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The object's id or its database
    #[arg(value_name = "ID|DB")]
    object: Target,
    /// How many
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20)]
    last: usize,
    /// Go on with each new change until stopped
    #[arg(short, long)]
    pub(super) follow: bool,
    /// Changes of table schemas too
    #[arg(long)]
    schema: bool,
}

pub(super) async fn run(args: Args, session: &mut Session) -> Result<(), Failure> {
    let reader = session.reader(&args.object).await?;
    let printed = print_last(&args, session, &reader).await?;
    if printed == Sequence::ZERO {
        note(&format!("the log of {} is empty; `cdc run` fills it", reader.spec().id));
    }
    session.out.none()
}

pub(super) async fn follow(args: Args, session: &mut Session, signals: &mut Signals) -> Result<(), Failure> {
    let reader = session.reader(&args.object).await?;
    let after = print_last(&args, session, &reader).await?;
    session.out.flush()?;
    let schema = args.schema;
    let stop =
        follow::follow(session, signals, &reader, after, |record| Ok(schema || !record.body.is_schema()));
    stop.await?.outcome()
}

/// Prints the newest changes. Gives the position after them.
async fn print_last(args: &Args, session: &mut Session, reader: &Reader) -> Result<Sequence, Failure> {
    let shown = |record: &Record| args.schema || !record.body.is_schema();
    let mut asked = args.last;
    let records = loop {
        let records = reader.tail(asked).await?;
        let found = records.iter().filter(|record| shown(record)).count();
        if found >= args.last || records.len() < asked {
            break records;
        }
        asked = asked.saturating_mul(2);
    };
    let after = match records.last() {
        Some(newest) => newest.sequence,
        None => reader.status().await?.tail.sequence,
    };
    let view = View { of: reader.spec().id.clone(), placed: true };
    let shown: Vec<_> = records.iter().filter(|record| shown(record)).collect();
    for record in shown.iter().skip(shown.len().saturating_sub(args.last)) {
        session.out.record(record, &view)?;
    }
    Ok(after)
}
