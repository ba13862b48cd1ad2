//! Change data capture for fleets of SQLite objects: the engine and its facade.
//!
//! A [`Cdc`] owns a folder of objects, each with its own SQLite database. Every change of a captured table becomes
//! an event in the same transaction, flows up the object's `$context` chain, is archived as Parquet in an Apache
//! Iceberg table at the root, and can be replayed from any cursor or moment.
//!
//! ```
//! use cdc::{Cdc, Change, Filter, params};
//! use futures_util::TryStreamExt;
//! use serde_json::{Value, json};
//!
//! # #[tokio::main]
//! # async fn main() -> cdc::Result<()> {
//! # let folder = tempfile::tempdir().unwrap();
//! # let folder = folder.path().join("data");
//! # if false {
//! let folder = "./data";
//! # let _ = folder;
//! # }
//! let cdc = Cdc::builder(folder).archive("file:./warehouse").open().await?;
//! let root = cdc.object("https://startups.studio").open().await?;
//! let saas = cdc.object("https://crm.headless.ly").context(root.id()).open().await?;
//! let acme = cdc.object("https://crm.headless.ly/acme").context(saas.id())
//!     .migrate("CREATE TABLE IF NOT EXISTS customers(id TEXT PRIMARY KEY, name TEXT, tier TEXT)")
//!     .capture(["customers"])
//!     .open().await?;
//!
//! // The change and its event commit together, off the async workers. Ok means durable.
//! acme.write(|tx| {
//!     tx.execute("INSERT INTO customers VALUES ('42', 'Ada', 'free')", [])?;
//!     tx.execute("UPDATE customers SET tier = 'pro' WHERE id = ?1", params!["42"])?;
//!     tx.emit(&Change::update("notes", "n1", &json!({"done": false}), &json!({"done": true}))?)?;
//!     Ok(())
//! }).await?;
//!
//! // A parent counts what its children do: the seed's onChildEvent, exact through crashes.
//! # let root_for_totals = cdc.object("https://startups.studio").migrate("CREATE TABLE totals(n)").open().await?;
//! # root_for_totals.write(|tx| Ok(tx.execute_batch("INSERT INTO totals VALUES (0)")?)).await?;
//! acme.flush().await?; // until the root has stored it
//! let mut batches = root.reader().await?.replay().from_start().filter(Filter::collection("customers")).stream();
//! let mut seen = vec![];
//! while let Some(batch) = batches.try_next().await? {
//!     for record in &batch.records {
//!         let event = record.event::<Value>()?.expect("a change");
//!         seen.push((event.change.operation().as_str(), event.change.after().map(|row| row["tier"].clone())));
//!     }
//!     root.checkpoint("my-processor").save(batch.cursor).await?;
//! }
//! assert_eq!(seen, [("INSERT", Some(json!("free"))), ("UPDATE", Some(json!("pro")))]);
//!
//! // Exactly once: the effect and the checkpoint commit in one transaction.
//! root.consume("totals", |tx, records| {
//!     tx.execute("UPDATE totals SET n = n + ?1", [records.len()])?;
//!     Ok(())
//! }).run().await?;
//! cdc.shutdown(cdc::Deadline::secs(10)).await
//! # }
//! ```

mod archiver;
mod auditor;
mod backfill;
mod ballast;
pub use backfill::Backfill;
mod drainer;
mod engine;
pub use engine::{Cdc, CdcBuilder, Deadline};
mod error;
pub use error::{Error, Result};
mod handles;
mod intake;
mod lane;
mod node;
mod object;
pub use object::{Object, ObjectBuilder};
mod project;
pub use project::{AttachOptions, Opening, Project};
mod pruner;
mod reader;
pub use reader::{LogStatus, Reader, ReplayBuilder};
mod registry;
pub use registry::{AttachedSpec, ObjectSpec, object_folder};
mod settings;
pub use settings::{
    ArchiveSettings, AuditSettings, CaptureSettings, DiskSettings, HandleSettings, RetentionSettings,
    Settings, Trim,
};
mod shared;
pub use shared::Trouble;
mod sharing;
mod slot;
mod subscriber;
pub use subscriber::{CheckpointHandle, Consumer};
mod tiers;
mod uplink;
mod verify;
pub use verify::Verified;

pub use cdc_iceberg::{Error as ArchiveError, Status as ArchiveStatus};
pub use cdc_log::{AttachReport, Damage, DeadLetter, Durability, Error as LogError, Installed, Limit};
pub use cdc_log::{Emit as Change, Tables, Tx};
pub use cdc_log::{Holder, Loss, Losses, Pruned, Remaining, Remover, Retention, Save};
pub use cdc_model::Change as EventChange;
pub use cdc_model::{
    ChangeBody, Checkpoint, Clock, Content, Cursor, Error as ValueError, FenceToken, Filter, Fold, ObjectId,
    Operation, Record, Remedy, SchemaChange, Sequence, Subscriber, Tag, Timestamp, to_cloudevent,
    to_debezium,
};
pub use cdc_net::{Env, HttpError, Tokio, Watch};
pub use cdc_relay::{
    Aggregate, Emit as StageEmit, Error as RelayError, FilterStage, LinkOptions, Outcome, Stage, StageError,
    StageState, Verdict,
};
pub use cdc_replay::{Error as ReplayError, Folded, Progress, ReplayBatch, Until};
pub use rusqlite::params;
