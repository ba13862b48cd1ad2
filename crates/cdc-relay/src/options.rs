use std::time::Duration;

use cdc_model::{Filter, Operation};
use serde::{Deserialize, Serialize};

use crate::Error;

/// The settings of one link: the seed's `CDCOptions` and what a link needs beside them.
///
/// ```
/// use cdc_relay::LinkOptions;
/// let options: LinkOptions = serde_json::from_str(r#"{"batchSize": 50, "collections": ["customers"]}"#)?;
/// assert_eq!((options.batch_size, options.batch_timeout_ms), (50, 1000));
/// assert_eq!(options.filter().collections, ["customers"]);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct LinkOptions {
    /// Most records in a batch; 1 to 10,000.
    pub batch_size: usize,
    /// While a batch is in flight, how long after its first event the next is cut at the latest; and how long
    /// positions that were all filtered away may wait before the mark moves over them. 1 ms to 1 hour.
    #[serde(rename = "batchTimeout")]
    pub batch_timeout_ms: u64,
    /// Only these collections; all when empty.
    pub collections: Vec<String>,
    /// Only these operations; all when empty.
    pub operations: Vec<Operation>,
    /// Most bytes of bodies in a batch; a single larger record still goes, alone. 1 KiB to 64 MiB.
    pub batch_bytes_max: usize,
    /// Most positions one cut looks at, so that a long filtered range is read in pieces. 1 to 1,000,000.
    #[serde(rename = "scanMax")]
    pub scan_positions_max: u64,
    /// How long an answer may take before the request counts as failed. 1 ms to 1 hour.
    #[serde(rename = "answerTimeout")]
    pub answer_timeout_ms: u64,
    /// The first pause after a failure; it doubles with each further one. From 1 ms.
    #[serde(rename = "backoffBase")]
    pub backoff_base_ms: u64,
    /// The longest such pause. From the base to 1 hour.
    #[serde(rename = "backoffMax")]
    pub backoff_max_ms: u64,
    /// Failures in a row that open the breaker. From 1.
    pub breaker_failures: u32,
    /// The shortest pause while the breaker is open. At most 1 hour.
    #[serde(rename = "breakerPause")]
    pub breaker_pause_ms: u64,
}

impl Default for LinkOptions {
    fn default() -> Self {
        Self {
            batch_size: 100,
            batch_timeout_ms: 1_000,
            collections: Vec::new(),
            operations: Vec::new(),
            batch_bytes_max: 1 << 20,
            scan_positions_max: 10_000,
            answer_timeout_ms: 30_000,
            backoff_base_ms: 1_000,
            backoff_max_ms: 60_000,
            breaker_failures: 5,
            breaker_pause_ms: 30_000,
        }
    }
}

const HOUR_MS: u64 = 3_600_000;

impl LinkOptions {
    /// Which records the link carries.
    #[must_use]
    pub fn filter(&self) -> Filter {
        Filter {
            collections: self.collections.clone(),
            operations: self.operations.clone(),
            sources: Vec::new(),
        }
    }

    /// Checks every limit; the machines call this when they are made.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] names the first setting outside its limits.
    pub fn validate(&self) -> Result<(), Error> {
        let bytes_max = u64::try_from(self.batch_bytes_max).unwrap_or(u64::MAX);
        let size = u64::try_from(self.batch_size).unwrap_or(u64::MAX);
        for (name, value, least, most, expected) in [
            ("batchSize", size, 1, 10_000, "from 1 to 10000"),
            ("batchTimeout", self.batch_timeout_ms, 1, HOUR_MS, "from 1 ms to 1 hour"),
            ("batchBytesMax", bytes_max, 1 << 10, 64 << 20, "from 1 KiB to 64 MiB"),
            ("scanMax", self.scan_positions_max, 1, 1_000_000, "from 1 to 1000000"),
            ("answerTimeout", self.answer_timeout_ms, 1, HOUR_MS, "from 1 ms to 1 hour"),
            ("backoffBase", self.backoff_base_ms, 1, HOUR_MS, "from 1 ms to 1 hour"),
            ("backoffMax", self.backoff_max_ms, self.backoff_base_ms, HOUR_MS, "from backoffBase to 1 hour"),
            ("breakerFailures", u64::from(self.breaker_failures), 1, 1_000_000, "from 1 to 1000000"),
            ("breakerPause", self.breaker_pause_ms, 0, HOUR_MS, "at most 1 hour"),
        ] {
            if value < least || value > most {
                return Err(Error::Setting { name, value: value.to_string(), expected });
            }
        }
        Ok(())
    }

    pub(crate) const fn batch_timeout(&self) -> Duration {
        Duration::from_millis(self.batch_timeout_ms)
    }

    pub(crate) const fn answer_timeout(&self) -> Duration {
        Duration::from_millis(self.answer_timeout_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_form_has_the_names_and_defaults_of_the_seed() {
        insta::assert_json_snapshot!(LinkOptions::default(), @r#"
        {
          "batchSize": 100,
          "batchTimeout": 1000,
          "collections": [],
          "operations": [],
          "batchBytesMax": 1048576,
          "scanMax": 10000,
          "answerTimeout": 30000,
          "backoffBase": 1000,
          "backoffMax": 60000,
          "breakerFailures": 5,
          "breakerPause": 30000
        }
        "#);
        assert_eq!(serde_json::from_str::<LinkOptions>("{}").unwrap(), LinkOptions::default());
        let error = serde_json::from_str::<LinkOptions>(r#"{"batchsize": 1}"#).unwrap_err();
        assert!(error.to_string().contains("batchsize"), "{error}");
    }

    #[test]
    fn every_limit_is_checked_and_named() {
        let change = |change: fn(&mut LinkOptions)| {
            let mut options = LinkOptions::default();
            change(&mut options);
            match options.validate() {
                Err(Error::Setting { name, .. }) => name,
                other => panic!("{other:?}"),
            }
        };
        for (name, found) in [
            ("batchSize", change(|o| o.batch_size = 0)),
            ("batchSize", change(|o| o.batch_size = 10_001)),
            ("batchTimeout", change(|o| o.batch_timeout_ms = 0)),
            ("batchBytesMax", change(|o| o.batch_bytes_max = 1)),
            ("scanMax", change(|o| o.scan_positions_max = 0)),
            ("answerTimeout", change(|o| o.answer_timeout_ms = 0)),
            ("backoffBase", change(|o| o.backoff_base_ms = 0)),
            ("backoffMax", change(|o| o.backoff_max_ms = 999)),
            ("breakerFailures", change(|o| o.breaker_failures = 0)),
            ("breakerPause", change(|o| o.breaker_pause_ms = HOUR_MS + 1)),
        ] {
            assert_eq!(name, found);
        }
        LinkOptions::default().validate().unwrap();
    }
}
