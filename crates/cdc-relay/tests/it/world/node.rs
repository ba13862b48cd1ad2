use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cdc_model::{
    Answer, Batch, ChangeBody, Digest, Epoch, ObjectId, Operation, Origin, Position, Received, Record,
    Refusal, Sequence, Timestamp,
};
use cdc_relay::{
    AckMap, Covered, Hello, Inbound, Intake, LinkOptions, OriginMark, Outbound, Receiver, Sender, Setup,
};

use super::{Mutant, Mutants};

pub(crate) fn object(n: u8) -> ObjectId {
    format!("https://n{n}.test").parse().expect("an id")
}

pub(crate) fn epoch(n: u8) -> Epoch {
    Epoch { number: 1, nonce: u64::from(n) }
}

/// What a log file holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    pub(crate) rows: Vec<Record>,
    digests: Vec<Digest>,
    pub(crate) outbound: Outbound,
    pub(crate) links: BTreeMap<ObjectId, Inbound>,
    pub(crate) origins: BTreeMap<(ObjectId, Epoch), Sequence>,
    pub(crate) acks: BTreeMap<ObjectId, AckMap>,
    pub(crate) received: Received,
    pub(crate) archived: Sequence,
}

impl Disk {
    pub(crate) fn position(&self, at: usize) -> Position {
        match at.checked_sub(1) {
            None => Position::START,
            Some(last) => Position { sequence: self.rows[last].sequence, digest: self.digests[last] },
        }
    }

    pub(crate) fn tail(&self) -> Position {
        self.position(self.rows.len())
    }

    pub(crate) fn digest_at(&self, at: Sequence) -> Option<Digest> {
        let at = usize::try_from(at.get()).expect("small");
        (at <= self.rows.len()).then(|| self.position(at).digest)
    }

    pub(crate) fn rows_after(&self, after: Sequence) -> impl Iterator<Item = &Record> {
        self.rows.iter().filter(move |row| row.sequence > after)
    }

    pub(crate) fn append(&mut self, epoch: Epoch, now: Duration, event: &Record, origin: &Arc<Origin>) {
        let tail = self.tail();
        let sequence = tail.sequence.next();
        let timestamp = Timestamp::new(i64::try_from(now.as_millis()).expect("small"));
        let own = origin.route().is_empty();
        let row = Record {
            sequence,
            timestamp,
            epoch,
            origin: Arc::clone(origin),
            origin_sequence: if own { sequence } else { event.origin_sequence },
            origin_timestamp: if own { timestamp } else { event.origin_timestamp },
            body: event.body.clone(),
        };
        self.digests.push(row.digest(tail.digest));
        self.rows.push(row);
    }
}

/// An object: its disk, what the system holds of it in memory, and its uplink.
pub(crate) struct Node {
    pub(crate) id: ObjectId,
    pub(crate) epoch: Epoch,
    pub(crate) parent: Option<ObjectId>,
    pub(crate) options: LinkOptions,
    /// What survives a crash.
    pub(crate) disk: Disk,
    /// What a reader sees: the disk and what is not synced yet.
    pub(crate) cache: Disk,
    pub(crate) sender: Option<Sender>,
    pub(crate) fail_commits: u8,
    pub(crate) asked: Option<cdc_relay::RequestId>,
    pub(crate) claimed: Option<Digest>,
    written: u64,
}

impl Node {
    pub(crate) fn new(n: u8, nodes: u8, options: LinkOptions) -> Self {
        Self {
            id: object(n),
            epoch: epoch(n),
            parent: (n + 1 < nodes).then(|| object(n + 1)),
            options,
            disk: Disk::default(),
            cache: Disk::default(),
            sender: None,
            fail_commits: 0,
            asked: None,
            claimed: None,
            written: 0,
        }
    }

