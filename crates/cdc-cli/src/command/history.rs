use super::replay;
use crate::args::DocumentName;
use crate::failure::Failure;
use crate::output::View;
use crate::project::Target;
use crate::session::Session;

const EXAMPLES: &str = "\
Examples:
  cdc history app.db customers/42         how row 42 became what it is
  cdc history crm.headless.ly/acme customers/42 -o ndjson";

/// Print every change of one document, with what changed
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The object's id or its database
    #[arg(value_name = "ID|DB")]
    object: Target,
    /// The document: its collection or table, a slash and its id or key
    #[arg(value_name = "COLLECTION/DOCUMENT")]
    document: DocumentName,
}

pub(super) async fn run(args: Args, session: &mut Session) -> Result<(), Failure> {
    let reader = session.reader(&args.object).await?;
    let DocumentName { collection, document_id } = &args.document;
    let history = reader.replay().history(collection, document_id);
    let view = View { of: reader.spec().id.clone(), placed: true };
    if replay::print(session, history, &view).await? == 0 {
        return Err(Failure::NoHistory { id: reader.spec().id.clone(), document: args.document });
    }
    Ok(())
}
