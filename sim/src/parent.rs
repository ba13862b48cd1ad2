//! Serves the child's requests as the engine does: several in one transaction, and answers what is durable.

use std::collections::VecDeque;

use cdc_log::{Link, LogTransaction};
use cdc_model::{Answer, Batch, Received, Refusal, Sequence};
use cdc_relay::{Hello, Inbound, Intake, OriginMark, Plan, Receiver, RequestId, refused};

use crate::Mutant;
use crate::failure::Broken;
use crate::network::Message;
use crate::object::{Ended, ON_PURPOSE, Object};

/// Requests that share one transaction at most.
const GROUP_MAX: usize = 4;

/// The parent and what waits to be served. All but the object's files is lost in a crash.
#[derive(Debug)]
pub(crate) struct Parent {
    pub(crate) object: Object,
    pub(crate) inbox: VecDeque<Message>,
    receiver: Receiver,
    mutant: Option<Mutant>,
    /// Of the mutant that answers first: what it has still to commit.
    answered: Vec<Message>,
}

type Served = Vec<(RequestId, Answer)>;

impl Parent {
    pub(crate) fn new(object: Object, mutant: Option<Mutant>) -> Self {
        let receiver = Receiver { id: object.id().clone(), ancestors: Vec::new() };
        Self { object, inbox: VecDeque::new(), receiver, mutant, answered: Vec::new() }
    }

    /// What a crash takes along beside the handle.
    pub(crate) fn forget(&mut self) {
        self.inbox.clear();
        self.answered.clear();
    }

    /// Serves the oldest requests; answers are given only once they are durable.
    pub(crate) fn serve(&mut self) -> Result<Ended<Served>, Broken> {
        let group: Vec<_> = self.inbox.drain(..self.inbox.len().min(GROUP_MAX)).collect();
        if self.mutant == Some(Mutant::AnswerBeforeCommit) {
            return self.serve_early(&group);
        }
        if self.mutant == Some(Mutant::MarkBeforeEvents) {
            return self.serve_apart(&group);
        }
        self.transact(&group, Part::All)
    }

    /// Commits the marks, and in a second transaction the events that they cover.
    fn serve_apart(&mut self, group: &[Message]) -> Result<Ended<Served>, Broken> {
        let ended = self.transact(group, Part::Marks)?;
        let Ended::Committed(answers) = &ended else { return Ok(ended) };
        let taken = group.iter().zip(answers).filter(|(_, (_, answer))| answer.refusal.is_none());
        let taken: Vec<_> = taken.map(|(message, _)| message.clone()).collect();
        self.transact(&taken, Part::Events)?;
        Ok(ended)
    }

    /// Answers the new requests from a transaction that it rolls back, and commits those answered before.
    fn serve_early(&mut self, group: &[Message]) -> Result<Ended<Served>, Broken> {
        let earlier = std::mem::replace(&mut self.answered, group.to_vec());
        if let Ended::CrashedBefore = self.transact(&earlier, Part::All)? {
            return Ok(Ended::CrashedBefore);
        }
        let mut answers = Vec::new();
        let Some(log) = self.object.log_mut() else { return Ok(Ended::CrashedBefore) };
        let receiver = &self.receiver;
        let rolled_back = log.transact(|log| {
            answers = serve_in(log, receiver, group, Part::All, self.mutant)?;
            Err::<(), _>(cdc_log::Error::GivenUp { reason: ON_PURPOSE.to_owned() })
        });
        assert!(rolled_back.is_err(), "nothing commits here");
        Ok(Ended::Committed(answers))
    }

    fn transact(&mut self, group: &[Message], part: Part) -> Result<Ended<Served>, Broken> {
        let (receiver, mutant) = (&self.receiver, self.mutant);
        self.object.commit(|log, gate| {
            log.transact(|log| {
                let answers = serve_in(log, receiver, group, part, mutant)?;
                gate()?;
                Ok(answers)
            })
        })
    }
}

/// Which writes of a plan a transaction holds; a sound parent commits all together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    All,
    Marks,
    Events,
}

