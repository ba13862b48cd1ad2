//! One object's durable side: its log, and what its parent role decides about its children's batches. Everything
//! here runs on the object's [`Lane`](crate::lane::Lane).

use std::collections::{BTreeMap, BTreeSet};

use cdc_log::{Attached, Limit, Log, LogTransaction};
use cdc_model::{Answer, Batch, ObjectId, Position, Received, Record, Refusal, Sequence};
use cdc_net::Request;
use cdc_relay::{
    AckMap, Covered, Cut, Cutter, Inbound, Intake, OriginMark, Outbound, Receiver, Slice, Stages, Verdict,
    refused,
};

use crate::{Error, Result};

/// Positions per child that wait to be settled before they are thinned out.
const ACKS_MAX: usize = 1024;

/// Bytes of bodies a cut reads at a time at most.
const CUT_READ_BYTES: usize = 1 << 20;

/// Names under which the engine keeps its own rows beside those of stages.
const UPLINK: &str = "@uplink";
const STAGES: &str = "@stages";

/// An object's log and where it lies.
#[derive(Debug)]
pub(crate) enum Hot {
    Owned(Box<Log>),
    Attached(Box<Attached>),
}

impl Hot {
    pub(crate) fn log(&self) -> &Log {
        match self {
            Self::Owned(log) => log,
            Self::Attached(attached) => attached.log(),
        }
    }

    pub(crate) fn log_mut(&mut self) -> &mut Log {
        match self {
            Self::Owned(log) => log,
            Self::Attached(attached) => attached.log_mut(),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) hot: Hot,
    /// None until some are set: then nothing is decided and no cursor kept.
    stages: Option<Stages>,
    acks: BTreeMap<ObjectId, AckMap>,
    /// Where the log ended when it was opened: earlier marks of children are settled once this is.
    opened_at: Sequence,
}

impl Node {
    pub(crate) fn new(hot: Hot) -> Self {
        let opened_at = hot.log().tail().sequence;
        Self { hot, stages: None, acks: BTreeMap::new(), opened_at }
    }

    pub(crate) fn log(&self) -> &Log {
        self.hot.log()
    }

    /// Replaces the stages. They take effect at the next batch; earlier records keep their verdicts.
    pub(crate) fn set_stages(&mut self, stages: Stages) {
        self.stages = Some(stages);
    }

    /// The link to the parent, as stored.
    pub(crate) fn outbound(&self, parent: &ObjectId) -> Result<Outbound> {
        outbound(self.log(), parent)
    }

    pub(crate) fn save_outbound(&mut self, parent: &ObjectId, link: &Outbound) -> Result<()> {
        let text = serde_json::to_string(link).map_err(damaged_link)?;
        self.hot.log_mut().transact(|log| log.set_stage_state(UPLINK, parent.as_str(), Some(&text)))?;
        Ok(())
    }

    /// Reads a range of the log for the uplink. What a stage keeps back counts as a position only.
    pub(crate) fn cut(&self, cut: Cut) -> Result<Slice> {
        let log = self.log();
        let verdicts = log.verdicts(cut.after.sequence, cut.through_max)?;
        let limit = Limit { records: cut.records_max.clamp(16, 1024), bytes: CUT_READ_BYTES };
        let mut cutter = Cutter::new(cut);
        loop {
            let records = log.read(cutter.position().sequence, limit)?;
            if records.is_empty() {
                return Ok(cutter.finish());
            }
            for record in records {
                let step = match verdicts.contains_key(&record.sequence) {
                    true => cutter.keep_back(&record)?,
                    false => cutter.push(record)?,
                };
                if step.is_break() {
                    return Ok(cutter.finish());
                }
            }
        }
    }

    /// Serves requests of children together: one transaction, one sync. Each answer says what is durable.
    pub(crate) fn serve(
        &mut self,
        receiver: &Receiver,
        settled: Sequence,
        requests: &[Request],
    ) -> Result<Vec<Answer>> {
        let stages = self.stages.as_ref();
        let served = self.hot.log_mut().transact(|log| {
            let before = log.tail().sequence;
            let mut served = Vec::with_capacity(requests.len());
            let mut stored = Vec::new();
            for request in requests {
                let refusal = match request {
                    Request::Hello(hello) => {
                        let link = log.link(&hello.sender)?.as_ref().map(inbound);
                        match receiver.greet(link.as_ref(), hello) {
                            Ok(link) => log.set_link(&hello.sender, &link_of(link)).map(|()| None)?,
                            Err(refusal) => Some(refusal),
                        }
                    }
                    Request::Batch(batch) => take(log, receiver, batch, &mut stored)?,
                };
                served.push((request.sender().clone(), refusal, log.tail().sequence));
            }
            if let Some(stages) = stages {
                run_stages(log, stages, before, &stored)?;
            }
            Ok(served)
        })?;
        served
            .into_iter()
            .map(|(child, refusal, own)| self.answer(receiver, settled, child, refusal, own))
            .collect()
    }

