//! What a sender does when, with a log and a receiver played by hand.

mod answers;
mod batches;
mod stops;

use std::sync::Arc;
use std::time::Duration;

use cdc_model::{
    Answer, Batch, ChangeBody, Digest, Epoch, Mark, Operation, Origin, Position, Record, Refusal, Sequence,
    Timestamp,
};
use cdc_relay::{Action, Cutter, Hello, LinkOptions, Outbound, RequestId, Sender, Setup};

use crate::id;

const EPOCH: Epoch = Epoch { number: 3, nonce: 9 };

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn rows(count: usize) -> Vec<Record> {
    let origin = Origin::new(id("child"), EPOCH, vec![]);
    let row = |n: usize| {
        let sequence = Sequence::new(u64::try_from(n).unwrap());
        Record {
            sequence,
            timestamp: Timestamp::ZERO,
            epoch: EPOCH,
            origin: Arc::clone(&origin),
            origin_sequence: sequence,
            origin_timestamp: Timestamp::ZERO,
            body: ChangeBody::new(Operation::Insert, "t", n.to_string()).to_body(),
        }
    };
    (1..=count).map(row).collect()
}

/// A sender with its log; the tests play the receiver.
struct Bench {
    sender: Sender,
    log: Vec<Record>,
    tail: usize,
}

impl Bench {
    fn with(options: LinkOptions, link: Outbound, tail: usize) -> Self {
        let mut bench = Self::unlinked(options, link, tail);
        let (request, hello) = bench.handshake(ms(0));
        bench.answer(ms(0), request, &hello, 0, None);
        bench
    }

    fn unlinked(options: LinkOptions, link: Outbound, tail: usize) -> Self {
        let log = rows(500);
        let setup = Setup {
            id: id("child"),
            receiver: id("parent"),
            epoch: EPOCH,
            options,
            link,
            tail: position(&log, tail),
            floor: Sequence::new(1),
            session: 1,
        };
        Self { sender: Sender::new(setup).unwrap(), log, tail }
    }

    fn linked(tail: usize) -> Self {
        Self::with(LinkOptions::default(), Outbound::NEW, tail)
    }

    fn handshake(&mut self, now: Duration) -> (RequestId, Hello) {
        let Action::Save { request, .. } = self.sender.poll(now) else { panic!("the link is stored first") };
        self.sender.handle_saved(request);
        let Action::Handshake { request, hello } = self.sender.poll(now) else { panic!("no handshake") };
        (request, hello)
    }

    fn grow(&mut self, now: Duration, tail: usize) {
        self.tail = tail;
        self.sender.handle_tail(now, position(&self.log, tail));
    }

    /// Does what concerns the log; what is left is for the receiver or to wait.
    fn poll(&mut self, now: Duration) -> Action {
        loop {
            let action = self.sender.poll(now);
            match action {
                Action::Cut { request, cut } => {
                    let mut cutter = Cutter::new(cut);
                    let from = cutter.position().sequence;
                    for row in self.log.iter().filter(|row| row.sequence > from) {
                        if cutter.push(row.clone()).unwrap().is_break() {
                            break;
                        }
                    }
                    self.sender.handle_batch_cut(now, request, cutter.finish());
                }
                Action::Compare { request, at } => {
                    let own = position(&self.log, usize::try_from(at.get()).unwrap()).digest;
                    self.sender.handle_digest(now, request, Some(own));
                }
                Action::Save { .. }
                | Action::Handshake { .. }
                | Action::Send { .. }
                | Action::Wait(_)
                | Action::Idle
                | Action::Stopped(_) => return action,
            }
        }
    }

    fn sent(&mut self, now: Duration) -> (RequestId, Batch) {
        let action = self.poll(now);
        let Action::Send { request, batch } = action else { panic!("nothing is sent: {action:?}") };
        (request, batch)
    }

    fn answer(
        &mut self,
        now: Duration,
        request: RequestId,
        hello: &Hello,
        mark: usize,
        refusal: Option<Refusal>,
    ) {
        let mark = (mark > 0).then(|| Mark::at(EPOCH, position(&self.log, mark)));
        self.sender.handle_answer(now, request, said(hello.generation, mark, refusal));
    }

    fn ack(&mut self, now: Duration, request: RequestId, batch: &Batch) {
        let settled = batch.through.sequence;
        let answer = Answer { settled, ..said(batch.generation, Some(batch.mark()), None) };
        self.sender.handle_answer(now, request, answer);
    }
}

fn said(generation: u64, mark: Option<Mark>, refusal: Option<Refusal>) -> Answer {
    Answer { mark, settled: Sequence::ZERO, generation, ancestors: vec![], refusal }
}

fn position(log: &[Record], at: usize) -> Position {
    let digest = log.iter().take(at).fold(Digest::ZERO, |digest, row| row.digest(digest));
    Position { sequence: Sequence::new(u64::try_from(at).unwrap()), digest }
}

fn range(batch: &Batch) -> (u64, u64, usize) {
    (batch.after.sequence.get(), batch.through.sequence.get(), batch.records.len())
}
