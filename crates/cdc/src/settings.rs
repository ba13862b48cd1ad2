use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use cdc_log::Retention;
use cdc_model::{ObjectId, Timestamp};
use cdc_relay::LinkOptions;
use serde::{Deserialize, Serialize};

/// The settings of a project; plain values. A missing one has its default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Settings {
    /// How links to parents batch and retry.
    pub link: LinkOptions,
    /// Where and how often objects archive; those without a parent do, and those that say so. None when absent.
    pub archive: Option<ArchiveSettings>,
    /// How much of each log stays hot once everybody has taken it.
    pub retention: RetentionSettings,
    /// How applications' databases are treated.
    pub capture: CaptureSettings,
    /// How often captured tables are compared with their logs.
    pub audit: AuditSettings,
    /// How many objects have their files open at the same time, and how long.
    pub handles: HandleSettings,
    /// What is kept of the disk for when it runs full, and how long writes that need not be synced wait for that.
    pub disk: DiskSettings,
    /// Objects that another process serves, and its address, such as `127.0.0.1:7410`.
    pub remotes: BTreeMap<ObjectId, SocketAddr>,
}

impl Settings {
    /// Checks that every setting is within its limits.
    ///
    /// # Errors
    ///
    /// [`Setting`](cdc_relay::Error::Setting) names the first that is not.
    pub fn validate(&self) -> Result<(), cdc_relay::Error> {
        self.link.validate()?;
        self.retention.validate()?;
        self.audit.validate()?;
        self.handles.validate()?;
        self.archive.as_ref().map_or(Ok(()), ArchiveSettings::validate)
    }
}

/// Descriptors that an open object takes: its database, the write-ahead log and the shared memory.
const DESCRIPTORS_PER_OBJECT: usize = 3;

/// Descriptors that are left to connections, archives, looks at applications' databases and whoever embeds the engine.
const DESCRIPTORS_RESERVED: usize = 256;

/// Memory that an open object takes at most in the long run; measured by `cargo xtask bench -- --density`.
const OBJECT_BYTES: u64 = 160 << 10;

/// However few descriptors there are, so many objects are open.
const OPEN_MIN: usize = 16;

/// Where the system does not say how many descriptors a process may have.
const DESCRIPTORS_DEFAULT: usize = 1024;

/// How many objects have their files open. The others are opened when they are used, the least recently used closed for
/// them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct HandleSettings {
    /// Most objects that are open at the same time, and as many more as work at one moment. By default as many as the
    /// limit of open files (`ulimit -n`) and `memoryMax` have room for.
    #[serde(rename = "max", skip_serializing_if = "Option::is_none")]
    pub open_max: Option<usize>,
    /// Bytes of memory that open objects may take, at 160 KiB each. Default 1 GiB.
    #[serde(rename = "memoryMax")]
    pub memory_bytes_max: u64,
    /// Milliseconds after which an object that nobody uses is closed, so that its `-wal` and `-shm` go. Default 600,000.
    #[serde(rename = "idle")]
    pub idle_ms: u64,
}

impl Default for HandleSettings {
    fn default() -> Self {
        Self { open_max: None, memory_bytes_max: 1 << 30, idle_ms: 600_000 }
    }
}

impl HandleSettings {
    fn validate(&self) -> Result<(), cdc_relay::Error> {
        let open_max = self.open_max.map_or(1, |max| u64::try_from(max).unwrap_or(u64::MAX));
        at_least_one([("max", open_max), ("memoryMax", self.memory_bytes_max), ("idle", self.idle_ms)])
    }

    pub(crate) fn open_max(&self) -> usize {
        self.open_max.unwrap_or_else(|| {
            let descriptors = descriptors_max().unwrap_or(DESCRIPTORS_DEFAULT);
            let by_descriptors = descriptors.saturating_sub(DESCRIPTORS_RESERVED) / DESCRIPTORS_PER_OBJECT;
            let by_memory = usize::try_from(self.memory_bytes_max / OBJECT_BYTES).unwrap_or(usize::MAX);
            by_descriptors.min(by_memory).max(OPEN_MIN)
        })
    }

