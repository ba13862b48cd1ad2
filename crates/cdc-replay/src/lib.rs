//! Replay: a cold and a hot tier read as one history, from any position or moment, and folds of it.
//!
//! A [`Replay`] plans at the cold tier's watermark, reads cold and then hot, drops what both hold, filters while it
//! scans on, and answers with batches that each carry the cursor to go on after. A position that cannot be read is a
//! typed error that names where to go on, never an empty page. Tiers are seen only through [`Source`].
//!
//! This crate stores nothing, spawns nothing and reads no clock. A replay is finite: it ends at the tail as of its
//! start. To follow a log, keep the last cursor, wait until something was appended, and start the next replay after
//! it.
//!
//! ```
//! use std::convert::Infallible;
//! use cdc_model::{Body, Cursor, Epoch, Origin, Record, Sequence, Timestamp};
//! use cdc_replay::{Page, Replay, Scan, Source, Span};
//!
//! struct Memory(Vec<Record>);
//!
//! impl Source for Memory {
//!     type Error = Infallible;
//!     async fn span(&self) -> Result<Span, Infallible> {
//!         Ok(Span::of(&self.0))
//!     }
//!     async fn read(&self, scan: Scan<'_>) -> Result<Page, Infallible> {
//!         let wanted = self.0.iter().filter(|record| scan.wants(record.sequence));
//!         Ok(Page::Dense(wanted.take(scan.limit.records).cloned().collect()))
//!     }
//!     async fn seek(&self, time: Timestamp) -> Result<Option<Sequence>, Infallible> {
//!         Ok(self.0.iter().find(|record| record.timestamp >= time).map(|record| record.sequence))
//!     }
//! }
//!
//! # let (id, epoch) = ("https://crm.headless.ly/acme".parse()?, Epoch { number: 1, nonce: 7 });
//! # let origin = Origin::new(id, epoch, vec![]);
//! # let record = |n: u64| {
//! #     let body = r#"{"operation":"INSERT","collection":"notes","documentId":"ID","after":{}}"#;
//! #     let (sequence, timestamp) = (Sequence::new(n), Timestamp::new(1_705_276_800_000));
//! #     let body = Body::parse(&body.replace("ID", &n.to_string())).unwrap();
//! #     let (origin_sequence, origin_timestamp) = (sequence, timestamp);
//! #     Record { sequence, timestamp, epoch, origin: origin.clone(), origin_sequence, origin_timestamp, body }
//! # };
//! # futures_util::FutureExt::now_or_never(async {
//! let (cold, hot) = (Memory((1..=999).map(record).collect()), Memory((900..=1025).map(record).collect()));
//! let mut replay = Replay::new().cold(&cold).hot(&hot).after(Cursor::after(Sequence::new(990))).start().await?;
//! let mut sequences = vec![];
//! while let Some(batch) = replay.try_next().await? {
//!     sequences.extend(batch.records.iter().map(|record| record.sequence.get()));
//!     assert_eq!(batch.cursor.sequence.get(), *sequences.last().unwrap());
//! }
//! assert_eq!(sequences, Vec::from_iter(991..=1025));
//!
//! let folded = Replay::new().cold(&cold).hot(&hot).until(Sequence::new(1000)).fold().await?;
//! assert_eq!(folded.documents.len(), 1000);
//! # Ok::<(), cdc_replay::Error>(())
//! # }).unwrap()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod audit;
pub use audit::{Audit, FINDINGS_MAX, Finding, audit};
mod error;
pub use error::{Error, Result};
mod fold;
pub use fold::{Break, Folded, fold};
mod page;
mod progress;
pub use progress::Progress;
mod replay;
pub use replay::{Replay, Until};
mod running;
pub use running::{ReplayBatch, Running};
mod select;
mod source;
pub use source::{Absent, Limit, Page, Scan, Source, Span};
mod tiers;
