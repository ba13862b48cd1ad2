//! The `cdc` binary: change data capture for SQLite databases from the command line.
//!
//! Reads arguments, `CDC_*` and `cdc.toml`, calls the `cdc` crate, and renders what it gives back: data on stdout,
//! everything else on stderr. It decides nothing about capture, links or archives.

mod args;
mod command;
mod demo;
mod failure;
mod output;
mod project;
mod session;
mod signals;

use std::process::ExitCode;

use clap::Parser as _;

use crate::args::Cli;
use crate::failure::Failure;
use crate::output::Paint;
use crate::session::Session;
use crate::signals::Signals;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let paint = Paint::of_stderr(cli.global.color);
    output::log_to_stderr(&cli.global.log, paint);
    match start(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report(paint);
            failure.exit().into()
        }
    }
}

fn start(cli: Cli) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|source| Failure::Runtime { source })?;
    let done = runtime.block_on(async {
        let mut signals = Signals::listen().map_err(|source| Failure::Runtime { source })?;
        let mut session = Session::new(cli.global);
        let done = Box::pin(cli.command.run(&mut session, &mut signals)).await;
        let finished = session.out.finish();
        done.and(finished)
    });
    // Jobs that are still blocked on a disk must not keep the process.
    runtime.shutdown_background();
    done
}
