//! The commands, each in a module with its name.

mod archive;
mod attach;
mod checkpoint;
mod completions;
mod create;
mod demo;
mod detach;
mod fold;
mod follow;
mod history;
mod init;
mod prune;
mod replay;
mod run;
mod serve;
mod tail;
mod tree;
mod verify;
mod watch;

use clap::Subcommand;

use crate::failure::Failure;
use crate::session::Session;
use crate::signals::Signals;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Watch(watch::Args),
    Demo(demo::Args),
    Init(init::Args),
    Create(create::Args),
    Attach(attach::Args),
    Detach(detach::Args),
    Run(run::Args),
    Serve(serve::Args),
    Tail(tail::Args),
    Replay(replay::Args),
    Fold(fold::Args),
    History(history::Args),
    Checkpoint(checkpoint::Args),
    Archive(archive::Args),
    Prune(prune::Args),
    Tree(tree::Args),
    Verify(verify::Args),
    Completions(completions::Args),
}

impl Command {
    /// Does what the command line asks for.
    pub(crate) async fn run(self, session: &mut Session, signals: &mut Signals) -> Result<(), Failure> {
        if !self.prints_events() {
            session.out.check_no_event_format()?;
        }
        let work: Work<'_> = match self {
            // These run until they are stopped, and end in order.
            Self::Watch(args) => return Box::pin(watch::run(args, session, signals)).await,
            Self::Run(args) => return Box::pin(run::run(args, session, signals)).await,
            Self::Serve(args) => return Box::pin(serve::run(args, session, signals)).await,
            Self::Tail(args) if args.follow => return Box::pin(tail::follow(args, session, signals)).await,
            Self::Tail(args) => Box::pin(tail::run(args, session)),
            Self::Init(args) => return init::run(&args, session),
            Self::Create(args) => return create::run(&args, session),
            Self::Detach(args) => return detach::run(&args, session),
            Self::Completions(args) => return completions::run(&args, session),
            Self::Attach(args) => Box::pin(attach::run(args, session)),
            Self::Demo(args) => Box::pin(demo::run(args, session)),
            Self::Replay(args) => Box::pin(replay::run(args, session)),
            Self::Fold(args) => Box::pin(fold::run(args, session)),
            Self::History(args) => Box::pin(history::run(args, session)),
            Self::Checkpoint(args) => Box::pin(checkpoint::run(args, session)),
            Self::Archive(args) => Box::pin(archive::run(args, session)),
            Self::Prune(args) => Box::pin(prune::run(args, session)),
            Self::Tree(args) => Box::pin(tree::run(args, session)),
            Self::Verify(args) => Box::pin(verify::run(args, session)),
        };
        signals.until(work).await.unwrap_or(Err(Failure::Interrupted))
    }

    const fn prints_events(&self) -> bool {
        matches!(self, Self::Watch(_) | Self::Tail(_) | Self::Replay(_) | Self::History(_))
    }
}

type Work<'a> = std::pin::Pin<Box<dyn Future<Output = Result<(), Failure>> + 'a>>;
