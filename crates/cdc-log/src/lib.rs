//! The hot tier of one object: capture by triggers, drain, and the log, over SQLite.
//!
//! A change of a captured table and its record commit in one transaction. Synchronous; no network, no Parquet, no
//! other object. The parent's side of a hop (marks per link and origin) and every subscriber's checkpoint live in
//! the same file as the log, so that an event and the mark that covers it commit together.
//!
//! ```
//! use cdc_log::{Emit, Limit, Log, Tables};
//! use cdc_model::{Clock, ObjectId, Sequence};
//!
//! # let folder = tempfile::tempdir()?;
//! let id: ObjectId = "https://crm.headless.ly/acme".parse()?;
//! let mut log = Log::open(folder.path().join("acme.db"), &id, &Clock::system())?;
//! log.write(|tx| tx.execute_batch("CREATE TABLE customers(id TEXT PRIMARY KEY, name TEXT, tier TEXT)"))?;
//! log.capture(&Tables::Named(vec!["customers".to_owned()]))?;
//!
//! log.write(|tx| {
//!     tx.execute("INSERT INTO customers VALUES ('42', 'Ada', 'free')", [])?;
//!     tx.execute("UPDATE customers SET tier = 'pro' WHERE id = '42'", [])?;
//!     tx.emit(&Emit::insert("notes", "n1", &"a document without a table")?)
//! })?;
//!
//! let changes: Vec<String> = log
//!     .read(Sequence::ZERO, Limit::default())?
//!     .iter()
//!     .filter_map(|record| record.event::<serde_json::Value>().transpose())
//!     .map(|event| event.map(|e| format!("{}/{} {}", e.collection, e.document_id, e.change.operation())))
//!     .collect::<Result<_, _>>()?;
//! assert_eq!(changes, ["customers/42 INSERT", "customers/42 UPDATE", "notes/n1 INSERT"]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod attached;
pub use attached::{AttachReport, Attached, Look};
mod capture;
pub use capture::{Installed, Tables};
mod checkpoint;
pub use checkpoint::{Remover, Save};
mod comparison;
pub use comparison::Remaining;
mod consume;
pub use consume::{Begin, Consumed, Subscription};
mod damage;
pub use damage::Damage;
mod detach;
mod documents;
mod drain;
pub use drain::Drained;
mod durability;
pub use durability::Durability;
mod emit;
pub use emit::Emit;
mod error;
pub use error::{Error, Result};
mod foreign;
pub use foreign::strip;
mod group;
pub use group::Group;
mod joint;
mod kept;
mod live;
mod log;
pub use log::Log;
mod owned;
pub use owned::Tx;
mod read;
pub use read::{Limit, RowRef};
mod restored;
mod retention;
pub use retention::{DeadLetter, Hold, Holder, Loss, Losses, Pruned, Retention};
mod schema;
mod seek;
mod store;
mod template;
mod transaction;
pub use transaction::{Link, LogTransaction};
mod trim;
pub use trim::Trimmed;
mod verify;
pub use verify::{CompareRows, RowDifference, Verified};
