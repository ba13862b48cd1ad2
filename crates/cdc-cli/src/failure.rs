//! Why a command failed, how that is told, and the table from errors to exit codes.

use std::error::Error as StdError;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use cdc::{ArchiveError, Damage, HttpError, LogError, ObjectId, ReplayError};

use crate::args::DocumentName;
use crate::output::{self, Paint};

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Success = 0,
    Failure = 1,
    Usage = 2,
    NotFound = 3,
    Difference = 4,
    Conflict = 5,
    CursorExpired = 6,
    Unreachable = 7,
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        #[expect(clippy::as_conversions, reason = "the discriminants are the codes")]
        Self::from(exit as u8)
    }
}

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Cdc(#[from] cdc::Error),
    #[error("there is no project in {folder}: it has no cdc.toml")]
    NoProject { folder: PathBuf },
    #[error("there is a project already: {path}")]
    ProjectExists { path: PathBuf },
    #[error("{path}, line {line}, column {column}: {message}\n{excerpt}")]
    Settings { path: PathBuf, line: usize, column: usize, message: String, excerpt: String },
    #[error("{reason}")]
    Usage { reason: String, help: &'static str },
    #[error("{path} is not attached in this project")]
    NotAttached { path: PathBuf },
    #[error("{id} is taken: {}", database.as_ref().map_or(
        "it is an object without a database".to_owned(),
        |database| format!("it is attached to {}", database.display()),
    ))]
    IdTaken { id: ObjectId, database: Option<PathBuf> },
    #[error("{id} has no checkpoint {name:?}")]
    NoCheckpoint { id: ObjectId, name: String },
    #[error("the history of {id} has no event of {document}")]
    NoHistory { id: ObjectId, document: DocumentName },
    #[error("{id} has no archive: {}", root.as_ref().map_or(
        "nothing was archived yet".to_owned(),
        |root| format!("its events are archived at its root, {root}"),
    ))]
    NoArchive { id: ObjectId, root: Option<ObjectId> },
    #[error("{id}: {difference}")]
    Difference { id: ObjectId, difference: String, objects: usize },
    #[error("not everything could be done:\n{}", reasons.join("\n"))]
    Incomplete { reasons: Vec<String>, exit: Exit },
    #[error("the state of {document} is not JSON")]
    Document { document: String, source: serde_json::Error },
    #[error("{path} could not be {action}")]
    File { path: PathBuf, action: &'static str, source: io::Error },
    #[error("stdout could not be written")]
    Output { source: io::Error },
    #[error("the process could not be set up")]
    Runtime { source: io::Error },
    #[error("interrupted")]
    Interrupted,
    /// Whoever read stdout went away, as `head` does.
    #[error("stdout was closed")]
    ClosedPipe,
}

impl From<cdc::ValueError> for Failure {
    fn from(error: cdc::ValueError) -> Self {
        Self::Cdc(error.into())
    }
}

impl Failure {
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Cdc(error) => of_cdc(error).0,
            Self::NoProject { .. }
            | Self::NotAttached { .. }
            | Self::NoCheckpoint { .. }
            | Self::NoHistory { .. }
            | Self::NoArchive { .. } => Exit::NotFound,
            Self::ProjectExists { .. } | Self::IdTaken { .. } => Exit::Conflict,
            Self::Settings { .. } | Self::Usage { .. } => Exit::Usage,
            Self::Difference { .. } => Exit::Difference,
            Self::File { source, .. } if source.kind() == io::ErrorKind::NotFound => Exit::NotFound,
            Self::Incomplete { exit, .. } => *exit,
            Self::Document { .. } | Self::File { .. } | Self::Output { .. } | Self::Runtime { .. } => {
                Exit::Failure
            }
            Self::Interrupted => Exit::Interrupted,
            Self::ClosedPipe => Exit::Success,
        }
    }

    /// What to do about it, where the text does not say so already.
    fn help(&self) -> Option<String> {
        Some(match self {
            Self::Cdc(error) => return help(error).map(str::to_owned),
            Self::NoProject { folder } => format!(
                "`cdc init` makes one here; `--dir` or CDC_DIR names another folder than {}",
                folder.display()
            ),
            Self::ProjectExists { .. } => "edit it, or choose another folder with --dir".to_owned(),
            Self::Settings { path, .. } => {
                format!(
                    "correct the line; `cdc init --dir SOMEWHERE` writes a {} to compare with",
                    path_name(path)
                )
            }
            Self::Usage { help, .. } => (*help).to_owned(),
            Self::NotAttached { path } => {
                format!(
                    "`cdc attach {} --id ID` attaches it, `cdc tree` lists what is attached",
                    path.display()
                )
            }
            Self::IdTaken { .. } => "choose another id; `cdc tree` lists those in use".to_owned(),
            Self::NoCheckpoint { id, .. } => {
                format!("`cdc checkpoint ls {}` lists those there are", id.short())
            }
            Self::NoHistory { id, document } => format!(
                "`cdc fold {} --collection {}` lists its documents; `cdc run` takes in what is new",
                id.short(),
                document.collection
            ),
            Self::NoArchive { root: Some(root), .. } => {
                format!("`cdc archive status {}` shows it", root.short())
            }
            Self::NoArchive { root: None, .. } => {
                "`cdc run` archives what an object without a parent receives".to_owned()
            }
            Self::Difference { objects, .. } if *objects > 1 => {
                format!(
                    "{objects} objects differ; this is the first. Keep the files as they are and look into it"
                )
            }
            Self::Difference { .. } => "keep the files as they are and look into it".to_owned(),
            Self::Incomplete { .. } => {
                "nothing is lost; once the cause is removed, the next `cdc run` goes on".to_owned()
            }
            Self::File { .. } => "check the path and the permissions".to_owned(),
            Self::Document { .. } => "`cdc verify` says more".to_owned(),
            Self::Output { .. } | Self::Runtime { .. } | Self::Interrupted | Self::ClosedPipe => return None,
        })
    }

    /// Tells stderr: what, why, and what to do.
    pub(crate) fn report(&self, paint: Paint) {
        if matches!(self, Self::Interrupted | Self::ClosedPipe) {
            return;
        }
        let mut text = format!("{} {self}", paint.red("error:"));
        let mut cause = self.source();
        while let Some(error) = cause {
            text.push_str(&format!("\n  {} {error}", paint.dim("because:")));
            cause = error.source();
        }
        if let Some(help) = self.help() {
            text.push_str(&format!("\n  {} {help}", paint.cyan("help:")));
        }
        output::note(&text);
    }
}

