//! What executes a plan.

use std::str::FromStr;

use clap::ValueEnum;
use serde::Serialize;
use sim::{Failure, FaultPlan, Outcome};

/// One way to execute a plan; each process executes one plan in one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Runner {
    /// Our own executor, network and disk in one thread: the engine itself, with simulated I/O.
    Core,
    /// A tokio runtime for each process, and HTTP between them.
    #[cfg(madsim)]
    Turmoil,
    /// A node for each process, tasks in any order, and HTTP between them.
    #[cfg(madsim)]
    Madsim,
}

impl Runner {
    /// What the command line calls it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Core => "core",
            #[cfg(madsim)]
            Self::Turmoil => "turmoil",
            #[cfg(madsim)]
            Self::Madsim => "madsim",
        }
    }

    /// Executes a plan.
    pub(crate) fn run(self, plan: &FaultPlan) -> Result<Outcome, Box<Failure>> {
        match self {
            Self::Core => sim::core::run(plan),
            #[cfg(madsim)]
            Self::Turmoil => sim::turmoil::run(plan),
            #[cfg(madsim)]
            Self::Madsim => sim::madsim::run(plan),
        }
    }
}

/// Several runners: one by its name, or `all` that this build has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Runners(pub(crate) Vec<Runner>);

impl FromStr for Runners {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = Runner::value_variants();
        if text == "all" {
            return Ok(Self(all.to_vec()));
        }
        match all.iter().find(|runner| runner.name() == text) {
            Some(runner) => Ok(Self(vec![*runner])),
            None => {
                let names: Vec<&str> = all.iter().map(|runner| runner.name()).collect();
                Err(format!("this build has no such runner; give all or one of {}", names.join(", ")))
            }
        }
    }
}
