//! What a run consists of: options and faults, drawn from a seed. A plan is a value: it can be stored, replayed and
//! made smaller.

use std::time::Duration;

use cdc::Trim;
use serde::{Deserialize, Serialize};

use crate::random::Random;
use crate::topology;

mod draw;

/// One run, whole: the same plan gives the same run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FaultPlan {
    /// Feeds every stream of random numbers.
    pub seed: u64,
    /// What the world is like.
    pub options: Options,
    /// What befalls it, in order of time.
    pub faults: Vec<Fault>,
    /// The fault that is planted into the code, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mutant: Option<String>,
}

/// What the world is like while it lasts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Options {
    /// Objects, the root included.
    pub objects: usize,
    /// Most objects in a chain.
    pub depth_max: usize,
    /// Most children of one object.
    pub fan_out_max: usize,
    /// Processes; each has a disk of its own.
    pub hosts: usize,
    /// Of a hundred children, how many live in their parent's process.
    pub near_percent: u64,
    /// How long the workload and the faults last. Then everything heals.
    pub trouble_ms: u64,
    /// Most transactions of the workload.
    pub writes_max: u64,
    /// Longest pause between two transactions of one writer.
    pub write_pause_max_ms: u64,
    /// Writers in each process, which work side by side.
    pub writers: usize,
    /// How a hop behaves.
    pub link: Link,
    /// Of a hundred objects with a parent, how many archive as well; the root does unless this is absent.
    pub archive_percent: Option<u64>,
    /// Events that wait before they are archived.
    pub archive_events_min: u64,
    /// Of a hundred objects with children, how many filter.
    pub filter_percent: u64,
    /// Of a hundred objects with children, how many reject events of some kind.
    #[serde(default)]
    pub reject_percent: u64,
    /// Of a hundred objects with children, how many count.
    pub count_percent: u64,
    /// Of a hundred objects, how many have a consumer with effects.
    pub consume_percent: u64,
    /// Of a hundred objects, how many are attached to a database that an application writes.
    #[serde(default)]
    pub attached_percent: u64,
    /// Of a hundred of these, how many are written without any sync: after a loss of power their application begins
    /// anew.
    #[serde(default)]
    pub reckless_percent: u64,
    /// Of a hundred of these, in how many the application changes the captured tables now and then: their columns,
    /// or what captures them.
    #[serde(default)]
    pub redesigned_percent: u64,
    /// So many of the newest rows of each log stay hot once everybody has taken them; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention_events: Option<u64>,
    /// How often tables are compared with logs, in milliseconds; 0 never. Applications that change their tables then
    /// write around capture as well.
    #[serde(default)]
    pub audit_ms: u64,
    /// When drained rows are removed from applications' databases.
    #[serde(default)]
    pub trim: Trim,
    /// Of a hundred attached databases, how many hold many rows before they are attached.
    #[serde(default)]
    pub filled_percent: u64,
    /// Of a hundred owned objects, in how many writes are acknowledged before they are on disk.
    #[serde(default)]
    pub normal_percent: u64,
    /// How long these writes wait for more of them, in milliseconds; the default of the engine when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sync_ms: Option<u64>,
    /// Copies of owned objects' files in which bits rot at the end.
    #[serde(default)]
    pub rotten: u64,
    /// The network, while the trouble lasts.
    pub network: NetworkRates,
    /// The disks, while the trouble lasts.
    pub disk: DiskRates,
    /// The store of the archives, while the trouble lasts.
    pub store: StoreRates,
    /// Faults that the code itself has sites for.
    pub sites: SiteRates,
    /// Longest wait of a job for a thread, in microseconds.
    pub job_delay_max_us: u64,
    /// Objects of a process that have their files open at the same time; the default of the engine when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_objects_max: Option<usize>,
    /// After so long an object that nobody uses is closed; the default of the engine when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_ms: Option<u64>,
}

/// The settings of every link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Link {
    /// Most records in a batch.
    pub batch_size: usize,
    /// How long a batch may fill.
    pub batch_timeout_ms: u64,
    /// Most bytes in a batch.
    pub batch_bytes_max: usize,
}

/// How messages fare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkRates {
    /// Of ten thousand requests or answers, how many are lost.
    pub loss_per_10_000: u64,
    /// Of ten thousand answers to what was committed, how many more are lost.
    #[serde(default)]
    pub answers_lost_per_10_000: u64,
    /// Of ten thousand requests, how many arrive twice.
    pub repeat_per_10_000: u64,
    /// The longest way.
    pub delay_max_us: u64,
    /// Of ten thousand batches, how many a clone of their sender sends as well, with a history of its own.
    #[serde(default)]
    pub clones_per_10_000: u64,
    /// Of ten thousand requests, how many come once more and much later, when whoever sent them may be gone.
    #[serde(default)]
    pub strays_per_10_000: u64,
}

/// How disks fare. Rates are of a million operations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DiskRates {
    /// Reads that fail.
    pub read_errors: u64,
    /// Writes that fail.
    pub write_errors: u64,
    /// Syncs that fail.
    pub sync_errors: u64,
    /// Opens that fail.
    pub open_errors: u64,
    /// Syncs that take long.
    pub slow_syncs: u64,
}

