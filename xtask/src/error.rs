//! What keeps a task from doing its work; findings of a task are exit codes, not errors.

use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;

/// Why a task could not be carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A file or folder could not be read, made or removed.
    #[error("{}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A program could not be started at all.
    #[error("`{program}` does not start; is it installed?")]
    Start {
        /// The program.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// A program that has to succeed did not.
    #[error("`{command}` failed with exit code {code}")]
    Failed {
        /// The command line.
        command: String,
        /// Its exit code; 1 if a signal ended it.
        code: u8,
    },
    /// A program answered something that cannot be read.
    #[error("`{command}` answered something unexpected: {what}")]
    Answer {
        /// The command line.
        command: String,
        /// What is wrong with its answer.
        what: String,
    },
    /// A file of the repository lacks what a task takes from it.
    #[error("{path}: {what}")]
    Content {
        /// The file, from the root.
        path: String,
        /// What is missing or wrong, and what to do.
        what: String,
    },
    /// The command line asks for something that does not exist.
    #[error("{what}")]
    Request {
        /// What does not exist, and what does.
        what: String,
    },
}

/// An error and its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        write!(line, ": {source}").expect("a String takes every write");
        cause = source.source();
    }
    line
}