    pub(crate) fn start(&mut self, session: u64, mutants: Mutants) {
        let Some(receiver) = self.parent.clone() else { return };
        let mut link = self.disk.outbound;
        if mutants.contains(&Mutant::LostMarkIsFresh) {
            link.acked = Position::START;
        }
        let sender = Sender::new(Setup {
            id: self.id.clone(),
            receiver,
            epoch: self.epoch,
            options: self.options.clone(),
            link,
            tail: self.disk.tail(),
            floor: Sequence::new(1),
            session,
        });
        self.sender = Some(sender.expect("valid options"));
    }

    pub(crate) fn crash(&mut self) {
        self.cache = self.disk.clone();
        self.sender = None;
    }

    /// One durable transaction; a commit syncs what was written before it.
    pub(crate) fn commit(&mut self, change: impl FnOnce(&mut Disk)) -> bool {
        if self.fail_commits > 0 {
            self.fail_commits -= 1;
            return false;
        }
        change(&mut self.cache);
        self.disk = self.cache.clone();
        true
    }

    pub(crate) fn sync(&mut self) {
        self.commit(|_| ());
    }

    /// An application's write, visible but not durable. Every third is of collection `b`.
    pub(crate) fn write(&mut self, now: Duration) {
        self.written += 1;
        let collection = if self.written.is_multiple_of(3) { "b" } else { "a" };
        self.write_to(now, collection);
    }

    pub(crate) fn write_to(&mut self, now: Duration, collection: &str) {
        let text = format!("{}", self.written);
        let body = ChangeBody::new(Operation::Insert, collection, text).to_body();
        let origin = Origin::new(self.id.clone(), self.epoch, Vec::new());
        let event = Record {
            sequence: Sequence::ZERO,
            timestamp: Timestamp::ZERO,
            epoch: self.epoch,
            origin: Arc::clone(&origin),
            origin_sequence: Sequence::ZERO,
            origin_timestamp: Timestamp::ZERO,
            body,
        };
        self.cache.append(self.epoch, now, &event, &origin);
    }

    /// Writes that are unlike those of any other life of this object.
    pub(crate) fn write_otherwise(&mut self, now: Duration, salt: u64) {
        self.written += 1_000 * salt;
        self.write(now);
    }

    pub(crate) fn archive_one(&mut self) {
        let next = self.disk.archived.next().min(self.disk.tail().sequence);
        self.disk.archived = next;
        self.cache.archived = next;
    }

    pub(crate) fn archive_all(&mut self) {
        self.disk.archived = self.disk.tail().sequence;
        self.cache.archived = self.disk.archived;
    }

    fn receiver(&self) -> Receiver {
        let ancestors = self.sender.as_ref().map(|sender| sender.ancestors().to_vec());
        Receiver { id: self.id.clone(), ancestors: ancestors.unwrap_or_default() }
    }

    fn settled(&self, child: &ObjectId, mutants: Mutants) -> Sequence {
        let own = self.sender.as_ref().map_or(self.disk.archived, Sender::settled);
        let own = if mutants.contains(&Mutant::StoredIsSettled) { self.disk.tail().sequence } else { own };
        self.disk.acks.get(child).map_or(Sequence::ZERO, |acks| acks.clone().settle(own))
    }

    fn answer(&self, child: &ObjectId, refusal: Option<Refusal>, mutants: Mutants) -> Answer {
        let link = self.disk.links.get(child);
        self.receiver().answer(link, self.settled(child, mutants), refusal)
    }

    /// A handshake arrives. No answer when the link could not be stored.
    pub(crate) fn greet(&mut self, hello: &Hello, mutants: Mutants) -> Option<Answer> {
        let mut hello = hello.clone();
        let link = self.disk.links.get(&hello.sender);
        if mutants.contains(&Mutant::RepeatedHandshakeGrants) {
            hello.generation = link.map_or(1, |link| link.generation + 1);
        }
        let refusal = match self.receiver().greet(link, &hello) {
            Ok(link) => {
                let stored = self.commit(|disk| disk.links.extend([(hello.sender.clone(), link)]));
                if !stored {
                    return None;
                }
                None
            }
            Err(refusal) => Some(refusal),
        };
        Some(self.answer(&hello.sender, refusal, mutants))
    }

