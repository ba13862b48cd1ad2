//! The sending machine. This file holds its state and the inputs from its own log; `sender/answer.rs` those from
//! the receiver, `sender/poll.rs` what it does next.

mod answer;
mod poll;

use std::sync::Arc;
use std::time::Duration;

use cdc_model::{Digest, Epoch, Filter, ObjectId, Position, Record, Refusal, Sequence, mutant};

use crate::retry::Retry;
use crate::{Error, LinkOptions, Outbound, RequestId, Slice, Stop};

/// What a [`Sender`] is made from.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The object whose log is sent.
    pub id: ObjectId,
    /// The object it is sent to.
    pub receiver: ObjectId,
    /// The epoch of the log.
    pub epoch: Epoch,
    /// The link's settings.
    pub options: LinkOptions,
    /// The link as stored; [`Outbound::NEW`] for a new one.
    pub link: Outbound,
    /// The newest durable position of the log, with the log's own digest.
    pub tail: Position,
    /// The oldest sequence that can be read.
    pub floor: Sequence,
    /// Random, new for every sender that is made: names its requests and seeds its jitter.
    pub session: u64,
}

/// The uplink of one object: reads its log in ranges and sends them, one batch in flight, to one receiver.
///
/// The driver feeds it inputs (`handle_…`) and does what [`Sender::poll`] says until that is to wait. `now` is any
/// clock that does not go back, as time since an arbitrary start.
///
/// Nothing moves [`Sender::acked`] but an answer whose `(epoch, mark, digest)` equals the sender's own digest at
/// that position; it never moves back. An answer counts only if it belongs to the request now outstanding, so late,
/// repeated and reordered answers, and those to an earlier sender of the same link, change nothing.
#[derive(Debug)]
pub struct Sender {
    id: ObjectId,
    receiver: ObjectId,
    epoch: Epoch,
    options: LinkOptions,
    filter: Arc<Filter>,
    session: u64,
    requests: u64,
    link: Outbound,
    tail: Position,
    floor: Sequence,
    phase: Phase,
    /// The request that is on its way to the receiver.
    flight: Option<Flight>,
    /// The request that the driver is doing at its own log.
    local: Option<Local>,
    /// An answer whose mark still has to be compared with the log.
    claim: Option<Claim>,
    /// The next batch, cut and waiting for the one in flight.
    ready: Option<Ready>,
    /// How far the log has been read; rows between what is sent and here were filtered away.
    scanned: Position,
    /// When the first row beyond `scanned` was seen.
    seen_at: Duration,
    /// When the first of the filtered rows before `scanned` was seen.
    held_at: Option<Duration>,
    flush_to: Sequence,
    probe_asked: bool,
    probe_at: Option<Duration>,
    probes: u32,
    retry: Retry,
    ancestors: Vec<ObjectId>,
    sent: Sent,
}

/// Counters of a sender since it was made. Counted when the receiver's mark covers them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Batches taken.
    pub batches: u64,
    /// Records in them.
    pub records: u64,
    /// Positions in them whose records did not pass.
    pub filtered: u64,
    /// Answers that belonged to no outstanding request.
    pub stale_answers: u64,
}

/// Where a link is in its life, for reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// The handshake is not complete.
    Linking,
    /// Batches flow.
    Open,
    /// Pausing after failures or because the receiver is busy.
    BackingOff,
    /// Pausing after many failures in a row.
    BreakerOpen,
    /// It does not go on by itself.
    Stopped,
}

#[derive(Debug)]
enum Phase {
    /// The generation is not stored yet.
    Unsaved,
    /// It is; the receiver has not granted it yet.
    Saved,
    Open,
    Stopped(Stop),
}

#[derive(Debug)]
struct Flight {
    request: RequestId,
    deadline: Duration,
    /// The range of a batch; `None` for a handshake.
    range: Option<Range>,
}