fn serve_in(
    log: &mut LogTransaction<'_>,
    receiver: &Receiver,
    group: &[Message],
    part: Part,
    mutant: Option<Mutant>,
) -> cdc_log::Result<Served> {
    let mut answers = Vec::with_capacity(group.len());
    for message in group {
        let (request, sender, refusal) = match message {
            Message::Hello(request, hello) => (*request, &hello.sender, greet(log, receiver, hello)?),
            Message::Batch(request, batch) => {
                (*request, &batch.sender, take(log, receiver, batch, part, mutant)?)
            }
            Message::Answer(..) | Message::Failed(_) => continue,
        };
        let link = log.link(sender)?.as_ref().map(inbound);
        answers.push((request, receiver.answer(link.as_ref(), Sequence::ZERO, refusal)));
    }
    Ok(answers)
}

fn greet(
    log: &mut LogTransaction<'_>,
    receiver: &Receiver,
    hello: &Hello,
) -> cdc_log::Result<Option<Refusal>> {
    let link = log.link(&hello.sender)?.as_ref().map(inbound);
    match receiver.greet(link.as_ref(), hello) {
        Ok(link) => log.set_link(&hello.sender, &link_of(link)).map(|()| None),
        Err(refusal) => Ok(Some(refusal)),
    }
}

fn take(
    log: &mut LogTransaction<'_>,
    receiver: &Receiver,
    batch: &Batch,
    part: Part,
    mutant: Option<Mutant>,
) -> cdc_log::Result<Option<Refusal>> {
    let link = log.link(&batch.sender)?.as_ref().map(inbound);
    let link = if part == Part::Events { link.map(|link| before(link, batch)) } else { link };
    let admitted = match receiver.admit(link.as_ref(), batch) {
        Ok(admitted) => admitted,
        Err(Refusal::NotAtMark { after, mark }) if mutant == Some(Mutant::RepeatTaken) && after < mark => {
            return repeat(log, batch).map(|()| None);
        }
        Err(refusal) => {
            count(log, &refused(batch))?;
            return Ok(Some(refusal));
        }
    };
    let plan = admitted.plan(|source, epoch| {
        let taken = if part == Part::Events { Sequence::ZERO } else { log.origin_mark(source, epoch)? };
        Ok::<_, cdc_log::Error>(OriginMark { taken, holes: Vec::new() })
    })?;
    if part != Part::Marks {
        store(log, batch, &plan)?;
    }
    if part != Part::Events {
        move_marks(log, batch, &plan)?;
    }
    Ok(None)
}

fn store(log: &mut LogTransaction<'_>, batch: &Batch, plan: &Plan) -> cdc_log::Result<()> {
    let now = log.now();
    for (record, intake) in batch.records.iter().zip(&plan.intake) {
        if let Intake::Store(origin) = intake {
            log.append_forwarded(record, origin, now)?;
        }
    }
    Ok(())
}

fn move_marks(log: &mut LogTransaction<'_>, batch: &Batch, plan: &Plan) -> cdc_log::Result<()> {
    for ((source, epoch), mark) in &plan.origin_marks {
        log.set_origin_mark(source, *epoch, *mark)?;
    }
    log.set_link(&batch.sender, &link_of(plan.link))?;
    count(log, &plan.received)
}

/// Of the mutant that commits marks first: the link as it was before the batch.
fn before(link: Inbound, batch: &Batch) -> Inbound {
    let mark = (batch.after.sequence > Sequence::ZERO).then(|| cdc_model::Mark::at(batch.epoch, batch.after));
    Inbound { mark, ..link }
}

/// Of the mutant that stores what it has: appends all of a batch, whatever the marks say.
fn repeat(log: &mut LogTransaction<'_>, batch: &Batch) -> cdc_log::Result<()> {
    let now = log.now();
    for record in &batch.records {
        log.append_forwarded(record, &record.origin.via(&batch.sender), now)?;
    }
    Ok(())
}

fn count(log: &mut LogTransaction<'_>, received: &Received) -> cdc_log::Result<()> {
    for (name, by) in [
        ("received", received.received),
        ("stored", received.stored),
        ("duplicate", received.duplicate),
        ("looped", received.looped),
        ("late", received.late),
        ("refused", received.refused),
    ] {
        log.count(name, by)?;
    }
    Ok(())
}

const fn inbound(link: &Link) -> Inbound {
    Inbound { generation: link.generation, session: link.session, mark: link.mark }
}

const fn link_of(link: Inbound) -> Link {
    Link { generation: link.generation, session: link.session, mark: link.mark }
}
