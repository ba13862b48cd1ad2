use std::time::Duration;

use cdc_model::{Batch, Sequence};

use crate::{Cut, Hello, Outbound, Stop};

/// Names one request of one sender, so that answers which come late, twice or out of order are told apart.
///
/// A transport need not carry it: it is enough that the driver hands an answer back with the request it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestId {
    pub(crate) session: u64,
    pub(crate) number: u64,
}

/// What the driver of a [`Sender`](crate::Sender) does next.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "an action is offered once"]
pub enum Action {
    /// Store the link durably, then call `handle_saved`.
    Save {
        /// Give it back with the result.
        request: RequestId,
        /// What to store.
        link: Outbound,
    },
    /// Send this to the receiver, then call `handle_answer`.
    Handshake {
        /// Give it back with the result.
        request: RequestId,
        /// What to say.
        hello: Hello,
    },
    /// Read this range of the log with a [`Cutter`](crate::Cutter), then call `handle_batch_cut`.
    Cut {
        /// Give it back with the result.
        request: RequestId,
        /// What to read.
        cut: Cut,
    },
    /// Read the log's own running digest at this sequence, then call `handle_digest`.
    Compare {
        /// Give it back with the result.
        request: RequestId,
        /// Where.
        at: Sequence,
    },
    /// Send this to the receiver, then call `handle_answer`.
    Send {
        /// Give it back with the result.
        request: RequestId,
        /// What to send.
        batch: Batch,
    },
    /// Nothing to do before this time unless an input comes.
    Wait(Duration),
    /// Nothing to do until an input comes.
    Idle,
    /// The link does not go on by itself.
    Stopped(Stop),
}
