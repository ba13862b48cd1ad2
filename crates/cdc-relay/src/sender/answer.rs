use std::cmp::Ordering;
use std::time::Duration;

use cdc_model::{Answer, Digest, Position, Refusal, Sequence, mutant};

use super::{Claim, Flight, Phase, Sender};
use crate::{DEPTH_MAX, RequestId, Stop};

impl Sender {
    /// The receiver answered a request. An answer to any other request than the one outstanding is only counted.
    pub fn handle_answer(&mut self, now: Duration, request: RequestId, answer: Answer) {
        let Some(flight) = self.flight.take_if(|flight| flight.request == request) else {
            self.sent.stale_answers += 1;
            return;
        };
        match &answer.refusal {
            Some(Refusal::Busy) => {
                let busy = self.retry.busy();
                let is_of_batch = flight.range.is_some() && answer.generation == self.link.generation;
                if is_of_batch && answer.mark.is_some() {
                    // It takes nothing, and says what it has.
                    self.weigh(now, &flight, answer);
                } else {
                    self.drop_cut();
                }
                self.retry.hold_back(now, busy);
            }
            Some(refusal) if flight.range.is_none() || !refusal.is_passing() => {
                let stop = self.stop_of(refusal, &answer);
                let is_superseded = matches!(stop, Stop::Refused(Refusal::Superseded { .. }));
                // A log that was restored with an old generation also meets this: the mark tells which it is.
                match answer.mark.filter(|mark| is_superseded && mark.epoch == self.epoch) {
                    Some(mark) => {
                        self.drop_cut();
                        self.claim = Some(Claim {
                            mark: mark.position(),
                            settled: Sequence::ZERO,
                            range: flight.range,
                            refused: Some(refusal.clone()),
                        });
                    }
                    None => self.stop(stop),
                }
            }
            _ => self.weigh(now, &flight, answer),
        }
    }

    /// A request failed or its answer timed out at the transport, or reading or writing the own log failed.
    pub fn handle_failure(&mut self, now: Duration, request: RequestId) {
        if self.flight.as_ref().is_some_and(|flight| flight.request == request) {
            self.lose_flight(now);
        } else if self.local.is_some_and(|local| local.request == request) {
            self.local = None;
            self.retry.fail(now);
        }
    }

    /// Whether the request arrived is unknown: everything is cut again from the mark, and the receiver's answer to
    /// that tells.
    pub(super) fn lose_flight(&mut self, now: Duration) {
        self.flight = None;
        self.drop_cut();
        self.retry.fail(now);
    }

    /// Checks all of an answer that can be checked without the log, then compares its mark.
    fn weigh(&mut self, now: Duration, flight: &Flight, answer: Answer) {
        let mark = match self.check(&answer) {
            Ok(mark) => mark,
            Err(stop) => return self.stop(stop),
        };
        self.ancestors.truncate(1);
        self.ancestors.extend(answer.ancestors);
        let claim = Claim { mark, settled: answer.settled, range: flight.range, refused: None };
        match self.known_digest(mark.sequence, flight) {
            Some(own) => self.compare(now, claim, Some(own)),
            None => {
                self.drop_cut();
                self.claim = Some(claim);
            }
        }
    }

    fn check(&self, answer: &Answer) -> Result<Position, Stop> {
        self.check_chain(answer)?;
        if answer.generation != self.link.generation {
            return Err(Stop::BadAnswer { reason: "its generation is not the link's" });
        }
        let acked = self.link.acked.sequence;
        let Some(mark) = answer.mark else {
            return match acked {
                Sequence::ZERO => Ok(Position::START),
                after => Err(Stop::Refused(Refusal::ParentLostState { after })),
            };
        };
        if mark.epoch != self.epoch {
            let (epoch, current) = (self.epoch, mark.epoch);
            return Err(match epoch.number.cmp(&current.number) {
                Ordering::Less => Stop::Refused(Refusal::Fenced { epoch, current }),
                Ordering::Equal => Stop::Diverged { at: Sequence::ZERO },
                Ordering::Greater => Stop::Refused(Refusal::NotGranted { epoch, current }),
            });
        }
        if mark.sequence > self.tail.sequence {
            return Err(Stop::Rewound { tail: self.tail.sequence, mark: mark.sequence });
        }
        if answer.settled > mark.sequence {
            return Err(Stop::BadAnswer { reason: "more is settled than stored" });
        }
        Ok(mark.position())
    }

