//! Cold tier: the log of an object as an Apache Iceberg table of Parquet files.
//!
//! An [`Archive`] is the last hop of an event. [`Archive::append`] takes a batch of the object's log and commits its
//! rows together with the position reached, so that a crash, a lost answer or a second archiver can neither lose nor
//! double a row. [`Archive::scan`] gives the records back in the order of the log, byte for byte, reading only files
//! whose bounds match. Any Iceberg reader can query the same tables.
//!
//! This crate spawns no task, reads no clock and draws no randomness of its own; they come in as [`Components`]. It
//! is not a general Iceberg writer: it appends one schema, and it neither reads nor writes row deletes.
//!
//! ```
//! use cdc_iceberg::{Archive, Components};
//! use cdc_model::{Batch, Body, Epoch, Mark, Origin, Position, Record, Sequence, Timestamp};
//! use futures_util::TryStreamExt;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let location = cdc_iceberg::Location::folder(folder.path());
//! # if false {
//! let location = "file:./warehouse".parse()?;
//! # let _: cdc_iceberg::Location = location;
//! # }
//! let id: cdc_model::ObjectId = "https://crm.headless.ly/acme".parse()?;
//! let mut archive = Archive::open(&location, &id, Components::system()).await?;
//!
//! let epoch = Epoch { number: 1, nonce: 7 };
//! let body = r#"{"operation":"INSERT","collection":"customers","documentId":"42","after":{"name":"Ada"}}"#;
//! let record = Record {
//!     sequence: Sequence::new(1),
//!     timestamp: Timestamp::new(1_705_276_800_000),
//!     epoch,
//!     origin: Origin::new(id.clone(), epoch, vec![]),
//!     origin_sequence: Sequence::new(1),
//!     origin_timestamp: Timestamp::new(1_705_276_800_000),
//!     body: Body::parse(body)?,
//! };
//! let through = record.position_after(Position::START);
//! let records = vec![record.clone()];
//! let batch = Batch { sender: id, generation: 1, epoch, after: Position::START, through, records, kept_back: 0 };
//! archive.append(&batch).await?;
//!
//! assert_eq!(archive.watermark(), Some(Mark::at(epoch, through)));
//! assert_eq!(archive.scan().after(Sequence::ZERO).stream().try_concat().await?, [record]);
//! # Ok(())
//! # }
//! ```

mod archive;
pub use archive::{Appended, Archive};
mod catalog;
mod data_file;
mod decode;
mod encode;
mod error;
pub use error::{Error, Result};
mod iceberg_io;
mod location;
pub use location::Location;
mod manifest;
mod mark;
mod merge;
mod parquet_io;
mod scan;
pub use scan::{Scan, ScanBuilder, ScanPlan};
mod retention;
mod schema;
mod select;
mod settings;
pub use settings::{Components, Settings};
mod snapshot;
mod status;
pub use status::Status;
mod storage;
pub use storage::Storage;
mod sweep;
