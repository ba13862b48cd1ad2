use cdc::ObjectId;
use serde::Serialize;

use crate::failure::Failure;
use crate::output::note;
use crate::project::Target;
use crate::session::Session;

const EXAMPLES: &str = "\
Examples:
  cdc create startups.studio              a root; it archives what it receives
  cdc create crm.headless.ly --context startups.studio
                                          an object that sends its events there";

/// Create an object, such as the parent of others
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Its id: an https URL, of which `https://` may be omitted
    #[arg(value_parser = ObjectId::parse_short)]
    id: ObjectId,
    /// Its parent, which must exist here or stand in [remotes] of cdc.toml
    #[arg(long, value_name = "ID")]
    context: Option<Target>,
}

#[derive(Serialize)]
struct Receipt<'a> {
    #[serde(rename = "$id")]
    id: &'a ObjectId,
    #[serde(rename = "$context", skip_serializing_if = "Option::is_none")]
    context: Option<&'a ObjectId>,
    created: bool,
}

pub(super) fn run(args: &Args, session: &mut Session) -> Result<(), Failure> {
    let project = session.project()?;
    let context = args.context.as_ref().map(|context| context.id(&project)).transpose()?;
    let created = project.create(&args.id, context.as_ref())?;
    let (what, below) = (
        if created { "created" } else { "there is already" },
        context.as_ref().map(|context| format!(" below {context}")).unwrap_or_default(),
    );
    note(&format!("{what} {}{below}", args.id));
    session.out.receipt(&Receipt { id: &args.id, context: context.as_ref(), created })
}
