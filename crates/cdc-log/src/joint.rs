//! What the events of one transaction have in common.

use cdc_model::{Body, Epoch, Sequence, Transaction, mutant};
use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use crate::{Error, Result, store};

/// Bytes of a correlation id at most: every event of the transaction carries it.
const CORRELATION_BYTES_MAX: usize = 1024;

/// Bytes of JSON of a transaction's metadata at most, likewise.
const METADATA_BYTES_MAX: usize = 4096;

/// Under which name the rest of a transaction that was drained in part is kept.
const KEY: &str = "transaction";

/// A transaction whose events are appended, and what its writer said of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Joint {
    correlation_id: Option<String>,
    metadata: Option<serde_json::Value>,
    /// Of the event that is next; `None` until it is known how many there are, and where nothing is to be told.
    next: Option<Transaction>,
    begun: bool,
}

impl Joint {
    pub(crate) fn correlate(&mut self, id: String) -> Result<()> {
        if id.len() > CORRELATION_BYTES_MAX {
            return Err(Error::NotAllowed { reason: "a correlation id of more than 1024 bytes" });
        }
        self.correlation_id = Some(id);
        Ok(())
    }

    /// JSON null is none.
    pub(crate) fn describe(&mut self, metadata: serde_json::Value) -> Result<()> {
        if metadata.to_string().len() > METADATA_BYTES_MAX {
            return Err(Error::NotAllowed { reason: "metadata of more than 4096 bytes of JSON" });
        }
        self.metadata = Some(metadata).filter(|metadata| !metadata.is_null());
        Ok(())
    }

    /// Whether the number of its events is known.
    pub(crate) const fn has_begun(&self) -> bool {
        self.begun
    }

    /// It has so many events. The only one of a transaction says nothing of it unless there is metadata to carry.
    pub(crate) fn begin(&mut self, epoch: Epoch, first: Sequence, events: usize) {
        self.begun = true;
        if events > 1 || self.metadata.is_some() {
            let count = u32::try_from(events).unwrap_or(u32::MAX);
            let metadata = self.metadata.take();
            self.next = Some(Transaction { id: Transaction::id_at(epoch, first), index: 0, count, metadata });
        }
    }

    /// The body of the event that is next.
    pub(crate) fn join(&mut self, body: Body) -> Body {
        if body.is_schema() || self.next.is_none() && self.correlation_id.is_none() {
            return body;
        }
        let joined = body.within(self.next.as_ref(), self.correlation_id.as_deref());
        if let Some(next) = self.next.as_mut().filter(|_| !mutant!("transaction-index-kept")) {
            next.index = next.index.saturating_add(1);
        }
        joined
    }

    /// What is left of a transaction of which a part was drained, if there is one.
    pub(crate) fn kept(log: &Connection) -> Result<Option<Self>> {
        let kept: Option<String> = store::meta(log, KEY)?;
        let decoded = |text: String| serde_json::from_str(&text).map_err(undecoded);
        kept.map(decoded).transpose()
    }

    /// Keeps it for those who drain the rest.
    pub(crate) fn keep(&self, log: &Connection) -> Result<()> {
        store::put_meta(log, KEY, serde_json::to_string(self).map_err(undecoded)?)
    }

    /// The rest was drained.
    pub(crate) fn forget(log: &Connection) -> Result<()> {
        log.prepare_cached("DELETE FROM _cdc_meta WHERE key = ?1")?.execute([KEY])?;
        Ok(())
    }
}

fn undecoded(error: serde_json::Error) -> Error {
    rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, error.into()).into()
}
