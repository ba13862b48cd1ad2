use cdc::{Project, Reader, Tokio};

use crate::args::{Global, Tuning};
use crate::failure::Failure;
use crate::output::Output;
use crate::project::{self, Target};

/// What every command works with.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) global: Global,
    pub(crate) env: Tokio,
    pub(crate) out: Output,
}

impl Session {
    pub(crate) fn new(global: Global) -> Self {
        let env = Tokio::current();
        let out = Output::new(&global, cdc::Env::clock(&env));
        Self { global, env, out }
    }

    /// The project of the folder the command was told.
    pub(crate) fn project(&self) -> Result<Project, Failure> {
        project::open(&self.global, &Tuning::default())
    }

    /// A reader of an object that exists.
    pub(crate) async fn reader(&self, target: &Target) -> Result<Reader, Failure> {
        let project = self.project()?;
        let spec = target.find(&project)?;
        Ok(project.reader(&self.env, &spec.id).await?)
    }
}
