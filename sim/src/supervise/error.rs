use std::io;
use std::path::PathBuf;

/// Why the supervisor could not do its work; what it finds in runs is a report, not an error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Error {
    /// A file or folder could not be read or written.
    #[error("{}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file holds something else than a plan.
    #[error("{} holds no plan; `sim plan --seed 1` prints one", path.display())]
    Plan {
        /// The file.
        path: PathBuf,
        /// Where it ends to be one.
        source: serde_json::Error,
    },
    /// The system does not let us listen to its signals.
    #[error("an interrupt could not be listened for")]
    Signal {
        /// What the system said.
        source: io::Error,
    },
    /// The command line asks for what this build cannot do.
    #[error("{what}")]
    Request {
        /// What, and what to do.
        what: String,
    },
}
