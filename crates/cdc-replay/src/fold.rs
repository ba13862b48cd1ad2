use std::borrow::Borrow;

use cdc_model::{BrokenChain, Cursor, Fold, Record, Sequence};

use crate::{Error, Result};

/// A fold with how far it reaches and whether the records continued each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Folded {
    /// The documents.
    pub documents: Fold,
    /// The last position folded, or looked at by the replay that folds.
    pub cursor: Cursor,
    /// Records folded.
    pub records: u64,
    /// How many of them did not continue what was folded before. Expected only of a fold that did not begin at the
    /// first record.
    pub broken: u64,
    /// The first of those.
    pub first_break: Option<Break>,
}

/// A record that does not continue the history before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Break {
    /// The record's place.
    pub at: Sequence,
    /// What it says was before, and what was.
    pub chain: BrokenChain,
}

impl Folded {
    /// Takes one more record.
    ///
    /// # Errors
    ///
    /// [`Error::Record`] when it does not decode.
    pub fn take(&mut self, record: &Record) -> Result<()> {
        let at = record.sequence;
        let broken = self.documents.apply(record).map_err(|source| Error::Record { at, source })?;
        self.cursor = record.cursor();
        self.records += 1;
        if let Some(chain) = broken {
            self.broken += 1;
            self.first_break.get_or_insert(Break { at, chain });
        }
        Ok(())
    }
}

/// Folds records that are at hand, oldest first.
///
/// # Errors
///
/// [`Error::Record`] when one does not decode.
pub fn fold(records: impl IntoIterator<Item: Borrow<Record>>) -> Result<Folded> {
    let mut folded = Folded::default();
    records.into_iter().try_for_each(|record| folded.take(record.borrow()))?;
    Ok(folded)
}
