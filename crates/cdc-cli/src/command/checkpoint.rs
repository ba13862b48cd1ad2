use cdc::{Checkpoint, Cursor, FenceToken, LogError, Reader, Remover, Save, Sequence, Subscriber};
use comfy_table::Cell;
use serde::Serialize;

use crate::failure::Failure;
use crate::output::{Row, brief, note, number};
use crate::project::Target;
use crate::session::Session;

const EXAMPLES: &str = "\
Examples:
  cdc checkpoint ls app.db
  cdc checkpoint set app.db my-processor 1000
  cdc checkpoint set app.db my-processor 1100 --if-at 1000   unless somebody has moved it
  cdc checkpoint set app.db my-processor 0 --force           take everything again
  cdc checkpoint take app.db my-processor                    others save it no more
  cdc checkpoint get app.db my-processor -o ndjson | jq .cursor.sequence";

/// Show and move the checkpoints of subscribers
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List the checkpoints of an object
    Ls {
        /// The object's id or its database
        #[arg(value_name = "ID|DB")]
        object: Target,
    },
    /// Show one checkpoint
    Get {
        /// The object's id or its database
        #[arg(value_name = "ID|DB")]
        object: Target,
        /// The subscriber
        name: String,
    },
    /// Save a checkpoint; it only goes forwards unless forced
    Set {
        /// The object's id or its database
        #[arg(value_name = "ID|DB")]
        object: Target,
        /// The subscriber
        name: String,
        /// The last record taken: a sequence such as 1000, or sequence@milliseconds
        cursor: Cursor,
        /// Set it anywhere, also backwards, whoever has taken it
        #[arg(long)]
        force: bool,
        /// Only if it is there now; 0 if there is none
        #[arg(long, value_name = "SEQUENCE")]
        if_at: Option<Sequence>,
        /// The token of who has taken it
        #[arg(long)]
        token: Option<FenceToken>,
        /// What to keep beside it, as JSON; what is there stays if this is left out
        #[arg(long, value_name = "JSON", value_parser = json)]
        metadata: Option<serde_json::Value>,
    },
    /// Take a checkpoint over: from now on it is saved with the token printed here only
    Take {
        /// The object's id or its database
        #[arg(value_name = "ID|DB")]
        object: Target,
        /// The subscriber
        name: String,
    },
    /// Forget a checkpoint
    Rm {
        /// The object's id or its database
        #[arg(value_name = "ID|DB")]
        object: Target,
        /// The subscriber
        name: String,
        /// The token of who has taken it
        #[arg(long, conflicts_with = "force")]
        token: Option<FenceToken>,
        /// Whoever has taken it
        #[arg(long)]
        force: bool,
    },
}

#[derive(Serialize)]
#[serde(transparent)]
struct Line(Subscriber);

impl Row for Line {
    const COLUMNS: &'static [&'static str] =
        &["subscriber", "sequence", "lag", "waiting since", "revision", "created", "updated"];

    fn cells(&self) -> Vec<Cell> {
        let Subscriber { checkpoint, lag, waiting_since } = &self.0;
        vec![
            Cell::new(brief(&checkpoint.subscriber_id, 60)),
            number(Some(checkpoint.cursor.sequence)),
            number(Some(lag)),
            Cell::new(waiting_since.map_or_else(|| "-".to_owned(), |since| since.to_string())),
            number(Some(checkpoint.revision)),
            Cell::new(checkpoint.created_at),
            Cell::new(checkpoint.updated_at),
        ]
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Taken {
    subscriber_id: String,
    token: String,
}

impl Row for Taken {
    const COLUMNS: &'static [&'static str] = &["subscriber", "token"];

    fn cells(&self) -> Vec<Cell> {
        vec![Cell::new(brief(&self.subscriber_id, 60)), Cell::new(&self.token)]
    }
}

fn json(text: &str) -> Result<serde_json::Value, serde_json::Error> {
    serde_json::from_str(text)
}

async fn find(reader: &Reader, name: &str) -> Result<Option<Subscriber>, Failure> {
    let all = reader.subscribers().await?;
    Ok(all.into_iter().find(|found| found.checkpoint.subscriber_id == name))
}

pub(super) async fn run(args: Args, session: &mut Session) -> Result<(), Failure> {
    match args.action {
        Action::Ls { object } => {
            let reader = session.reader(&object).await?;
            let lines: Vec<_> = reader.subscribers().await?.into_iter().map(Line).collect();
            if lines.is_empty() {
                note(&format!("{} has no checkpoints", reader.spec().id));
            }
            session.out.rows(&lines)?;
            session.out.none()
        }
        Action::Get { object, name } => {
            let reader = session.reader(&object).await?;
            let found = find(&reader, &name).await?;
            let found = found.ok_or_else(|| Failure::NoCheckpoint { id: reader.spec().id.clone(), name })?;
            session.out.rows(&[Line(found)])
        }
        Action::Set { object, name, cursor, force, if_at, token, metadata } => {
            let reader = session.reader(&object).await?;
            let mut save = Save::at(cursor).token(token);
            if force {
                save = save.forced();
            }
            if let Some(metadata) = metadata {
                save = save.metadata(metadata);
            }
            if let Some(wanted) = if_at {
                let seen = find(&reader, &name).await?.map(|seen| seen.checkpoint);
                check_at(seen.as_ref(), wanted, &name)?;
                save = save.expecting(seen.as_ref());
            }
            reader.save_checkpoint(&name, save).await?;
            let saved = find(&reader, &name).await?;
            let saved = saved.ok_or_else(|| Failure::NoCheckpoint { id: reader.spec().id.clone(), name })?;
            session.out.rows(&[Line(saved)])
        }
        Action::Take { object, name } => {
            let reader = session.reader(&object).await?;
            let token = reader.take_over(&name).await?.to_string();
            session.out.rows(&[Taken { subscriber_id: name, token }])
        }
        Action::Rm { object, name, token, force } => {
            let reader = session.reader(&object).await?;
            let by = match token {
                _ if force => Remover::Operator,
                Some(token) => Remover::Holder(token),
                None => Remover::Anybody,
            };
            if !reader.remove_checkpoint(&name, by).await? {
                return Err(Failure::NoCheckpoint { id: reader.spec().id.clone(), name });
            }
            note(&format!("{} has forgotten {name:?}", reader.spec().id));
            Ok(())
        }
    }
}

/// An error as of a save that expected it elsewhere.
fn check_at(seen: Option<&Checkpoint>, wanted: Sequence, name: &str) -> Result<(), Failure> {
    let (at, revision) = seen.map_or((Sequence::ZERO, 0), |seen| (seen.cursor.sequence, seen.revision));
    if at == wanted {
        return Ok(());
    }
    let moved = LogError::CheckpointMoved { subscriber: name.to_owned(), at, revision };
    Err(cdc::Error::from(moved).into())
}
