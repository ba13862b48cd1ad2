use std::path::{Path, PathBuf};

use crate::args::Tuning;
use crate::demo::{DemoOptions, demo};
use crate::failure::Failure;
use crate::output::note;
use crate::project;
use crate::session::Session;

/// The demo's folder unless `--dir` names another.
const FOLDER: &str = "cdc-demo";

const EXAMPLES: &str = "\
Examples:
  cdc demo                                  20 tenants, 500 changes each, in ./cdc-demo
  cdc demo --dir /tmp/big --objects 200     more tenants, elsewhere
  cdc --dir cdc-demo tree                   look at what it left behind";

/// Build a hierarchy, write, propagate, archive, replay and check it all, in seconds
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Tenants
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=5000))]
    objects: u64,
    /// Changes in each tenant
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    events: u64,
    #[command(flatten)]
    tuning: Tuning,
}

pub(super) async fn run(args: Args, session: &mut Session) -> Result<(), Failure> {
    if session.global.dir == Path::new(".") {
        session.global.dir = PathBuf::from(FOLDER);
    }
    let folder = session.global.dir.clone();
    let occupied = std::fs::read_dir(&folder).is_ok_and(|mut entries| entries.next().is_some());
    if occupied || folder.is_file() {
        return Err(Failure::Usage {
            reason: format!("{} is not empty; the demo wants a folder of its own", folder.display()),
            help: "remove it, or name another with --dir",
        });
    }
    project::create(&session.global)?;
    let settings = project::open(&session.global, &args.tuning)?.settings().clone();
    let options = DemoOptions { folder, settings, objects: args.objects, events: args.events };
    let report = demo(&options, note).await?;
    session.out.write(&report.text)?;
    match report.difference {
        None => Ok(()),
        Some(difference) => Err(Failure::Difference { id: report.root, difference, objects: 1 }),
    }
}
