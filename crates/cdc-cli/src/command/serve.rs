use std::net::SocketAddr;

use super::run;
use crate::args::Tuning;
use crate::failure::Failure;
use crate::output::note;
use crate::project;
use crate::session::Session;
use crate::signals::Signals;

const EXAMPLES: &str = "\
Examples:
  cdc serve                                  until stopped
  cdc serve --listen 127.0.0.1:0             at a free port, which it tells

A parent in one process and its child in another, each with a folder of its own:
  cdc init --dir above
  cdc create crm.headless.ly --dir above
  cdc serve --dir above &
  cdc init --dir below
  echo '\"https://crm.headless.ly\" = \"127.0.0.1:7410\"' >> below/cdc.toml
  cdc attach app.db --id crm.headless.ly/acme --context crm.headless.ly --dir below
  cdc run --dir below

The last section of a new cdc.toml is [remotes], which says who is where. Either process may be stopped and started at any time: what a child cannot send waits in its log. Only addresses of this machine \
are listened on, because whoever connects is not asked who it is.";

/// Run, and take the events of children that other processes on this machine run
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Where to listen
    #[arg(
        long,
        env = "CDC_LISTEN",
        hide_env_values = true,
        value_name = "ADDRESS",
        default_value = "127.0.0.1:7410"
    )]
    listen: SocketAddr,
    #[command(flatten)]
    tuning: Tuning,
}

pub(super) async fn run(args: Args, session: &Session, signals: &mut Signals) -> Result<(), Failure> {
    let project = project::open(&session.global, &args.tuning)?;
    let cdc = run::engine(&project).await?;
    // Before anything is opened: who asks for an object too early asks again.
    let address = cdc.listen(args.listen).await?;
    note(&format!("listening on {address}"));
    run::on(session, signals, cdc).await
}
