use std::time::Duration;

/// How far a replay is. Positions count, whether or not their records pass the filter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Positions looked at since the start.
    pub scanned: u64,
    /// Positions there are from the start to the end.
    pub total: u64,
    /// Records given since the start.
    pub records: u64,
}

impl Progress {
    /// Positions still to be looked at.
    #[must_use]
    pub const fn remaining(&self) -> u64 {
        self.total.saturating_sub(self.scanned)
    }

    /// Whole percent looked at; 100 of nothing.
    #[must_use]
    pub fn percent(&self) -> u8 {
        let percent = (u128::from(self.scanned) * 100).checked_div(u128::from(self.total)).unwrap_or(100);
        u8::try_from(percent).unwrap_or(100)
    }

    /// How long the rest takes at the pace so far; `None` before the first batch.
    #[must_use]
    pub fn eta(&self, elapsed: Duration) -> Option<Duration> {
        let nanos = elapsed.as_nanos().saturating_mul(u128::from(self.remaining()));
        let nanos = nanos.checked_div(u128::from(self.scanned))?;
        Some(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_is_reckoned_from_the_pace_so_far() {
        let progress = Progress { scanned: 25, total: 100, records: 3 };
        assert_eq!((progress.remaining(), progress.percent()), (75, 25));
        assert_eq!(progress.eta(Duration::from_secs(10)), Some(Duration::from_secs(30)));
        let nothing = Progress::default();
        assert_eq!((nothing.remaining(), nothing.percent(), nothing.eta(Duration::MAX)), (0, 100, None));
        let huge = Progress { scanned: 1, total: u64::MAX, records: 0 };
        assert_eq!((huge.percent(), huge.eta(Duration::MAX)), (0, Some(Duration::from_nanos(u64::MAX))));
    }
}
