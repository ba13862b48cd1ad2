//! One object's durable side: its log, and what its parent role decides about its children's batches. Everything
//! here runs on the object's [`Lane`](crate::lane::Lane).

use std::collections::BTreeMap;

use cdc_log::{Attached, Limit, Log, LogTransaction, Pruned, Retention};
use cdc_model::{Answer, Batch, ObjectId, Position, Received, Record, Refusal, Sequence, Timestamp, mutant};
use cdc_net::Request;
use cdc_relay::{
    AckMap, Covered, Cut, Cutter, GrantRequest, Inbound, Intake, OriginMark, Outbound, Receiver, Slice,
    Stages, Verdict, refused,
};

use crate::pruner::Reach;
use crate::{Error, Result};

/// Positions per child that wait to be settled before they are thinned out.
const ACKS_MAX: usize = 1024;

/// Bytes of bodies a cut reads at a time at most.
const CUT_READ_BYTES: usize = 1 << 20;

/// Names under which the engine keeps its own rows beside those of stages.
const UPLINK: &str = "@uplink";
const STAGES: &str = "@stages";
const CURSOR: &str = "cursor";

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
    pub(crate) memory: Memory,
}

/// What a node knows beside its files. It outlives their closing.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// What decides about children's events; `None` until some are set.
    stages: Option<Stages>,
    /// Up to where stages had decided when they were set or the log was opened, if stages were ever set: until they are
    /// set, what lies behind it waits for them.
    decided: Option<Position>,
    acks: BTreeMap<ObjectId, AckMap>,
    /// Where the log ended when it was opened: earlier marks of children are settled once this is.
    opened_at: Sequence,
}

impl Node {
    /// A node over an open log, whose own captured rows are drained first.
    pub(crate) fn new(mut hot: Hot) -> Result<Self> {
        if !mutant!("recovered-rows-not-synced") {
            hot.log_mut().make_durable()?;
        }
        if let Hot::Owned(log) = &mut hot {
            // Of a large write before a crash.
            log.drain()?;
        }
        let decided = decided_in(hot.log())?;
        let opened_at = hot.log().tail().sequence;
        Ok(Self { hot, memory: Memory { decided, opened_at, ..Memory::default() } })
    }

    pub(crate) fn log(&self) -> &Log {
        self.hot.log()
    }

    /// The log of an object whose database is the engine's own.
    pub(crate) fn owned(&mut self, id: &ObjectId) -> Result<&mut Log> {
        match &mut self.hot {
            Hot::Owned(log) => Ok(log),
            Hot::Attached(attached) => {
                Err(Error::Attached { id: id.clone(), database: attached.database().to_owned() })
            }
        }
    }

    /// The log, and what decides about what is taken into it.
    pub(crate) fn log_and_stages(&mut self) -> (&mut Log, Option<&Stages>) {
        (self.hot.log_mut(), self.memory.stages.as_ref())
    }

    /// Opens the log anew after a commit that failed.
    pub(crate) fn recover(&mut self) -> Result<(), cdc_log::Error> {
        if mutant!("poisoned-log-not-reopened") { Ok(()) } else { self.hot.log_mut().recover() }
    }

    /// Replaces the stages. They decide about everything that none has decided about yet; other records keep their
    /// verdicts. Without any, everything goes on.
    pub(crate) fn set_stages(&mut self, stages: Stages) -> Result<()> {
        if stages.is_empty() {
            self.hot.log_mut().transact(|log| log.set_stage_state(STAGES, CURSOR, None))?;
            (self.memory.stages, self.memory.decided) = (None, None);
            return Ok(());
        }
        // The log alone knows: intake has moved the cursor since, and so has an attempt that failed half way.
        let known =
            if mutant!("stages-begin-where-opened") { self.memory.decided } else { decided_in(self.log())? };
        let mut decided = known.unwrap_or(self.log().tail());
        while decided.sequence < self.log().tail().sequence {
            let records = self.log().read(decided.sequence, Limit::default())?;
            decided = records.iter().fold(decided, |at, record| record.position_after(at));
            self.hot.log_mut().transact(|log| run_stages(log, &stages, &records, decided.sequence))?;
        }
        self.hot.log_mut().transact(|log| put_cursor(log, decided.sequence))?;
        (self.memory.stages, self.memory.decided) = (Some(stages), Some(decided));
        Ok(())
    }

    /// Whether stages that must decide were not set since the log was opened.
    pub(crate) const fn waits_for_stages(&self) -> bool {
        self.memory.stages.is_none() && self.memory.decided.is_some()
    }

