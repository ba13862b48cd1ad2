use serde::Serialize;

use crate::failure::Failure;
use crate::output::note;
use crate::project;
use crate::session::Session;

const EXAMPLES: &str = "\
Examples:
  cdc init                              the current folder; archives into ./warehouse
  cdc init --dir ./crm                  another folder
  cdc init --warehouse /var/lib/cdc     archives elsewhere";

/// Make a folder a project: writes cdc.toml, commented, with the defaults
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {}

#[derive(Serialize)]
struct Receipt {
    created: String,
}

pub(super) fn run(_args: &Args, session: &mut Session) -> Result<(), Failure> {
    let path = project::create(&session.global)?;
    note(&format!(
        "wrote {}, which is yours to edit; everything else lies in .cdc/ beside it",
        path.display()
    ));
    note("next: `cdc attach DB --id ID` captures a database, `cdc create ID` makes an object without one");
    session.out.receipt(&Receipt { created: path.display().to_string() })
}
