use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use cdc_model::ObjectId;
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
        self.archive.as_ref().map_or(Ok(()), ArchiveSettings::validate)
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
        for (name, value) in
            [("eventsMin", self.events_min), ("interval", self.interval_ms), ("eventsMax", self.events_max)]
        {
            if value == 0 {
                let expected = "1 or more";
                return Err(cdc_relay::Error::Setting { name, value: value.to_string(), expected });
            }
        }
        Ok(())
    }

    pub(crate) const fn interval(&self) -> Duration {
        Duration::from_millis(self.interval_ms)
    }
}