    /// Up to where the link may send.
    pub(crate) fn sendable(&self) -> Position {
        match self.memory.decided {
            Some(decided) if self.memory.stages.is_none() => decided,
            _ => self.log().tail(),
        }
    }

    /// Drains what the object's own writes captured and did not drain themselves.
    pub(crate) fn drain_own(&mut self) -> Result<()> {
        match &mut self.hot {
            Hot::Owned(log) => Ok(log.drain().map(drop)?),
            Hot::Attached(_) => Ok(()),
        }
    }

    /// The link to the parent, as stored.
    pub(crate) fn outbound(&self, parent: &ObjectId) -> Result<Outbound> {
        outbound(self.log(), parent)
    }

    pub(crate) fn save_outbound(&mut self, parent: &ObjectId, link: &Outbound) -> Result<()> {
        let acked = if mutant!("acked-saved-ahead") { self.log().tail() } else { link.acked };
        let text = serde_json::to_string(&Outbound { acked, ..*link }).map_err(damaged_link)?;
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
                let dropped = record.body.is_schema() && mutant!("schema-record-dropped");
                let step = match verdicts.contains_key(&record.sequence) || dropped {
                    true => cutter.keep_back(&record)?,
                    false => cutter.push(record)?,
                };
                if step.is_break() {
                    return Ok(cutter.finish());
                }
            }
        }
    }

    /// Answers requests of children that were served, once that is durable.
    pub(crate) fn answers(
        &mut self,
        receiver: &Receiver,
        settled: Sequence,
        served: Served,
    ) -> Result<Vec<Answer>> {
        let Served { requests, own } = served;
        requests
            .into_iter()
            .map(|(child, refusal)| self.answer(receiver, settled, child, refusal, own))
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
        let own = own.max(self.memory.opened_at);
        let acks = self.memory.acks.entry(child).or_insert_with(|| AckMap::new(Sequence::ZERO, ACKS_MAX));
        if let Some(mark) = link.and_then(|link| link.mark) {
            acks.note(Covered { upto: mark.sequence, own });
        }
        Ok(receiver.answer(link.as_ref(), acks.settle(settled), refusal))
    }

    /// Answers children that nothing is taken from just now. What is settled they hear all the same: rows of theirs may
    /// go that lie on this disk.
    pub(crate) fn hold_back(
        &mut self,
        receiver: &Receiver,
        settled: Sequence,
        children: &[ObjectId],
    ) -> Result<Vec<Answer>> {
        let answer = |child: &ObjectId| {
            let link = self.log().link(child)?.as_ref().map(inbound);
            // Without acknowledgements of this life nobody knows what is.
            let acks = self.memory.acks.get_mut(child);
            let settled = acks.map_or(Sequence::ZERO, |acks| acks.settle(settled));
            Ok(receiver.answer(link.as_ref(), settled, Some(Refusal::Busy)))
        };
        children.iter().map(answer).collect()
    }

    /// Takes one step in bringing the log back within its limits.
    pub(crate) fn prune(&mut self, retention: &Retention, now: Timestamp, reach: Reach) -> Result<Pruned> {
        if let Some(parent) = &reach.parent {
            self.store_settled(parent, reach.settled)?;
        }
        // Stages that are set have decided about everything there is.
        let Memory { decided, stages, .. } = &self.memory;
        let decided = decided.filter(|_| stages.is_none()).map(|decided| decided.sequence);
        let holds = Reach { decided, ..reach }.holds(self.log())?;
        Ok(self.hot.log_mut().prune(retention, now, &holds)?)
    }

    /// Stores what is settled before rows go on the strength of it: a link that is begun anew must not want them again.
    fn store_settled(&mut self, parent: &ObjectId, settled: Sequence) -> Result<()> {
        let mut link = self.outbound(parent)?;
        if link.settled >= settled {
            return Ok(());
        }
        link.settled = settled;
        if link.acked.sequence < settled {
            // What is settled was acknowledged, and compared by then.
            link.acked = self.log().position_at(settled)?;
        }
        self.save_outbound(parent, &link)
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

/// Children whose requests were served, each with why it was refused, and up to where their events reach in the log.
#[derive(Debug)]
pub(crate) struct Served {
    requests: Vec<(ObjectId, Option<Refusal>)>,
    own: Sequence,
}

/// Serves requests of children together, in the transaction.
pub(crate) fn serve(
    log: &mut LogTransaction<'_>,
    receiver: &Receiver,
    stages: Option<&Stages>,
    requests: &[Request],
) -> Result<Served, cdc_log::Error> {
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
            Request::Grant(request) => grant(log, receiver, request)?,
        };
        served.push((request.sender().clone(), refusal));
    }
    if let (Some(stages), Some(newest)) = (stages, stored.last()) {
        run_stages(log, stages, &stored, newest.sequence)?;
    }
    // Stage outputs come last: a child's events are settled when what they made is.
    Ok(Served { requests: served, own: log.tail().sequence })
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
        Err(Refusal::NotAtMark { after, mark }) if after < mark && mutant!("old-batch-acked-blindly") => {
            return Ok(None);
        }
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
    let mut taken: Vec<_> = batch.records.iter().zip(&plan.intake).collect();
    if mutant!("records-swapped") {
        taken.reverse();
    }
    for (record, intake) in taken {
        if let Intake::Store(origin) = intake {
            stored.push(log.append_forwarded(record, origin, now)?);
        }
    }
    for ((source, epoch), mark) in &plan.origin_marks {
        if !mutant!("origin-mark-not-moved") {
            log.set_origin_mark(source, *epoch, *mark)?;
        }
    }
    log.set_link(&batch.sender, &link_of(plan.link))?;
    count(log, &plan.received)?;
    Ok(None)
}