    fn check_chain(&self, answer: &Answer) -> Result<(), Stop> {
        let above = std::iter::once(&self.receiver).chain(&answer.ancestors);
        if let Some(at) = above.clone().position(|ancestor| *ancestor == self.id) {
            let circle = std::iter::once(&self.id).chain(above.take(at + 1)).cloned().collect();
            return Err(Stop::Refused(Refusal::Cycle { circle }));
        }
        let depth = answer.ancestors.len() + 2;
        if depth > DEPTH_MAX {
            return Err(Stop::TooDeep { depth });
        }
        Ok(())
    }

    /// The log's own digest at a position, where the machine has it from the log itself. After a restart that is
    /// only its tail.
    fn known_digest(&self, at: Sequence, flight: &Flight) -> Option<Digest> {
        let range = flight.range;
        let ends = range.map(|range| [range.after, range.through]);
        let known = [Position::START, self.tail].into_iter().chain(ends.into_iter().flatten());
        known.into_iter().find(|known| known.sequence == at).map(|known| known.digest)
    }

    /// The one place that moves the mark.
    pub(super) fn compare(&mut self, now: Duration, claim: Claim, own: Option<Digest>) {
        let mark = claim.mark;
        if let Err(stop) = self.check_mark(mark, own) {
            return self.stop(stop);
        }
        if let Some(refusal) = claim.refused {
            return self.stop(Stop::Refused(refusal));
        }
        let moved = mark.sequence > self.link.acked.sequence;
        let news = claim.settled > self.link.settled;
        self.link.acked = mark;
        self.link.settled = self.link.settled.max(claim.settled);
        self.phase = Phase::Open;
        self.retry.succeed();
        match claim.range {
            Some(range) if range.through == mark => {
                let positions = range.through.sequence.since(range.after.sequence);
                self.sent.batches += u64::from(positions > 0);
                self.sent.records += range.records;
                self.sent.filtered += positions - range.records;
            }
            // Nothing came of the batch, although it began at the mark: never try that in a tight loop.
            Some(range) if range.after == mark => {
                self.drop_cut();
                self.retry.fail(now);
            }
            _ => self.drop_cut(),
        }
        self.probes = if moved || news { 1 } else { self.probes.saturating_add(1) };
        self.probe_at = Some(now + self.retry.pause_after(self.probes));
    }

    fn check_mark(&self, mark: Position, own: Option<Digest>) -> Result<(), Stop> {
        let floor = self.floor;
        let Some(own) = own else {
            return Err(Stop::BelowFloor { mark: mark.sequence, floor });
        };
        if own != mark.digest && !mutant!("ack-digest-not-compared") {
            return Err(Stop::Diverged { at: mark.sequence });
        }
        let acked = self.link.acked.sequence;
        if mark.sequence < acked {
            return Err(Stop::ReceiverRewound { acked, mark });
        }
        let from = mark.sequence.max(self.link.begin.sequence);
        if self.tail.sequence > from && floor > from.next() {
            return Err(Stop::BelowFloor { mark: mark.sequence, floor });
        }
        Ok(())
    }

    /// Why a refusal stops the link. What the answer's mark proves about this log is said first.
    fn stop_of(&self, refusal: &Refusal, answer: &Answer) -> Stop {
        if let Some(mark) = answer.mark
            && mark.epoch == self.epoch
            && mark.sequence > self.tail.sequence
        {
            return Stop::Rewound { tail: self.tail.sequence, mark: mark.sequence };
        }
        if let Refusal::Diverged { at } = refusal {
            return Stop::Diverged { at: *at };
        }
        // A log that was made anew numbers its links anew, too; what is wrong with it is its past.
        if matches!(refusal, Refusal::Superseded { .. })
            && let Some(mark) = answer.mark
            && mark.epoch != self.epoch
            && mark.epoch.number == self.epoch.number
        {
            return Stop::Diverged { at: Sequence::ZERO };
        }
        if refusal.is_passing() {
            return Stop::BadAnswer { reason: "a handshake is never off the mark" };
        }
        Stop::Refused(refusal.clone())
    }
}
