use cdc_model::{Filter, Record};

use super::{Outcome, Stage, StageError, StageState, Verdict};

/// A stage that lets only some events go on.
#[derive(Clone, Debug)]
pub struct FilterStage {
    name: String,
    filter: Filter,
}

impl FilterStage {
    /// A stage that keeps back whatever `filter` does not pass.
    pub fn new(name: impl Into<String>, filter: Filter) -> Self {
        Self { name: name.into(), filter }
    }
}

impl Stage for FilterStage {
    fn name(&self) -> &str {
        &self.name
    }

    fn apply(&self, _: &mut StageState<'_>, record: &Record) -> Result<Outcome, StageError> {
        match self.filter.passes(record) {
            Ok(true) => Ok(Verdict::Forward.into()),
            Ok(false) => Ok(Verdict::Filtered.into()),
            Err(error) => Err(StageError::Rejected { reason: error.to_string() }),
        }
    }
}
