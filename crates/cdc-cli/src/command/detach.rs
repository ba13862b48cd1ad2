use cdc::{Env as _, ObjectId, ObjectSpec, Project};
use serde::Serialize;

use crate::failure::Failure;
use crate::output::note;
use crate::project::Target;
use crate::session::Session;

const EXAMPLES: &str = "\
Examples:
  cdc detach app.db                     by the database's path
  cdc detach crm.headless.ly/acme       by the object's id
  cdc detach app.db --force             although its log is lost or the database is gone

What was captured is drained first, and the log stays readable: `cdc replay` goes on working. \
Stop `cdc run` before.";

/// Take capture out of a database again
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The object's id or its database
    #[arg(value_name = "ID|DB")]
    object: Target,
    /// Without draining: when its log is lost or drains it elsewhere, or when the database is gone
    #[arg(long)]
    force: bool,
}

#[derive(Serialize)]
struct Receipt<'a> {
    #[serde(rename = "$id", skip_serializing_if = "Option::is_none")]
    id: Option<&'a ObjectId>,
    detached: String,
}

pub(super) fn run(args: &Args, session: &mut Session) -> Result<(), Failure> {
    let project = session.project()?;
    if args.force {
        return by_force(args, &project, session);
    }
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
    session.out.receipt(&Receipt { id: Some(&id), detached: database.display().to_string() })
}

fn by_force(args: &Args, project: &Project, session: &mut Session) -> Result<(), Failure> {
    let database = match args.object.find(project).map(|spec| spec.attached) {
        Ok(Some(attached)) => attached.database,
        Ok(None) => return Err(cdc::Error::NotAttached { id: args.object.id(project)? }.into()),
        Err(Failure::NotAttached { path }) => path,
        Err(error) => return Err(error),
    };
    let id = project.detach_by_force(&database)?;
    note(&format!("took capture out of {}; what was captured and not drained is lost", database.display()));
    if let Some(id) = &id {
        note(&format!("  the log of {id} stays as far as there is one: `cdc replay {}`", id.short()));
    }
    session.out.receipt(&Receipt { id: id.as_ref(), detached: database.display().to_string() })
}