    /// A batch arrives. No answer when it could not be stored.
    pub(crate) fn receive(&mut self, now: Duration, batch: &Batch, mutants: Mutants) -> Option<Answer> {
        let mut batch = batch.clone();
        self.disguise(&mut batch, mutants);
        let receiver = self.receiver();
        let link = self.disk.links.get(&batch.sender);
        let admitted = match receiver.admit(link, &batch) {
            Ok(admitted) => admitted,
            Err(refusal) => return Some(self.answer(&batch.sender, Some(refusal), mutants)),
        };
        let origins = &self.disk.origins;
        let plan = admitted.plan(|source, epoch| {
            let taken = origins.get(&(source.clone(), epoch)).copied().unwrap_or_default();
            Ok::<_, String>(OriginMark { taken, holes: Vec::new() })
        });
        let plan = plan.expect("the look-up does not fail");
        let epoch = self.epoch;
        let events = |disk: &mut Disk| {
            for (record, intake) in batch.records.iter().zip(&plan.intake) {
                if let Intake::Store(origin) = intake {
                    disk.append(epoch, now, record, origin);
                }
            }
            disk.received.received += plan.received.received;
            disk.received.stored += plan.received.stored;
            disk.received.duplicate += plan.received.duplicate;
            disk.received.looped += plan.received.looped;
        };
        let marks = |disk: &mut Disk| {
            disk.origins.extend(plan.origin_marks.clone());
            disk.links.insert(batch.sender.clone(), plan.link);
            let covered = Covered { upto: batch.through.sequence, own: disk.tail().sequence };
            let acks = disk.acks.entry(batch.sender.clone());
            acks.or_insert_with(|| AckMap::new(Sequence::ZERO, 4)).note(covered);
        };
        let split = [Mutant::EventsBeforeMarks, Mutant::MarksBeforeEvents];
        let stored = if split.iter().any(|mutant| mutants.contains(mutant)) {
            let failing = std::mem::take(&mut self.fail_commits);
            if mutants.contains(&Mutant::EventsBeforeMarks) {
                self.commit(events);
                self.fail_commits = failing;
                self.commit(marks)
            } else {
                self.commit(marks);
                self.fail_commits = failing;
                self.commit(events)
            }
        } else {
            self.commit(|disk| {
                events(disk);
                marks(disk);
            })
        };
        if stored {
            return Some(self.answer(&batch.sender, None, mutants));
        }
        let mut answer = self.answer(&batch.sender, None, mutants);
        answer.mark = plan.link.mark;
        mutants.contains(&Mutant::MarkWithoutCommit).then_some(answer)
    }

    /// Makes a batch look admissible, for the mutants that do not check it.
    fn disguise(&self, batch: &mut Batch, mutants: Mutants) {
        let Some(link) = self.disk.links.get(&batch.sender) else { return };
        if mutants.contains(&Mutant::IgnoreGeneration) {
            batch.generation = link.generation;
        }
        let Some(mark) = link.mark else { return };
        let overlaps = batch.after.sequence < mark.sequence && mark.sequence < batch.through.sequence;
        if mutants.contains(&Mutant::TrimOverlap) && overlaps {
            batch.records.retain(|record| record.sequence > mark.sequence);
            batch.after = mark.position();
            let range = batch.through.sequence.since(batch.after.sequence);
            batch.kept_back = range - u64::try_from(batch.records.len()).unwrap();
            rechain(batch);
        }
        if mutants.contains(&Mutant::IgnoreDigestReceiving) && batch.after.sequence == mark.sequence {
            batch.after.digest = mark.digest;
            rechain(batch);
        }
    }
}

/// Makes a dense batch's last digest follow from its first.
fn rechain(batch: &mut Batch) {
    if batch.is_dense() && !batch.records.is_empty() {
        batch.through.digest =
            batch.records.iter().fold(batch.after.digest, |digest, row| row.digest(digest));
    }
}