    pub(crate) const fn idle(&self) -> Duration {
        Duration::from_millis(self.idle_ms)
    }
}

/// How the disk is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct DiskSettings {
    /// Bytes of the file `.cdc/ballast`. When the disk is full the engine removes it, takes nothing new, and sends, archives
    /// and prunes in its place, until there is room for it again. Default 8 MiB; 0 keeps none.
    #[serde(rename = "ballast")]
    pub ballast_bytes: u64,
    /// Milliseconds that writes with [`Durability::Normal`](crate::Durability::Normal) wait for more of them, before all
    /// are brought to disk and shown. Default 10.
    #[serde(rename = "sync")]
    pub sync_ms: u64,
}

impl Default for DiskSettings {
    fn default() -> Self {
        Self { ballast_bytes: 8 << 20, sync_ms: 10 }
    }
}

impl DiskSettings {
    pub(crate) const fn sync(&self) -> Duration {
        Duration::from_millis(self.sync_ms)
    }
}

/// How many descriptors this process may have, where the system says so in a file.
fn descriptors_max() -> Option<usize> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let soft =
        limits.lines().find_map(|line| line.strip_prefix("Max open files"))?.split_whitespace().next()?;
    if soft == "unlimited" { Some(usize::MAX) } else { soft.parse().ok() }
}

fn at_least_one(settings: [(&'static str, u64); 3]) -> Result<(), cdc_relay::Error> {
    match settings.into_iter().find(|(_, value)| *value == 0) {
        None => Ok(()),
        Some((name, value)) => {
            let expected = "1 or more";
            Err(cdc_relay::Error::Setting { name, value: value.to_string(), expected })
        }
    }
}

/// The settings of the archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ArchiveSettings {
    /// The warehouse: `file:./warehouse` or a path; relative to the project's folder.
    pub warehouse: String,
    /// Archive as soon as this many events wait. Default 1000.
    #[serde(default = "events_min")]
    pub events_min: u64,
    /// Archive at the latest after this many milliseconds. Default 60,000.
    #[serde(rename = "interval", default = "interval_ms")]
    pub interval_ms: u64,
    /// Most events in one commit. Default 50,000.
    #[serde(default = "events_max")]
    pub events_max: u64,
}

const fn events_min() -> u64 {
    1000
}

const fn interval_ms() -> u64 {
    60_000
}

const fn events_max() -> u64 {
    50_000
}

impl ArchiveSettings {
    /// A warehouse with the default cadence.
    pub fn new(warehouse: impl Into<String>) -> Self {
        Self {
            warehouse: warehouse.into(),
            events_min: events_min(),
            interval_ms: interval_ms(),
            events_max: events_max(),
        }
    }

    fn validate(&self) -> Result<(), cdc_relay::Error> {
        at_least_one([
            ("eventsMin", self.events_min),
            ("interval", self.interval_ms),
            ("eventsMax", self.events_max),
        ])
    }

    pub(crate) const fn interval(&self) -> Duration {
        Duration::from_millis(self.interval_ms)
    }
}

/// The settings of retention: limits for every object, and others for some. Without limits nothing is pruned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RetentionSettings {
    /// As [`Retention::max_age_ms`].
    #[serde(rename = "maxAge", skip_serializing_if = "Option::is_none")]
    pub max_age_ms: Option<u64>,
    /// As [`Retention::max_events`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_events: Option<u64>,
    /// As [`Retention::max_bytes`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u64>,
    /// All objects are visited once in about so many milliseconds. Default 60,000.
    #[serde(rename = "sweep")]
    pub sweep_ms: u64,
    /// The limits of single objects, in the place of those above.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub objects: BTreeMap<ObjectId, Retention>,
}

impl Default for RetentionSettings {
    fn default() -> Self {
        Self {
            max_age_ms: None,
            max_events: None,
            max_bytes: None,
            sweep_ms: 60_000,
            objects: BTreeMap::new(),
        }
    }
}

