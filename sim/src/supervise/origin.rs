//! Where a report comes from.

use std::process::Command;
use std::time::SystemTime;

use super::options::{SwarmOptions, cores, jobs};
use super::report::Origin;

/// This checkout, this machine, this command, this time.
pub(super) fn of_this_run(options: &SwarmOptions) -> Origin {
    let began = jiff::Timestamp::try_from(SystemTime::now()).unwrap_or_default();
    let command = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
    Origin {
        commit: git(&["rev-parse", "HEAD"]).unwrap_or_else(|| "unknown".to_owned()),
        dirty: git(&["status", "--porcelain"]).is_none_or(|changes| !changes.is_empty()),
        command: format!("sim {command}"),
        began: format!("{:.0}", began.round(jiff::Unit::Second).unwrap_or(began)),
        cores: cores(),
        jobs: jobs(options.jobs),
        faults_in_code: cdc_model::fault::ENABLED,
        runners: options.runner.0.iter().map(|runner| runner.name().to_owned()).collect(),
        scenario: options.scenario.name().to_owned(),
        first_seed: options.first_seed(),
    }
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
