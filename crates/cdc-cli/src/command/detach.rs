use cdc::{Env as _, ObjectId, ObjectSpec};
use serde::Serialize;

use crate::failure::Failure;
use crate::output::note;
use crate::project::Target;
use crate::session::Session;

const EXAMPLES: &str = "\
Examples:
  cdc detach app.db                     by the database's path
  cdc detach crm.headless.ly/acme       by the object's id

What was captured is drained first, and the log stays readable: `cdc replay` goes on working. \
Stop `cdc run` before.";

/// Take capture out of a database again
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The object's id or its database
    #[arg(value_name = "ID|DB")]
    object: Target,
}

#[derive(Serialize)]
struct Receipt<'a> {
    #[serde(rename = "$id")]
    id: &'a ObjectId,
    detached: String,
}

pub(super) fn run(args: &Args, session: &mut Session) -> Result<(), Failure> {
    let project = session.project()?;
    let ObjectSpec { id, attached, .. } = args.object.find(&project)?;
    let database = match attached {
        Some(attached) if attached.detached => {
            note(&format!("{} is detached already", attached.database.display()));
            attached.database
        }
        Some(_) | None => {
            let database = project.detach(&id, &session.env.clock())?;
            let (path, short) = (database.display(), id.short());
            note(&format!("detached {path}; the log of {id} stays: `cdc replay {short}`"));
            database
        }
    };
    session.out.receipt(&Receipt { id: &id, detached: database.display().to_string() })
}
