use std::time::Duration;

use crate::LinkOptions;

/// When to try again: exponential backoff with seeded jitter, and a breaker over it.
#[derive(Debug)]
pub(crate) struct Retry {
    base: Duration,
    max: Duration,
    breaker_failures: u32,
    breaker_pause: Duration,
    failures: u32,
    busy: u32,
    until: Option<Duration>,
    random: u64,
}

impl Retry {
    pub(crate) const fn new(options: &LinkOptions, seed: u64) -> Self {
        Self {
            base: Duration::from_millis(options.backoff_base_ms),
            max: Duration::from_millis(options.backoff_max_ms),
            breaker_failures: options.breaker_failures,
            breaker_pause: Duration::from_millis(options.breaker_pause_ms),
            failures: 0,
            busy: 0,
            until: None,
            random: seed,
        }
    }

    /// The end of the pause that holds at `now`.
    pub(crate) fn paused(&self, now: Duration) -> Option<Duration> {
        self.until.filter(|until| *until > now)
    }

    pub(crate) const fn is_breaker_open(&self) -> bool {
        self.failures >= self.breaker_failures
    }

    /// A request failed.
    pub(crate) fn fail(&mut self, now: Duration) {
        self.failures = self.failures.saturating_add(1);
        let mut pause = self.pause_after(self.failures);
        if self.is_breaker_open() {
            pause = pause.max(self.breaker_pause);
        }
        self.until = Some(now + pause);
    }

    /// How often in a row the receiver was busy.
    pub(crate) const fn busy(&self) -> u32 {
        self.busy
    }

    /// The receiver answered that it is busy, after it was so often. It is there, so the breaker closes.
    pub(crate) fn hold_back(&mut self, now: Duration, busy: u32) {
        self.failures = 0;
        self.busy = busy.saturating_add(1);
        self.until = Some(now + self.pause_after(self.busy));
    }

    /// A request was answered.
    pub(crate) const fn succeed(&mut self) {
        self.failures = 0;
        self.busy = 0;
        self.until = None;
    }

    /// Ends the pause; the next failure makes it longer than before all the same.
    pub(crate) const fn resume(&mut self) {
        self.until = None;
    }

    /// Between half of and the whole of base · 2^(times − 1), at most the maximum.
    pub(crate) fn pause_after(&mut self, times: u32) -> Duration {
        let doubled = 1_u32.checked_shl(times.saturating_sub(1)).unwrap_or(u32::MAX);
        let whole = self.base.saturating_mul(doubled).min(self.max);
        let half = u64::try_from(whole.as_micros() / 2).unwrap_or(u64::MAX);
        whole - Duration::from_micros(self.draw() % (half + 1))
    }

    /// The next random number (splitmix64).
    fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pause(retry: &mut Retry) -> Duration {
        retry.fail(Duration::ZERO);
        retry.paused(Duration::ZERO).unwrap()
    }

    #[test]
    fn pauses_double_with_jitter_up_to_the_cap_and_the_breaker_lengthens_them() {
        let seconds = |least, most| Duration::from_secs_f64(least)..=Duration::from_secs_f64(most);
        for seed in 0..200 {
            let mut retry = Retry::new(&LinkOptions::default(), seed);
            for (failure, range) in [
                seconds(0.5, 1.0),
                seconds(1.0, 2.0),
                seconds(2.0, 4.0),
                seconds(4.0, 8.0),
                seconds(30.0, 30.0),
                seconds(30.0, 32.0),
                seconds(30.0, 60.0),
                seconds(30.0, 60.0),
            ]
            .into_iter()
            .enumerate()
            {
                let pause = pause(&mut retry);
                assert!(range.contains(&pause), "seed {seed}, failure {failure}: {pause:?}");
                assert_eq!(retry.is_breaker_open(), failure >= 4);
            }
            retry.succeed();
            assert!(retry.paused(Duration::ZERO).is_none() && pause(&mut retry) <= Duration::from_secs(1));
        }
    }

    #[test]
    fn the_same_seed_pauses_alike_and_another_differently() {
        let pauses = |seed| {
            let mut retry = Retry::new(&LinkOptions::default(), seed);
            [pause(&mut retry), pause(&mut retry), pause(&mut retry)]
        };
        assert_eq!(pauses(7), pauses(7));
        assert_ne!(pauses(7), pauses(8));
    }
}
