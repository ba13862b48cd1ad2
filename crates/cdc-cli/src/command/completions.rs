use clap::CommandFactory as _;

use crate::args::Cli;
use crate::failure::Failure;
use crate::session::Session;

const EXAMPLES: &str = "\
Examples:
  cdc completions bash > /etc/bash_completion.d/cdc
  cdc completions zsh > ~/.zfunc/_cdc
  cdc completions fish > ~/.config/fish/completions/cdc.fish";

/// Print a script that completes commands and options in a shell
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The shell
    shell: clap_complete::Shell,
}

pub(super) fn run(args: &Args, session: &mut Session) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "cdc", &mut script);
    session.out.write(&String::from_utf8_lossy(&script))
}