#[derive(Clone, Copy, Debug)]
struct Range {
    after: Position,
    through: Position,
    records: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Local {
    request: RequestId,
    kind: LocalKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LocalKind {
    Save,
    Cut,
    Compare,
}

/// What an answer says, before it is believed.
#[derive(Debug)]
struct Claim {
    mark: Position,
    settled: Sequence,
    range: Option<Range>,
    /// The refusal to stop with, if the mark itself shows nothing worse.
    refused: Option<Refusal>,
}

#[derive(Debug)]
struct Ready {
    after: Position,
    through: Position,
    records: Vec<Record>,
    kept_back: u64,
}

impl Sender {
    /// A sender that begins with a handshake of a new generation.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] when an option is outside its limits.
    pub fn new(setup: Setup) -> Result<Self, Error> {
        setup.options.validate()?;
        let generation = setup.link.generation + u64::from(!mutant!("generation-used-again"));
        let link = Outbound { generation, ..setup.link };
        Ok(Self {
            filter: Arc::new(setup.options.filter()),
            retry: Retry::new(&setup.options, setup.session),
            ancestors: vec![setup.receiver.clone()],
            id: setup.id,
            receiver: setup.receiver,
            epoch: setup.epoch,
            options: setup.options,
            session: setup.session,
            requests: 0,
            link,
            tail: setup.tail,
            floor: setup.floor,
            phase: Phase::Unsaved,
            flight: None,
            local: None,
            claim: None,
            ready: None,
            scanned: link.acked,
            seen_at: Duration::ZERO,
            held_at: None,
            flush_to: Sequence::ZERO,
            probe_asked: false,
            probe_at: None,
            probes: 0,
            sent: Sent::default(),
        })
    }

    /// The link as it is now: store it when rows are pruned because of [`Sender::settled`], else at leisure.
    #[must_use]
    pub const fn outbound(&self) -> Outbound {
        self.link
    }

    /// Everything up to here is on the receiver's disk.
    #[must_use]
    pub const fn acked(&self) -> Position {
        self.link.acked
    }

    /// Everything up to here is stored at the root and archived on the way.
    #[must_use]
    pub const fn settled(&self) -> Sequence {
        self.link.settled
    }

    /// The sender's own ancestors, nearest first: the receiver, and its ancestors as it last named them.
    #[must_use]
    pub fn ancestors(&self) -> &[ObjectId] {
        &self.ancestors
    }

    /// How many positions the receiver is behind.
    #[must_use]
    pub const fn lag(&self) -> u64 {
        self.tail.sequence.since(self.link.acked.sequence)
    }

    /// The counters.
    #[must_use]
    pub const fn sent(&self) -> Sent {
        self.sent
    }

    /// Where the link is in its life.
    #[must_use]
    pub fn status(&self, now: Duration) -> Status {
        match self.phase {
            Phase::Stopped(_) => Status::Stopped,
            _ if self.retry.paused(now).is_some() && self.retry.is_breaker_open() => Status::BreakerOpen,
            _ if self.retry.paused(now).is_some() => Status::BackingOff,
            Phase::Unsaved | Phase::Saved => Status::Linking,
            Phase::Open => Status::Open,
        }
    }

    /// The log has grown, durably, to `tail`. With stages, to where all of them have decided.
    ///
    /// A tail that goes back or changes its digest stops the link: the log was replaced under it.
    pub fn handle_tail(&mut self, now: Duration, tail: Position) {
        let gone_back = tail.sequence < self.tail.sequence;
        if gone_back || (tail.sequence == self.tail.sequence && tail.digest != self.tail.digest) {
            return self.stop(Stop::LogChanged { at: tail.sequence });
        }
        if self.tail.sequence <= self.scanned.sequence {
            self.seen_at = now;
        }
        self.tail = tail;
    }

    /// Rows below `floor` were pruned.
    pub fn handle_floor(&mut self, floor: Sequence) {
        self.floor = self.floor.max(floor);
    }

    /// The link was stored, as [`Action::Save`](crate::Action::Save) asked.
    pub fn handle_saved(&mut self, request: RequestId) {
        if self.end_local(request, LocalKind::Save) {
            self.phase = Phase::Saved;
        }
    }

    /// The log was read, as [`Action::Cut`](crate::Action::Cut) asked.
    pub fn handle_batch_cut(&mut self, now: Duration, request: RequestId, slice: Slice) {
        if !self.end_local(request, LocalKind::Cut) {
            return;
        }
        let through = slice.through;
        let unread = through.sequence <= self.scanned.sequence || slice.after != self.scanned;
        let differs = through.sequence == self.tail.sequence && through.digest != self.tail.digest;
        if unread || differs || through.sequence > self.tail.sequence {
            return self.stop(Stop::LogChanged { at: through.sequence });
        }
        self.scanned = through;
        let long = through.sequence.since(slice.after.sequence) >= self.options.scan_positions_max;
        if slice.records.is_empty() && !long {
            self.held_at.get_or_insert(self.seen_at);
        } else {
            self.held_at = None;
            let after = self.sent_to();
            // Of what was held before this slice nothing passed.
            let kept_back = slice.after.sequence.since(after.sequence) + slice.kept_back;
            self.ready = Some(Ready { after, through, records: slice.records, kept_back });
        }
        self.seen_at = now;
    }

    /// The log's own digest was read, as [`Action::Compare`](crate::Action::Compare) asked; `None` when the log
    /// cannot tell any more.
    pub fn handle_digest(&mut self, now: Duration, request: RequestId, own: Option<Digest>) {
        if self.end_local(request, LocalKind::Compare)
            && let Some(claim) = self.claim.take()
        {
            self.compare(now, claim, own);
        }
    }

    /// Sends everything up to the newest durable row without waiting to fill batches.
    /// It is done when [`Sender::acked`] has reached that row.
    pub const fn flush(&mut self) {
        self.flush_to = self.tail.sequence;
    }

    /// Asks for the newest `settled` as soon as the link is quiet: the receiver is known to have news.
    pub const fn probe(&mut self) {
        self.probe_asked = true;
    }

    /// Ends a pause at once: the receiver is known to be back.
    pub const fn retry_now(&mut self) {
        self.retry.resume();
    }

    /// Stops the link. The first reason stays.
    pub fn stop(&mut self, why: Stop) {
        if !matches!(self.phase, Phase::Stopped(_)) {
            self.phase = Phase::Stopped(why);
        }
        self.flight = None;
        self.claim = None;
        self.drop_cut();
        self.local = None;
    }

    /// Where the next batch begins.
    fn sent_to(&self) -> Position {
        let range = self.flight.as_ref().and_then(|flight| flight.range);
        range.map_or(self.link.acked, |range| range.through)
    }

    /// Forgets what was cut ahead; the log is read again from the mark, or from where the link begins.
    fn drop_cut(&mut self) {
        self.ready = None;
        self.held_at = None;
        self.local = self.local.filter(|local| local.kind != LocalKind::Cut);
        let begins_later = self.link.begin.sequence > self.link.acked.sequence;
        self.scanned = if begins_later { self.link.begin } else { self.link.acked };
    }

    fn end_local(&mut self, request: RequestId, kind: LocalKind) -> bool {
        let ended = self.local == Some(Local { request, kind });
        if ended {
            self.local = None;
        }
        ended
    }
}
