use std::sync::Arc;
use std::time::Duration;

use cdc_model::{Batch, Sequence, mutant};

use super::{Flight, Local, LocalKind, Phase, Range, Ready, Sender};
use crate::{Action, Cut, Hello, RequestId};

impl Sender {
    /// What to do next. Every request is offered once and stays outstanding until its input comes or, for those to
    /// the receiver, `answerTimeout` has passed. Call it again after each action until it says wait, idle or stopped.
    pub fn poll(&mut self, now: Duration) -> Action {
        if self.flight.as_ref().is_some_and(|flight| flight.deadline <= now) {
            self.lose_flight(now);
        }
        if let Phase::Stopped(stop) = &self.phase {
            return Action::Stopped(stop.clone());
        }
        if self.local.is_some() || self.retry.paused(now).is_some() {
            return self.rest(now);
        }
        if let Some(at) = self.claim.as_ref().map(|claim| claim.mark.sequence) {
            return Action::Compare { request: self.ask_log(LocalKind::Compare), at };
        }
        match self.phase {
            Phase::Unsaved => Action::Save { request: self.ask_log(LocalKind::Save), link: self.link },
            Phase::Saved if self.flight.is_none() => self.greet(now),
            Phase::Open => self.poll_open(now),
            Phase::Saved | Phase::Stopped(_) => self.rest(now),
        }
    }

    fn poll_open(&mut self, now: Duration) -> Action {
        let quiet = self.flight.is_none();
        if quiet && let Some(ready) = self.ready.take() {
            return self.send(now, ready);
        }
        if self.is_cut_due(now) {
            let cut = self.next_cut();
            return Action::Cut { request: self.ask_log(LocalKind::Cut), cut };
        }
        if quiet && (self.is_hold_over(now) || self.is_probe_due(now)) {
            let (after, through) = (self.link.acked, self.scanned);
            let kept_back = through.sequence.since(after.sequence);
            self.held_at = None;
            return self.send(now, Ready { after, through, records: Vec::new(), kept_back });
        }
        self.rest(now)
    }

    /// An idle link cuts at once. Behind a batch in flight the next is cut when it is full, old enough or flushed.
    fn is_cut_due(&self, now: Duration) -> bool {
        let waiting = self.tail.sequence.since(self.scanned.sequence);
        let full = u64::try_from(self.options.batch_size).is_ok_and(|size| waiting >= size);
        let due = self.flight.is_none() || full || self.is_flushing() || now >= self.fill_until();
        self.ready.is_none() && waiting > 0 && due
    }

    /// Whether positions that were all filtered away have waited long enough for something to go with.
    fn is_hold_over(&self, now: Duration) -> bool {
        let skips = self.link.begin.sequence > self.link.acked.sequence;
        let over = self.held_until().is_none_or(|until| now >= until);
        self.holds() && (over || skips || self.is_flushing())
    }

    fn is_probe_due(&self, now: Duration) -> bool {
        let unsettled = self.link.settled < self.link.acked.sequence;
        unsettled && (self.probe_asked || self.probe_at.is_some_and(|at| now >= at))
    }

    fn is_flushing(&self) -> bool {
        self.link.acked.sequence < self.flush_to
    }

    fn fill_until(&self) -> Duration {
        self.seen_at + self.options.batch_timeout()
    }

    fn held_until(&self) -> Option<Duration> {
        self.held_at.filter(|_| self.holds()).map(|at| at + self.options.batch_timeout())
    }

    /// Whether positions were read that nothing has told the receiver of.
    fn holds(&self) -> bool {
        self.scanned.sequence > self.link.acked.sequence && !mutant!("filtered-range-kept")
    }

    /// The next time at which something falls due by itself.
    fn rest(&self, now: Duration) -> Action {
        let flight = self.flight.as_ref().map(|flight| flight.deadline);
        let pause = self.retry.paused(now).filter(|_| self.local.is_none());
        let mut due = [flight, pause, None, None];
        if pause.is_none() && self.local.is_none() && matches!(self.phase, Phase::Open) {
            let waiting = self.tail.sequence > self.scanned.sequence && self.ready.is_none();
            let unsettled = self.link.settled < self.link.acked.sequence;
            due = if flight.is_some() {
                [flight, Some(self.fill_until()).filter(|_| waiting), None, None]
            } else {
                [self.held_until(), self.probe_at.filter(|_| unsettled), None, None]
            };
        }
        let next = due.into_iter().flatten().min();
        debug_assert!(next.is_none_or(|next| next > now), "what is due must be done: {self:?}");
        next.map_or(Action::Idle, Action::Wait)
    }

    fn greet(&mut self, now: Duration) -> Action {
        let hello = Hello {
            sender: self.id.clone(),
            generation: self.link.generation,
            session: self.session,
            epoch: self.epoch,
            acked: self.link.acked.sequence,
            tail: self.tail,
            floor: self.floor,
        };
        Action::Handshake { request: self.take_off(now, None), hello }
    }

    fn send(&mut self, now: Duration, ready: Ready) -> Action {
        let Ready { after, through, records, kept_back } = ready;
        let count = u64::try_from(records.len()).unwrap_or(u64::MAX);
        self.probe_asked = false;
        let request = self.take_off(now, Some(Range { after, through, records: count }));
        let batch = Batch {
            sender: self.id.clone(),
            generation: self.link.generation,
            epoch: self.epoch,
            after,
            through,
            records,
            kept_back,
        };
        Action::Send { request, batch }
    }

    fn next_cut(&self) -> Cut {
        let left = self.tail.sequence.since(self.scanned.sequence);
        let scan = left.min(self.options.scan_positions_max);
        Cut {
            after: self.scanned,
            through_max: Sequence::new(self.scanned.sequence.get() + scan),
            records_max: self.options.batch_size,
            bytes_max: self.options.batch_bytes_max,
            filter: Arc::clone(&self.filter),
        }
    }

    fn take_off(&mut self, now: Duration, range: Option<Range>) -> RequestId {
        let request = self.next_request();
        let deadline = now + self.options.answer_timeout();
        self.flight = Some(Flight { request, deadline, range });
        request
    }

    fn ask_log(&mut self, kind: LocalKind) -> RequestId {
        let request = self.next_request();
        self.local = Some(Local { request, kind });
        request
    }

    const fn next_request(&mut self) -> RequestId {
        self.requests += 1;
        RequestId { session: self.session, number: self.requests }
    }
}
