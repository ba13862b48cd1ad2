//! Change data capture for fleets of SQLite objects: the engine and its facade.

mod archiver;
mod drainer;
mod engine;
pub use engine::{Cdc, CdcBuilder, Deadline};
mod error;
pub use error::{Error, Result};
mod intake;
mod lane;
mod node;
mod object;
pub use object::{CheckpointHandle, Consumer, Object, ObjectBuilder};
mod project;
pub use project::{AttachOptions, Project};
mod registry;
pub use registry::{AttachedSpec, ObjectSpec};
mod settings;
pub use settings::{ArchiveSettings, Settings};
mod shared;
pub use shared::Trouble;
mod tiers;
mod uplink;
mod verify;
pub use verify::Verified;
mod wake;

pub use cdc_log::{Emit as Change, Tables, Tx};
pub use cdc_model::{
    Checkpoint, Clock, Cursor, Filter, Fold, ObjectId, Operation, Record, Sequence, Tag, Timestamp,
    to_cloudevent, to_debezium,
};
pub use cdc_net::{Env, Tokio};
pub use cdc_relay::{Aggregate, FilterStage, LinkOptions, Stage};
pub use rusqlite::params;
