use cdc::{Checkpoint, Cursor, Save};
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
  cdc checkpoint set app.db my-processor 0 --force     take everything again
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
        /// Set it anywhere, also backwards
        #[arg(long)]
        force: bool,
    },
    /// Forget a checkpoint
    Rm {
        /// The object's id or its database
        #[arg(value_name = "ID|DB")]
        object: Target,
        /// The subscriber
        name: String,
    },
}

#[derive(Serialize)]
#[serde(transparent)]
struct Line(Checkpoint);

impl Row for Line {
    const COLUMNS: &'static [&'static str] = &["subscriber", "sequence", "revision", "created", "updated"];

    fn cells(&self) -> Vec<Cell> {
        vec![
            Cell::new(brief(&self.0.subscriber_id, 60)),
            number(Some(self.0.cursor.sequence)),
            number(Some(self.0.revision)),
            Cell::new(self.0.created_at),
            Cell::new(self.0.updated_at),
        ]
    }
}

pub(super) async fn run(args: Args, session: &mut Session) -> Result<(), Failure> {
    match args.action {
        Action::Ls { object } => {
            let reader = session.reader(&object).await?;
            let lines: Vec<_> = reader.checkpoints().await?.into_iter().map(Line).collect();
            if lines.is_empty() {
                note(&format!("{} has no checkpoints", reader.spec().id));
            }
            session.out.rows(&lines)?;
            session.out.none()
        }
        Action::Get { object, name } => {
            let reader = session.reader(&object).await?;
            let found = reader.checkpoints().await?.into_iter().find(|found| found.subscriber_id == name);
            let found = found.ok_or_else(|| Failure::NoCheckpoint { id: reader.spec().id.clone(), name })?;
            session.out.rows(&[Line(found)])
        }
        Action::Set { object, name, cursor, force } => {
            let reader = session.reader(&object).await?;
            let save = if force { Save::Force } else { Save::Advance };
            let saved = reader.save_checkpoint(&name, cursor, save).await?;
            session.out.rows(&[Line(saved)])
        }
        Action::Rm { object, name } => {
            let reader = session.reader(&object).await?;
            if !reader.remove_checkpoint(&name).await? {
                return Err(Failure::NoCheckpoint { id: reader.spec().id.clone(), name });
            }
            note(&format!("{} has forgotten {name:?}", reader.spec().id));
            Ok(())
        }
    }
}
