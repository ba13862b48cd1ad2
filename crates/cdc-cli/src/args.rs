//! The command line as a whole: global options, settings by flag, and what several commands parse alike.

use std::path::PathBuf;

use cdc::{Sequence, Settings, Timestamp, Until, ValueError};
use clap::{Args, Parser, ValueEnum};

use crate::command::Command;
use crate::output::Format;

const EXAMPLES: &str = "\
Examples:
  cdc watch app.db                        every change to a database as it happens
  cdc init && cdc attach app.db --id crm.headless.ly/acme && cdc run
                                          capture, propagate and archive
  cdc replay app.db --from-time 2026-01-15T12:00:00Z
                                          everything that happened since then

Data goes to stdout, everything else to stderr. Settings come from flags, then from CDC_* variables, then from \
cdc.toml.

Exit codes: 0 ok, 1 failure, 2 usage, 3 not found, 4 verification difference, 5 conflict, 6 cursor expired, \
7 unreachable, 130 interrupted.";

/// Change data capture for SQLite: every change captured, streamed up the hierarchy, archived, replayable.
#[derive(Debug, Parser)]
#[command(name = "cdc", version, after_help = EXAMPLES, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// The project's folder, which holds cdc.toml
    #[arg(
        long,
        global = true,
        env = "CDC_DIR",
        hide_env_values = true,
        value_name = "DIR",
        default_value = "."
    )]
    pub(crate) dir: PathBuf,
    /// How to print data: for people on a terminal, NDJSON in a pipe, unless said otherwise
    #[arg(short, long, global = true, env = "CDC_OUTPUT", hide_env_values = true, value_name = "FORMAT")]
    pub(crate) output: Option<Format>,
    /// Where objects without a parent archive: `file:./warehouse` or a path, relative to the project's folder
    #[arg(long, global = true, env = "CDC_WAREHOUSE", hide_env_values = true, value_name = "WAREHOUSE")]
    pub(crate) warehouse: Option<String>,
    /// Colours; NO_COLOR turns them off as well
    #[arg(long, global = true, env = "CDC_COLOR", hide_env_values = true, default_value = "auto")]
    pub(crate) color: Color,
    /// What the engine logs to stderr, such as `info` or `cdc=debug`
    #[arg(
        long,
        global = true,
        env = "CDC_LOG",
        hide_env_values = true,
        value_name = "FILTER",
        default_value = "warn"
    )]
    pub(crate) log: String,
}

/// When to colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Settings that a command which runs the engine takes as flags; they win over cdc.toml.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Settings (they win over cdc.toml)")]
pub(crate) struct Tuning {
    /// Most events in a batch to a parent
    #[arg(long, env = "CDC_BATCH_SIZE", hide_env_values = true, value_name = "N")]
    batch_size: Option<usize>,
    /// How long events may wait for a batch to fill up
    #[arg(long, env = "CDC_BATCH_TIMEOUT", hide_env_values = true, value_name = "MS")]
    batch_timeout: Option<u64>,
    /// How long events may wait to be archived
    #[arg(long, env = "CDC_ARCHIVE_INTERVAL", hide_env_values = true, value_name = "MS")]
    archive_interval: Option<u64>,
}

impl Tuning {
    pub(crate) fn apply(&self, settings: &mut Settings) {
        if let Some(batch_size) = self.batch_size {
            settings.link.batch_size = batch_size;
        }
        if let Some(batch_timeout) = self.batch_timeout {
            settings.link.batch_timeout_ms = batch_timeout;
        }
        if let (Some(archive), Some(interval)) = (&mut settings.archive, self.archive_interval) {
            archive.interval_ms = interval;
        }
    }
}

/// A position as people write it: a bare integer is a sequence, everything else a time.
pub(crate) fn moment(text: &str) -> Result<Until, ValueError> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
        return Ok(text.parse::<Sequence>()?.into());
    }
    Ok(text.parse::<Timestamp>()?.into())
}

/// A document as people write it: its collection, a slash and its id, which may have slashes of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DocumentName {
    pub(crate) collection: String,
    pub(crate) document_id: String,
}

impl std::str::FromStr for DocumentName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((collection, document_id)) if !collection.is_empty() && !document_id.is_empty() => {
                Ok(Self { collection: collection.to_owned(), document_id: document_id.to_owned() })
            }
            _ => Err("write its collection, a slash and its id, such as customers/42"),
        }
    }
}

impl std::fmt::Display for DocumentName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.collection, self.document_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn a_bare_integer_is_a_sequence_and_anything_else_a_time() {
        assert_eq!(moment("7").unwrap(), Until::Sequence(Sequence::new(7)));
        assert_eq!(moment("@7").unwrap(), Until::Time(Timestamp::new(7)));
        assert_eq!(moment("1970-01-01T00:00:01Z").unwrap(), Until::Time(Timestamp::new(1000)));
        for text in ["", "-1", "9223372036854775808", "yesterday"] {
            assert!(moment(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_document_id_may_have_slashes() {
        let name: DocumentName = "files/a/b".parse().unwrap();
        assert_eq!((name.collection.as_str(), name.document_id.as_str()), ("files", "a/b"));
        for text in ["", "customers", "/42", "customers/"] {
            assert!(text.parse::<DocumentName>().is_err(), "{text}");
        }
    }
}
