use std::net::SocketAddr;
use std::path::PathBuf;

use cdc_log::Damage;
use cdc_model::{ObjectId, Remedy, Sequence};

/// What an operation of this crate gives back.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why the engine did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The hot tier refused.
    #[error(transparent)]
    Log(#[from] cdc_log::Error),
    /// The cold tier refused.
    #[error(transparent)]
    Archive(#[from] cdc_iceberg::Error),
    /// A replay could not go on.
    #[error(transparent)]
    Replay(#[from] cdc_replay::Error),
    /// A link's settings or a stage's name are not acceptable.
    #[error(transparent)]
    Relay(#[from] cdc_relay::Error),
    /// An address cannot be listened on, or not be connected to.
    #[error(transparent)]
    Http(#[from] cdc_net::HttpError),
    /// A value from outside does not decode.
    #[error(transparent)]
    Value(#[from] cdc_model::Error),
    /// SQLite refused a statement.
    #[error("SQLite refused")]
    Sqlite(#[source] rusqlite::Error),
    /// The object's files were closed to make room for others, and cannot be opened again just now.
    #[error("the files of {id} were closed while nobody used them and cannot be opened again")]
    NotReopened {
        /// The object.
        id: ObjectId,
        /// Why.
        source: Box<Self>,
    },
    /// There is no such object here.
    #[error("there is no object {id} in {folder}; `cdc tree` lists those there are")]
    UnknownObject {
        /// The object asked for.
        id: ObjectId,
        /// The project's folder.
        folder: PathBuf,
    },
    /// The parent must be created first.
    #[error("the parent {context} of {id} does not exist here; create it first")]
    UnknownParent {
        /// The object.
        id: ObjectId,
        /// The `$context` it names.
        context: ObjectId,
    },
    /// The object has another `$context` than asked for.
    #[error("{id} exists already, {}", found.as_ref().map_or("without a parent".to_owned(), |found| format!("below {found}")))]
    OtherParent {
        /// The object.
        id: ObjectId,
        /// The parent it has.
        found: Option<ObjectId>,
    },
    /// The `$context` would close a circle.
    #[error("this $context closes a circle: {}", circle.iter().map(ObjectId::short).collect::<Vec<_>>().join(" -> "))]
    Circle {
        /// The objects of the circle, the first again at the end.
        circle: Vec<ObjectId>,
    },
    /// Another process works on this project.
    #[error("another process works on {folder}; stop it first (it holds {lock})")]
    InUse {
        /// The project's folder.
        folder: PathBuf,
        /// The lock file.
        lock: PathBuf,
    },
    /// The folder is a copy of a project that is still there.
    #[error("{folder} is a copy of the project in {original}: both would drain the same databases")]
    Copied {
        /// The folder.
        folder: PathBuf,
        /// The project it was copied from.
        original: PathBuf,
    },
    /// A file of the project could not be read or written.
    #[error("{path} could not be {action}")]
    File {
        /// The file.
        path: PathBuf,
        /// `read` or `written`.
        action: &'static str,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// A file of the project does not decode.
    #[error("{path} is damaged")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// Writing needs a database that the engine owns.
    #[error("{id} is attached to {database}: its application writes it, not the engine")]
    Attached {
        /// The object.
        id: ObjectId,
        /// Its database.
        database: PathBuf,
    },
    /// The object has no database of an application.
    #[error("{id} is not attached to a database")]
    NotAttached {
        /// The object.
        id: ObjectId,
    },
    /// A link or an archive does not go on by itself.
    #[error("{id}: {what} has stopped: {reason}")]
    Stopped {
        /// The object.
        id: ObjectId,
        /// Its `link` or `archive` or `drain`.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// A link or an archive cannot go on just now; it is tried again without being asked.
    #[error("{id}: {what} waits: {reason}")]
    Waiting {
        /// The object.
        id: ObjectId,
        /// Its `link` or `archive` or `drain`.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// The object is another process's, as [`Settings::remotes`](crate::Settings::remotes) says.
    #[error("{id} is served by another process, at {address}: it is one of the remotes of this project")]
    Elsewhere {
        /// The object.
        id: ObjectId,
        /// Where it is served.
        address: SocketAddr,
    },
    /// The deadline passed before everything under way was done. Nothing is lost.
    #[error("the deadline passed at sequence {done} of {wanted} of {id}")]
    Deadline {
        /// The object waited for.
        id: ObjectId,
        /// How far it got.
        done: Sequence,
        /// How far it was to get.
        wanted: Sequence,
    },
    /// No archive is configured, or the object has none.
    #[error("{id} has no archive")]
    NoArchive {
        /// The object.
        id: ObjectId,
    },
    /// The caller's own code panicked inside a write, a consumer or a stage. Nothing of it was written.
    #[error("the work given to the object panicked: {message}")]
    Panicked {
        /// What it said.
        message: String,
    },
    /// The disk is full, or was until a moment ago: nothing new is taken until there is room again.
    #[error("the disk of {folder} is full; writes are taken again some seconds after there is room")]
    DiskFull {
        /// The project's folder.
        folder: PathBuf,
    },
    /// The engine was shut down.
    #[error("the engine was shut down")]
    ShutDown,
}

impl Error {
    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Log(error) => error.remedy(),
            Self::Archive(error) => error.remedy(),
            Self::Replay(error) => error.remedy(),
            Self::Relay(error) => error.remedy(),
            // Files that were open may be short of descriptors or of a disk that answers. Others come in their place only
            // by damage.
            Self::NotReopened { source, .. } => {
                if source.remedy() == Remedy::Restore {
                    Remedy::Restore
                } else {
                    Remedy::Retry
                }
            }
            Self::Deadline { .. } | Self::Waiting { .. } | Self::DiskFull { .. } => Remedy::Retry,
            Self::InUse { .. } | Self::Copied { .. } => Remedy::Fenced,
            Self::Damaged { .. } | Self::Stopped { .. } => Remedy::Restore,
            Self::Panicked { .. } => Remedy::Bug,
            Self::Value(_)
            | Self::Http(_)
            | Self::Sqlite(_)
            | Self::UnknownObject { .. }
            | Self::UnknownParent { .. }
            | Self::OtherParent { .. }
            | Self::Circle { .. }
            | Self::Elsewhere { .. }
            | Self::File { .. }
            | Self::Attached { .. }
            | Self::NotAttached { .. }
            | Self::NoArchive { .. }
            | Self::ShutDown => Remedy::FixRequest,
        }
    }
}

impl Error {
    /// In whose file what is stored is not what was written.
    #[must_use]
    #[expect(clippy::wildcard_enum_match_arm, reason = "the rest is no damage")]
    pub fn damage(&self) -> Option<Damage> {
        match self {
            Self::Log(error) => error.damage(),
            Self::NotReopened { source, .. } => source.damage(),
            _ => None,
        }
    }
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// Puts a path and an action on an I/O error.
pub(crate) fn file(path: &std::path::Path, action: &'static str) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::File { path, action, source }
}
