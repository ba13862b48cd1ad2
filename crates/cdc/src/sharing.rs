//! Writes and children's batches that wait in an object's lane share one transaction and one sync.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use cdc_log::{Durability, Error as LogError, Group};
use cdc_model::{mutant, reached};
use cdc_relay::Stages;
use tokio::sync::oneshot;

use crate::lane::message_of;
use crate::node::Node;
use crate::slot::{Slot, Usage};
use crate::{Error, Result};

/// What shares a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// A caller's statements, which are on disk when the caller is told, or later.
    Write(Durability),
    /// Requests of children.
    Intake,
}

/// One of those that share a transaction.
pub(crate) trait Member: Send {
    /// Whether it runs a caller's statements.
    fn is_write(&self) -> bool;

    /// When its part of the transaction must be on disk.
    fn durability(&self) -> Durability;

    /// Does its part of the transaction.
    fn run(&mut self, group: &mut Group<'_, '_>, stages: Option<&Stages>);

    /// Tells its caller why it was not run.
    fn refuse(self: Box<Self>, error: Error);

    /// Tells its caller, once it is known what became of the transaction.
    fn tell(self: Box<Self>, node: &mut Node, committed: Result<(), &Arc<LogError>>);
}

/// Runs all of them, in their order and in as few transactions as may be. None is told before its commit, and none is
/// forgotten.
pub(crate) fn run_together(slot: &mut Slot, members: Vec<Box<dyn Member>>) {
    let mut waiting = VecDeque::from(members);
    while let Some(first) = waiting.pop_front() {
        let node = match slot.node(Usage::Use) {
            Ok(node) => node,
            Err(error) => {
                // The files may be there for the next.
                first.refuse(error);
                continue;
            }
        };
        waiting.push_front(first);
        // The least that one of them is told.
        let durability = waiting.iter().map(|member| member.durability()).min().unwrap_or_default();
        let mut ran = Vec::new();
        let committed = node.recover().and_then(|()| {
            let (log, stages) = node.log_and_stages();
            log.group(durability, |group| run_some(group, stages, &mut waiting, &mut ran))
        });
        if ran.is_empty() {
            // There was no transaction to run in.
            ran.extend(waiting.drain(..));
        }
        if ran.len() > 1 {
            reached!("group.shared");
        }
        let committed = committed.map_err(Arc::new);
        for member in ran {
            let told = if mutant!("failed-commit-not-told") { Ok(()) } else { committed.as_ref().copied() };
            member.tell(node, told);
        }
    }
}

fn run_some(
    group: &mut Group<'_, '_>,
    stages: Option<&Stages>,
    waiting: &mut VecDeque<Box<dyn Member>>,
    ran: &mut Vec<Box<dyn Member>>,
) {
    while let Some(mut member) = waiting.pop_front() {
        // What cannot be found out is found out by the write itself.
        let is_alone = member.is_write() && group.writes_alone().unwrap_or(true);
        if is_alone && !ran.is_empty() {
            waiting.push_front(member);
            return;
        }
        member.run(group, stages);
        ran.push(member);
        if is_alone || group.is_full() {
            return;
        }
    }
}

/// What is done in a transaction that is shared, what is done once it has committed, and who waits for it.
pub(crate) struct Share<W, T, R, S> {
    pub(crate) kind: Sharing,
    pub(crate) work: Option<W>,
    pub(crate) then: T,
    pub(crate) done: Option<Result<R>>,
    pub(crate) way: oneshot::Sender<Result<S>>,
}

impl<W, T, R, S> Member for Share<W, T, R, S>
where
    W: FnOnce(&mut Group<'_, '_>, Option<&Stages>) -> Result<R> + Send,
    T: FnOnce(&mut Node, R) -> Result<S> + Send,
    R: Send,
    S: Send,
{
    fn is_write(&self) -> bool {
        matches!(self.kind, Sharing::Write(_))
    }

    fn durability(&self) -> Durability {
        match self.kind {
            Sharing::Write(durability) => durability,
            Sharing::Intake => Durability::Full,
        }
    }

    fn run(&mut self, group: &mut Group<'_, '_>, stages: Option<&Stages>) {
        if let Some(work) = self.work.take() {
            self.done = Some(guarded(|| work(group, stages)));
        }
    }

    fn refuse(self: Box<Self>, error: Error) {
        drop(self.way.send(Err(error)));
    }

    fn tell(self: Box<Self>, node: &mut Node, committed: Result<(), &Arc<LogError>>) {
        let Self { then, done, way, .. } = *self;
        let told = match (done, committed) {
            (Some(Err(error)), _) => Err(error),
            (_, Err(source)) => Err(LogError::NotCommitted { source: Arc::clone(source) }.into()),
            (Some(Ok(done)), Ok(())) => guarded(|| then(node, done)),
            (None, Ok(())) => Err(Error::ShutDown),
        };
        // Whoever does not wait any more does not want to know.
        drop(way.send(told));
    }
}

/// A panic in a caller's work is that caller's error and nobody else's.
fn guarded<R>(work: impl FnOnce() -> Result<R>) -> Result<R> {
    // What it works on is left by transactions and savepoints, which are undone when they are unwound.
    let done = catch_unwind(AssertUnwindSafe(work));
    done.unwrap_or_else(|panic| Err(Error::Panicked { message: message_of(&*panic) }))
}