    fn answer(
        &mut self,
        receiver: &Receiver,
        settled: Sequence,
        child: ObjectId,
        refusal: Option<Refusal>,
        own: Sequence,
    ) -> Result<Answer> {
        let link = self.log().link(&child)?.as_ref().map(inbound);
        let opened_at = self.opened_at;
        let acks = self.acks.entry(child).or_insert_with(|| AckMap::new(Sequence::ZERO, ACKS_MAX));
        if let Some(mark) = link.and_then(|link| link.mark) {
            acks.note(Covered { upto: mark.sequence, own: own.max(opened_at) });
        }
        Ok(receiver.answer(link.as_ref(), acks.settle(settled), refusal))
    }

    pub(crate) fn position_at(&self, sequence: Sequence) -> Result<Option<Position>> {
        match self.log().position_at(sequence) {
            Ok(position) => Ok(Some(position)),
            Err(cdc_log::Error::BelowFloor { .. } | cdc_log::Error::BeyondTail { .. }) => Ok(None),
            Err(error) => Err(Error::Log(error)),
        }
    }
}

/// The link to the parent, as stored in an object's log.
pub(crate) fn outbound(log: &Log, parent: &ObjectId) -> Result<Outbound> {
    let Some(stored) = log.stage_state(UPLINK, parent.as_str())? else { return Ok(Outbound::NEW) };
    serde_json::from_str(&stored).map_err(damaged_link)
}

fn damaged_link(source: serde_json::Error) -> Error {
    Error::Damaged { path: "the stored link".into(), source }
}

const fn inbound(link: &cdc_log::Link) -> Inbound {
    Inbound { generation: link.generation, session: link.session, mark: link.mark }
}

const fn link_of(link: Inbound) -> cdc_log::Link {
    cdc_log::Link { generation: link.generation, session: link.session, mark: link.mark }
}

/// Takes one batch into the transaction, or says why not.
fn take(
    log: &mut LogTransaction<'_>,
    receiver: &Receiver,
    batch: &Batch,
    stored: &mut Vec<Record>,
) -> Result<Option<Refusal>, cdc_log::Error> {
    let link = log.link(&batch.sender)?.as_ref().map(inbound);
    let admitted = match receiver.admit(link.as_ref(), batch) {
        Ok(admitted) => admitted,
        Err(refusal) => {
            count(log, &refused(batch))?;
            return Ok(Some(refusal));
        }
    };
    let plan = admitted.plan(|source, epoch| {
        let taken = log.origin_mark(source, epoch)?;
        Ok::<_, cdc_log::Error>(OriginMark { taken, holes: Vec::new() })
    })?;
    let now = log.now();
    for (record, intake) in batch.records.iter().zip(&plan.intake) {
        if let Intake::Store(origin) = intake {
            stored.push(log.append_forwarded(record, origin, now)?);
        }
    }
    for ((source, epoch), mark) in &plan.origin_marks {
        log.set_origin_mark(source, *epoch, *mark)?;
    }
    log.set_link(&batch.sender, &link_of(plan.link))?;
    count(log, &plan.received)?;
    Ok(None)
}

fn count(log: &mut LogTransaction<'_>, received: &Received) -> Result<(), cdc_log::Error> {
    for (name, by) in [
        ("received", received.received),
        ("stored", received.stored),
        ("duplicate", received.duplicate),
        ("looped", received.looped),
        ("late", received.late),
        ("refused", received.refused),
    ] {
        if by > 0 {
            log.count(name, by)?;
        }
    }
    Ok(())
}

/// Runs the stages over the children's events that this transaction stored. Their state, outputs and cursor commit
/// with the events, so that a hop stays one sync.
fn run_stages(
    log: &mut LogTransaction<'_>,
    stages: &Stages,
    before: Sequence,
    stored: &[Record],
) -> Result<(), cdc_log::Error> {
    if stored.is_empty() {
        return Ok(());
    }
    let look_up = |key: &cdc_relay::StateKey| log.stage_state(&key.stage, &key.key).map_err(Into::into);
    let given_up = |error: cdc_relay::Error| cdc_log::Error::GivenUp { reason: error.to_string() };
    let pass = stages.run(stored, look_up).map_err(given_up)?;
    let rejected: BTreeSet<_> = pass.dead_letters.iter().map(|letter| letter.sequence).collect();
    for (sequence, verdict) in &pass.verdicts {
        let name = match verdict {
            Verdict::Forward => continue,
            Verdict::Filtered => "filtered",
            Verdict::Absorbed => "absorbed",
            Verdict::DeadLettered => "dead-lettered",
        };
        debug_assert!(*sequence > before, "stages run over new records only");
        log.set_verdict(*sequence, name)?;
        log.count(name, 1)?;
    }
    debug_assert!(rejected.len() == pass.dead_letters.len(), "one dead letter per record");
    for letter in &pass.dead_letters {
        log.add_dead_letter(letter.sequence, &letter.stage, &letter.reason)?;
    }
    for (key, text) in &pass.writes {
        log.set_stage_state(&key.stage, &key.key, text.as_deref())?;
    }
    let now = log.now();
    for emit in &pass.emit {
        log.append(now, emit.to_body())?;
    }
    if let Some(through) = pass.through {
        log.set_stage_state(STAGES, "cursor", Some(&through.to_string()))?;
    }
    Ok(())
}
