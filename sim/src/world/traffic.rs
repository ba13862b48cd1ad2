//! What befell the requests between processes, as the world sees it: the same for messages and for connections.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A process, by its place in the plan.
pub(crate) type HostIndex = usize;

/// What befell messages so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TrafficCounts {
    pub(crate) sent: u64,
    pub(crate) lost_requests: u64,
    pub(crate) repeated: u64,
    /// Answers that were lost after the receiver had committed.
    pub(crate) lost_acks: u64,
    /// Partitions that stopped a batch.
    pub(crate) partitions: u64,
    /// Requests that come once more and much later.
    pub(crate) strays: u64,
    /// Batches of clones.
    pub(crate) clones: u64,
}

/// The requests of a world. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Traffic(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    counts: TrafficCounts,
    partitions: BTreeMap<(HostIndex, HostIndex), Partition>,
}

/// The last time that two hosts did not reach each other.
#[derive(Debug)]
struct Partition {
    /// When it ended, unless it lasts.
    until: Option<Duration>,
    /// Whether it has stopped a batch.
    met: bool,
}

impl Traffic {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn counts(&self) -> TrafficCounts {
        self.lock().counts
    }

    pub(crate) fn count(&self, count: impl FnOnce(&mut TrafficCounts)) {
        count(&mut self.lock().counts);
    }

    pub(crate) fn part(&self, one: HostIndex, other: HostIndex) {
        let mut state = self.lock();
        let partition = state.partitions.entry(pair(one, other));
        let fresh = Partition { until: None, met: false };
        let known = partition.or_insert(fresh);
        if known.until.is_some() {
            *known = Partition { until: None, met: false };
        }
    }

    pub(crate) fn mend(&self, one: HostIndex, other: HostIndex, now: Duration) {
        if let Some(partition) = self.lock().partitions.get_mut(&pair(one, other)) {
            partition.until.get_or_insert(now);
        }
    }

    pub(crate) fn is_parted(&self, one: HostIndex, other: HostIndex) -> bool {
        self.lock().partitions.get(&pair(one, other)).is_some_and(|partition| partition.until.is_none())
    }

    /// A batch that was sent at this time did not arrive, or its answer did not: the partition that stopped it counts,
    /// once.
    pub(crate) fn batch_stopped(&self, one: HostIndex, other: HostIndex, sent: Duration) {
        let mut state = self.lock();
        let Some(partition) = state.partitions.get_mut(&pair(one, other)) else { return };
        let was_met = partition.met || partition.until.is_some_and(|until| until < sent);
        if !was_met {
            partition.met = true;
            state.counts.partitions += 1;
        }
    }
}

const fn pair(one: HostIndex, other: HostIndex) -> (HostIndex, HostIndex) {
    if one < other { (one, other) } else { (other, one) }
}