fn path_name(path: &std::path::Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// An error with its causes in one line, for a list of several.
pub(crate) fn in_one_line(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// What to do about an error of the engine, unless its text says so.
pub(crate) fn help(error: &cdc::Error) -> Option<&'static str> {
    of_cdc(error).1
}

/// What to do about a damaged file.
pub(crate) const fn help_of(damage: Damage) -> &'static str {
    match damage {
        Damage::Log => {
            "keep the files as they are and put .cdc back from a backup; what had left this log is at its parent: \
             `cdc replay PARENT --source ID` reads it there and in the archive"
        }
        Damage::Database => {
            "it was left as it is: restore it from a backup, or save what sqlite3's .recover finds; what was captured of it \
             is in its log: `cdc replay ID`, `cdc fold ID`"
        }
    }
}

/// What an error of the engine means here, and what to do about it unless its text says so.
type Meaning = (Exit, Option<&'static str>);

fn of_cdc(error: &cdc::Error) -> Meaning {
    use cdc::Error;
    match error {
        Error::Log(error) => of_log(error),
        Error::NotReopened { source, .. } => of_cdc(source),
        Error::Archive(error) => of_archive(error),
        Error::Replay(error) => of_replay(error),
        Error::Relay(_) => (Exit::Usage, Some("change it in cdc.toml or by its flag")),
        Error::Value(cdc::ValueError::ObjectId { .. } | cdc::ValueError::Parse { .. }) => (Exit::Usage, None),
        Error::UnknownObject { .. } => (Exit::NotFound, None),
        Error::UnknownParent { .. } => (
            Exit::NotFound,
            Some(
                "`cdc create ID` creates it; if another process serves it, name that in [remotes] of cdc.toml",
            ),
        ),
        Error::Elsewhere { .. } => {
            (Exit::Conflict, Some("if it is to be here, take it out of [remotes] in cdc.toml"))
        }
        Error::Http(error) => of_http(error),
        Error::NoArchive { .. } => (Exit::NotFound, None),
        Error::OtherParent { .. } => (
            Exit::Conflict,
            Some(
                "choose another id, or leave its parent and its database as they are; `cdc tree` shows them",
            ),
        ),
        Error::Circle { .. } => (Exit::Conflict, Some("choose a parent that is not below the object itself")),
        Error::InUse { .. } => (Exit::Conflict, None),
        Error::Copied { .. } => (
            Exit::Conflict,
            Some(
                "work in the original; if it is given up, remove its .cdc/home and the copy takes its place",
            ),
        ),
        Error::Attached { .. } => (Exit::Conflict, None),
        Error::NotAttached { .. } => (Exit::NotFound, Some("`cdc tree` shows which objects are attached")),
        Error::File { source, .. } if source.kind() == io::ErrorKind::NotFound => (Exit::NotFound, None),
        Error::File { .. } => (Exit::Failure, Some("check the path and the permissions")),
        Error::Damaged { .. } => (Exit::Failure, Some("restore the file from a backup")),
        Error::Stopped { .. } => {
            (Exit::Failure, Some("once the cause is removed, the next `cdc run` goes on"))
        }
        Error::Waiting { .. } => (Exit::Unreachable, Some("the next `cdc run` sends the rest")),
        Error::Deadline { .. } => (Exit::Failure, Some("the next `cdc run` sends the rest")),
        Error::Value(_) | Error::Sqlite(_) | Error::ShutDown | _ => (Exit::Failure, None),
    }
}

fn of_http(error: &HttpError) -> Meaning {
    match error {
        HttpError::NotLoopback { .. } => (Exit::Usage, None),
        HttpError::Listen { source, .. } if source.kind() == io::ErrorKind::AddrInUse => (
            Exit::Conflict,
            Some("another process listens there; --listen takes another address, 127.0.0.1:0 any free port"),
        ),
        HttpError::Listen { .. } | _ => (Exit::Failure, Some("name an address of this machine")),
    }
}

fn of_log(error: &LogError) -> Meaning {
    if let Some(damage) = error.damage() {
        return (Exit::Failure, Some(help_of(damage)));
    }
    match error {
        LogError::NotCommitted { source } => of_log(source),
        LogError::NotFound { .. } => (Exit::NotFound, Some("check the path")),
        LogError::NotADatabase { .. } => {
            (Exit::Failure, Some("name the database's main file, not its -wal or -journal"))
        }
        LogError::NotWritable { .. } => {
            (Exit::Failure, Some("name a file, and make it and its folder writable for this user"))
        }
        LogError::UnknownTable { .. } => {
            (Exit::NotFound, Some("name tables as the database does, or leave --tables out to capture all"))
        }
        LogError::UnsupportedTable { .. } => (Exit::Failure, Some("leave the table out of --tables")),
        LogError::AnotherObject { .. } => (
            Exit::Conflict,
            Some("use that id, `cdc detach` it there first, or --force it if that log is lost"),
        ),
        LogError::DrainedElsewhere { .. } => (
            Exit::Conflict,
            Some(
                "if that log is lost, put it back from a backup; `cdc detach DB --force` takes its capture out, and what it had not drained",
            ),
        ),
        LogError::IsALog { .. } => (Exit::Usage, None),
        LogError::LogRewound { .. } => (
            Exit::Failure,
            Some(
                "put the newest copy of .cdc back, or `cdc detach DB --force` and attach anew under another id",
            ),
        ),
        LogError::BelowFloor { .. } => {
            let help = "a replay reads the archive too; a subscriber begins at the floor once `cdc checkpoint set OBJECT NAME` \
                        has it one sequence before, a consumer with `from_floor`";
            (Exit::CursorExpired, Some(help))
        }
        LogError::BeyondTail { .. } => {
            (Exit::Usage, Some("choose a position up to the end; `cdc tree` shows where it is"))
        }
        LogError::CheckpointBackwards { .. } => (Exit::Conflict, Some("--force sets it back all the same")),
        LogError::CheckpointEpoch { .. } => (
            Exit::CursorExpired,
            Some("`cdc checkpoint set OBJECT NAME SEQUENCE --force` sets it in this log; 0 takes all of it"),
        ),
        LogError::CheckpointMoved { .. } => (Exit::Conflict, None),
        LogError::CheckpointFenced { .. } => (
            Exit::Conflict,
            Some("give its --token, `cdc checkpoint take` it over, or --force it as an operator"),
        ),
        LogError::Sqlite(_) if error.is_busy() => {
            (Exit::Failure, Some("another program holds the database's lock; try again when it has let go"))
        }
        LogError::NetworkFileSystem { .. } | LogError::Utf16 { .. } | _ => (Exit::Failure, None),
    }
}

fn of_archive(error: &ArchiveError) -> Meaning {
    match error {
        ArchiveError::UnsupportedLocation { .. } => {
            (Exit::Usage, Some("it is named by --warehouse, by CDC_WAREHOUSE or in cdc.toml"))
        }
        ArchiveError::NotFound { .. } => (Exit::NotFound, None),
        ArchiveError::Storage { retryable: true, .. }
        | ArchiveError::Unclear { .. }
        | ArchiveError::Contended { .. } => (Exit::Unreachable, Some("try again later")),
        ArchiveError::NotATable { .. } | _ => (Exit::Failure, None),
    }
}

fn of_replay(error: &ReplayError) -> Meaning {
    match error {
        ReplayError::Source { source, .. } => match source.downcast_ref::<cdc::Error>() {
            Some(error) => of_cdc(error),
            None => (Exit::Failure, None),
        },
        ReplayError::BelowFloor { .. } => (
            Exit::CursorExpired,
            Some(
                "start at that sequence; parents, if it has any, keep what came before: `cdc replay PARENT`, `cdc fold PARENT --source ID`",
            ),
        ),
        ReplayError::Rewound { .. } => {
            (Exit::CursorExpired, Some("go on after that sequence; what came later in the old epoch is void"))
        }
        ReplayError::BeyondTail { .. } => {
            (Exit::Usage, Some("choose a position up to the end; `cdc tree` shows where it is"))
        }
        ReplayError::FoldByOperation => (Exit::Usage, None),
        ReplayError::Gap { .. } | ReplayError::Diverged { .. } => {
            (Exit::Failure, Some("`cdc verify` says more"))
        }
        ReplayError::Contract { .. } | ReplayError::Record { .. } | _ => (Exit::Failure, None),
    }
}