impl RetentionSettings {
    /// The limits of one object.
    #[must_use]
    pub fn of(&self, object: &ObjectId) -> Retention {
        let Self { max_age_ms, max_events, max_bytes, .. } = *self;
        let for_all = Retention { max_age_ms, max_events, max_bytes };
        self.objects.get(object).copied().unwrap_or(for_all)
    }

    /// Sets the limits of every object that has none of its own.
    pub(crate) const fn set(&mut self, limits: Retention) {
        let Retention { max_age_ms, max_events, max_bytes } = limits;
        (self.max_age_ms, self.max_events, self.max_bytes) = (max_age_ms, max_events, max_bytes);
    }

    fn validate(&self) -> Result<(), cdc_relay::Error> {
        if self.sweep_ms > 0 {
            return Ok(());
        }
        Err(cdc_relay::Error::Setting { name: "sweep", value: "0".to_owned(), expected: "1 or more" })
    }

    pub(crate) const fn sweep(&self) -> Duration {
        Duration::from_millis(self.sweep_ms)
    }
}

/// The settings of capture in applications' databases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct CaptureSettings {
    /// When drained rows are removed from a database. Default `idle`.
    pub trim: Trim,
}

/// When drained rows are removed from an application's database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Trim {
    /// Once nobody else has committed for a second: an application without a busy timeout sees no error. Beside one that
    /// never rests so long they stay, and the database grows.
    #[default]
    Idle,
    /// Also while others commit, a few at a time with pauses several times as long: for an application with a busy
    /// timeout, whose commits then wait for some milliseconds now and then.
    Always,
    /// Never: the database is written only to install triggers, and grows.
    Never,
}

/// The settings of the audit, which finds what bypassed capture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct AuditSettings {
    /// Every captured table is compared with its log once in so many milliseconds; 0 never. Default 86,400,000, a day.
    /// An audit that is under way when this is set to 0 ends there; a comparison that is needed goes on.
    #[serde(rename = "interval")]
    pub interval_ms: u64,
    /// Percent of one processor that comparing may take, at most. Default 1.
    pub cpu_percent: u8,
}

impl Default for AuditSettings {
    fn default() -> Self {
        Self { interval_ms: 86_400_000, cpu_percent: 1 }
    }
}

impl AuditSettings {
    fn validate(&self) -> Result<(), cdc_relay::Error> {
        if (1..=100).contains(&self.cpu_percent) {
            return Ok(());
        }
        let (name, value) = ("cpuPercent", self.cpu_percent.to_string());
        Err(cdc_relay::Error::Setting { name, value, expected: "1 to 100" })
    }

    pub(crate) const fn is_off(&self) -> bool {
        self.interval_ms == 0
    }

    pub(crate) const fn interval(&self) -> Duration {
        Duration::from_millis(self.interval_ms)
    }

    /// How long it is until what was compared then is compared again.
    pub(crate) fn left(&self, compared: Timestamp, now: Timestamp) -> Duration {
        // A comparison that is still to come was made while the clock was ahead: nobody knows when.
        let age = u64::try_from(now.get().saturating_sub(compared.get())).unwrap_or(u64::MAX);
        Duration::from_millis(self.interval_ms.saturating_sub(age))
    }

    /// How long to rest after so much work.
    pub(crate) fn pause_after(&self, work: Duration) -> Duration {
        work * (100 - u32::from(self.cpu_percent.min(100))) / u32::from(self.cpu_percent.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_audit_takes_its_share_and_comes_when_it_is_due() {
        let audit = AuditSettings { interval_ms: 1000, cpu_percent: 1 };
        assert_eq!(audit.pause_after(Duration::from_millis(5)), Duration::from_millis(495));
        let at = Timestamp::new;
        assert_eq!(audit.left(at(5000), at(5400)), Duration::from_millis(600));
        assert_eq!(audit.left(at(5000), at(7000)), Duration::ZERO);
        // A clock that was ahead, perhaps by years, puts off nothing.
        assert_eq!(audit.left(at(5000), at(10)), Duration::ZERO);
    }
}
