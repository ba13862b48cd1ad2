//! Values of the change-data-capture system: ids, events, records, cursors, batches, marks, wire JSON and typed
//! SQLite values.
//!
//! Every other crate speaks in these types. This crate does no I/O, knows no database and no network, awaits
//! nothing, and reads neither clock nor randomness except through [`Clock`] and [`Entropy`], which callers hand in.
//!
//! ```
//! use cdc_model::{changed_fields, ChangeEvent, Cursor};
//! use serde_json::json;
//!
//! let event: ChangeEvent = serde_json::from_value(json!({
//!     "id": "018d0a7e-f200-8001-8000-00000000abcd",
//!     "operation": "UPDATE", "collection": "customers", "documentId": "42",
//!     "timestamp": 1705276800000_i64, "sequence": 7, "source": "https://crm.headless.ly/acme",
//!     "before": {"name": "Ada", "tier": "free"}, "after": {"name": "Ada", "tier": "pro"},
//!     "changedFields": ["tier"],
//! }))?;
//! let (before, after) = (event.change.before().unwrap(), event.change.after().unwrap());
//! assert_eq!(changed_fields(before, after), event.change.changed_fields());
//! assert_eq!("1000".parse::<Cursor>().unwrap().sequence.get(), 1000);
//! # Ok::<(), serde_json::Error>(())
//! ```

mod ambient;
pub use ambient::{Clock, Entropy};
mod body;
pub use body::{Body, ChangeBody, Content, RawChange};
mod checkpoint;
pub use checkpoint::{Checkpoint, FenceToken, Subscriber};
mod cloudevents;
pub use cloudevents::to_cloudevent;
mod columns;
pub use columns::BodyColumns;
mod debezium;
pub use debezium::to_debezium;
mod digest;
pub use digest::{Digest, Mark, Position};
mod document_id;
pub use document_id::{KeyShape, changed_columns_json, changed_fields, document_id, document_key};
mod epoch;
pub use epoch::Epoch;
mod error;
pub use error::Error;
mod event;
pub use event::{Change, ChangeEvent, DerivedFrom, EventId, Operation, Tag, Transaction};
pub mod fault;
mod filter;
pub use filter::Filter;
mod fold;
pub use fold::{BrokenChain, Document, Fold};
mod hop;
pub use hop::{Answer, Batch, Received, Refusal, admit};
mod json;
pub use json::push_json_string;
mod object_id;
pub use object_id::{FILE_NAME_BYTES_MAX, ObjectId};
mod position;
pub use position::{Cursor, Sequence, Timestamp};
mod record;
pub use record::{Origin, Record};
mod remedy;
pub use remedy::Remedy;
mod schema;
pub use schema::{ColumnChange, JsonText, SchemaChange, SchemaColumn};
mod value;
pub use value::{Value, ValueRef, row_from_json};