/// Grants a child a new epoch in the transaction, or says why not. A repeat changes nothing.
fn grant(
    log: &mut LogTransaction<'_>,
    receiver: &Receiver,
    request: &GrantRequest,
) -> Result<Option<Refusal>, cdc_log::Error> {
    let known = log.link(&request.sender)?.as_ref().map(inbound);
    match receiver.grant(known.as_ref(), request) {
        Ok((link, _)) if known == Some(link) => Ok(None),
        Ok((link, _)) => {
            log.set_link(&request.sender, &link_of(link))?;
            log.count("granted", 1)?;
            Ok(None)
        }
        Err(refusal) => {
            log.count("not-granted", 1)?;
            Ok(Some(refusal))
        }
    }
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

/// Runs the stages over records that end at `through`. Their state, outputs and cursor commit together, with the
/// events themselves where those have just come in, so that a hop stays one sync.
fn run_stages(
    log: &mut LogTransaction<'_>,
    stages: &Stages,
    records: &[Record],
    through: Sequence,
) -> Result<(), cdc_log::Error> {
    let look_up = |key: &cdc_relay::StateKey| log.stage_state(&key.stage, &key.key).map_err(Into::into);
    let given_up = |error: cdc_relay::Error| cdc_log::Error::GivenUp { reason: error.to_string() };
    let pass = stages.run(records, look_up).map_err(given_up)?;
    for (sequence, verdict) in &pass.verdicts {
        let name = match verdict {
            Verdict::Forward => continue,
            Verdict::Filtered => "filtered",
            Verdict::Absorbed => "absorbed",
            Verdict::DeadLettered => "dead-lettered",
        };
        if !mutant!("verdict-not-stored") {
            log.set_verdict(*sequence, name)?;
        }
        log.count(name, 1)?;
    }
    for letter in pass.dead_letters.iter().filter(|_| !mutant!("dead-letter-lost")) {
        log.add_dead_letter(letter.sequence, &letter.stage, &letter.reason)?;
    }
    for (key, text) in pass.writes.iter().filter(|_| !mutant!("stage-state-not-stored")) {
        log.set_stage_state(&key.stage, &key.key, text.as_deref())?;
    }
    let now = log.now();
    for emit in pass.emit.iter().filter(|_| !mutant!("stage-output-not-stored")) {
        log.append(now, emit.to_body())?;
    }
    if mutant!("stage-cursor-not-moved") {
        return Ok(());
    }
    put_cursor(log, through)
}

/// Up to where stages have decided, if any were ever set. Nobody decides about what was pruned.
pub(crate) fn decided_in(log: &Log) -> Result<Option<Position>> {
    let Some(cursor) = log.stage_state(STAGES, CURSOR)? else { return Ok(None) };
    let cursor: Sequence = cursor.parse()?;
    let below_floor = Sequence::new(log.floor()?.get() - 1);
    Ok(Some(before_next_of_a_child(log, log.position_at(cursor.max(below_floor))?)?))
}

/// The last position from `at` on behind which no child's event lies: stages decide about nothing else.
fn before_next_of_a_child(log: &Log, mut at: Position) -> Result<Position> {
    while at.sequence < log.tail().sequence {
        for record in log.read(at.sequence, Limit::default())? {
            if !record.is_own() {
                return Ok(at);
            }
            at = record.position_after(at);
        }
    }
    Ok(at)
}

fn put_cursor(log: &mut LogTransaction<'_>, decided: Sequence) -> Result<(), cdc_log::Error> {
    log.set_stage_state(STAGES, CURSOR, Some(&decided.to_string()))
}