/// How requests to the store fare. Rates are of ten thousand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoreRates {
    /// Fail, and nothing was done.
    pub errors: u64,
    /// Are done, and seem to fail.
    pub lost_acks: u64,
    /// Are refused because there are too many.
    pub throttled: u64,
    /// Of writes: seem to fail, and are done some requests later, also when the process is gone by then.
    #[serde(default)]
    pub late: u64,
    /// Of creates: are repeated by the client itself, which then finds its own object.
    #[serde(default)]
    pub echoes: u64,
    /// Are done, and take seconds.
    #[serde(default)]
    pub slow: u64,
    /// Of ten thousand occasions, at how many somebody else commits to one of the tables.
    #[serde(default)]
    pub foreign_commits: u64,
}

/// How often sites in the code fail on purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SiteRates {
    /// Of a hundred sites, how many are active.
    pub active_percent: u64,
    /// Of ten thousand passes over an active one, how many fail.
    pub fire_per_10_000: u64,
}

/// One thing that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fault {
    /// When, since the world began.
    pub at_ms: u64,
    /// What.
    #[serde(flatten)]
    pub kind: FaultKind,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "fault")]
pub enum FaultKind {
    /// A process ends at an operation of its disk, and is back after a time.
    Crash {
        /// Which.
        host: usize,
        /// At its so manieth operation from now on; at once when 0.
        operation: u64,
        /// Whether what was not synced may be lost.
        power: bool,
        /// How long it is down.
        down_ms: u64,
        /// So long after it is back the power goes, with what a killed process had written and not synced; 0: it does
        /// not.
        #[serde(default, skip_serializing_if = "is_zero")]
        again_ms: u64,
        /// Whether the operation is to be a sync: the next one from there on.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        at_sync: bool,
    },
    /// A process closes what it has open, in order, and ends.
    Shutdown {
        /// Which.
        host: usize,
        /// How long it may empty what is under way.
        deadline_ms: u64,
        /// How long it is down.
        down_ms: u64,
    },
    /// Somebody names another parent for an object, which goes on below the one it has.
    Reparent {
        /// Which object.
        object: usize,
        /// The other parent.
        to: usize,
    },
    /// The files of an object that the engine owns are gone when its process is back.
    Destroy {
        /// Which object.
        object: usize,
        /// How long the process is down.
        down_ms: u64,
    },
    /// Two processes do not reach each other for a time.
    Partition {
        /// One.
        one: usize,
        /// The other.
        other: usize,
        /// How long.
        for_ms: u64,
    },
    /// A process stands still for a time, and goes on as if none had passed.
    Pause {
        /// Which.
        host: usize,
        /// How long.
        for_ms: u64,
    },
    /// A disk has room for so many bytes more for a time.
    DiskFull {
        /// Whose.
        host: usize,
        /// How many bytes.
        room: u64,
        /// How long.
        for_ms: u64,
    },
    /// A process's clock jumps.
    ClockJump {
        /// Whose.
        host: usize,
        /// By how much.
        by_ms: i64,
    },
    /// The store is out of reach for a time.
    StoreOutage {
        /// How long.
        for_ms: u64,
    },
    /// A second engine is opened over the objects of a process that is up.
    SecondEngine {
        /// Which.
        host: usize,
    },
    /// Somebody archives an object's log as well, or that of the next above it that is archived.
    SecondArchiver {
        /// Which object.
        object: usize,
    },
    /// Somebody vacuums an object's database while its process has it open.
    Vacuum {
        /// Which object.
        object: usize,
    },
    /// A copy of an object's files is kept.
    Copy {
        /// Which object.
        object: usize,
    },
    /// The copy of an object's files is put in their place, while its process is down.
    Rewind {
        /// Which object.
        object: usize,
        /// How long the process is down.
        down_ms: u64,
        /// How long after that it ends once more, when what was written since may have passed what was lost.
        #[serde(default)]
        again_ms: u64,
    },
}

impl Options {
    /// How long the workload and the faults last.
    #[must_use]
    pub const fn trouble(&self) -> Duration {
        Duration::from_millis(self.trouble_ms)
    }
}

impl FaultPlan {
    /// The same on so many hosts: what befell a few befalls some of many, or the other way round.
    #[must_use]
    pub fn on_hosts(mut self, hosts: usize) -> Self {
        let (drawn, hosts) = (std::mem::replace(&mut self.options.hosts, hosts.max(1)), hosts.max(1));
        let mut random = Random::stream(self.seed, "hosts");
        let mut pairs = Random::stream(self.seed, "pairs");
        let linked = topology::linked_hosts(self.seed, &self.options);
        let mut moved = |host: usize| (host + drawn * random.place(hosts.div_ceil(drawn))) % hosts;
        for Fault { kind, .. } in &mut self.faults {
            match kind {
                FaultKind::Crash { host, .. }
                | FaultKind::Pause { host, .. }
                | FaultKind::DiskFull { host, .. }
                | FaultKind::ClockJump { host, .. }
                | FaultKind::Shutdown { host, .. }
                | FaultKind::SecondEngine { host } => *host = moved(*host),
                FaultKind::Partition { one, other, .. } if linked.is_empty() => {
                    (*one, *other) = (moved(*one), moved(*other));
                }
                FaultKind::Partition { one, other, .. } => (*one, *other) = *pairs.pick(&linked),
                FaultKind::StoreOutage { .. }
                | FaultKind::SecondArchiver { .. }
                | FaultKind::Vacuum { .. }
                | FaultKind::Copy { .. }
                | FaultKind::Reparent { .. }
                | FaultKind::Destroy { .. }
                | FaultKind::Rewind { .. } => {}
            }
        }
        let is_one_host = |kind| matches!(kind, FaultKind::Partition { one, other, .. } if one == other);
        self.faults.retain(|fault| !is_one_host(fault.kind));
        self
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}
