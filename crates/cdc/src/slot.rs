//! Where an object's node is kept while its files are open, and what stays of it while they are closed.

use std::path::PathBuf;

use cdc_model::{Epoch, Position};

use crate::Result;
use crate::node::{Hot, Memory, Node};

/// An object's durable side, open or closed.
#[derive(Debug)]
pub(crate) struct Slot {
    place: Place,
    keeper: Box<dyn Keeper>,
}

/// Who opens an object's files, and closes them for others.
pub(crate) trait Keeper: Send + std::fmt::Debug {
    fn open(&self) -> Result<Hot>;

    /// The object is used, or only looked at in passing.
    fn note(&self, usage: Usage);
}

/// What an object is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Usage {
    /// Somebody uses it: it stays open for a while.
    Use,
    /// Its own drivers look after it: that is not why it stays open.
    Passing,
}

#[derive(Debug)]
enum Place {
    Open(Node),
    Closed(Closed),
}

/// A node whose files are closed, and what they must be found like.
#[derive(Debug)]
struct Closed {
    path: PathBuf,
    epoch: Epoch,
    tail: Position,
    /// Everything that the files show is on disk: it was made so when the node was opened, each commit since was synced,
    /// and nobody else writes the log.
    is_durable: bool,
    leaves_wal: bool,
    memory: Memory,
}

/// What becomes of the write-ahead log when an object is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closing {
    /// It is moved into the file, and its own file goes.
    Whole,
    /// It stays, and closing costs no sync.
    LeavingWal,
}

impl Slot {
    pub(crate) const fn new(node: Node, keeper: Box<dyn Keeper>) -> Self {
        Self { place: Place::Open(node), keeper }
    }

    /// The node, which is opened if it was closed. Its files must be those that were closed.
    pub(crate) fn node(&mut self, usage: Usage) -> Result<&mut Node> {
        if let Place::Closed(closed) = &mut self.place {
            let hot = closed.reopen(|| self.keeper.open())?;
            self.place = Place::Open(Node { hot, memory: std::mem::take(&mut closed.memory) });
        }
        self.keeper.note(usage);
        match &mut self.place {
            Place::Open(node) => Ok(node),
            Place::Closed(_) => unreachable!("it was opened above"),
        }
    }

    /// Gives back memory that only makes the next use faster.
    pub(crate) fn release_memory(&self) {
        if let Place::Open(node) = &self.place {
            // What is wrong with the connection is told to whoever uses it.
            drop(node.log().release_memory());
        }
    }

    /// Moves what is left of a write-ahead log into its file.
    pub(crate) fn tidy(&mut self, open: impl FnOnce() -> Result<Hot>) -> Result<()> {
        if let Place::Closed(closed) = &mut self.place
            && std::mem::take(&mut closed.leaves_wal)
        {
            drop(closed.reopen(open)?);
        }
        Ok(())
    }

    /// Closes the files, on this thread, once what was written is on disk and `told` that. Gives whether they were open.
    pub(crate) fn close(&mut self, closing: Closing, told: impl FnOnce(&Node)) -> bool {
        let Place::Open(node) = &mut self.place else { return false };
        let is_synced = node.hot.log_mut().sync().is_ok();
        told(node);
        let log = node.hot.log();
        // What a failed commit has left in the log must not come back with it.
        let leaves_wal =
            closing == Closing::LeavingWal && is_synced && !log.is_poisoned() && log.leave_wal().is_ok();
        self.place = Place::Closed(Closed {
            path: log.path().to_owned(),
            epoch: log.epoch(),
            tail: log.tail(),
            is_durable: is_synced && !log.is_poisoned(),
            leaves_wal,
            memory: std::mem::take(&mut node.memory),
        });
        true
    }
}

impl Closed {
    fn reopen(&self, open: impl FnOnce() -> Result<Hot>) -> Result<Hot> {
        let damaged = |what: String| cdc_log::Error::Damaged { path: self.path.clone(), what };
        if !self.path.exists() {
            // To open it would make another log.
            return Err(damaged("it was removed while it was closed".to_owned()).into());
        }
        let mut hot = open()?;
        if !self.is_durable {
            hot.log_mut().make_durable()?;
        }
        let log = hot.log();
        // Of a commit that failed nobody knows whether it was one.
        let is_later = log.tail().sequence > self.tail.sequence;
        let is_same_tail = log.tail() == self.tail || (!self.is_durable && is_later);
        if log.epoch() != self.epoch || !is_same_tail {
            let found = format!("{} of epoch {}", log.tail().sequence, log.epoch());
            let closed = format!("{} of epoch {}", self.tail.sequence, self.epoch);
            return Err(damaged(format!("it ends at {found} and was closed at {closed}")).into());
        }
        Ok(hot)
    }
}
