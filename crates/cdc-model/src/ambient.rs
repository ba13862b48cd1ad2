use std::fmt;
use std::sync::Arc;

use crate::Timestamp;

/// Where the time comes from. Cheap to clone; simulation hands in its own.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// The machine's clock.
    #[must_use]
    pub fn system() -> Self {
        Self::from_fn(|| {
            #[expect(
                clippy::disallowed_methods,
                reason = "the one place that reads the machine's clock for users"
            )]
            let now = std::time::SystemTime::now();
            let since = now.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            Timestamp::new(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
        })
    }

    /// A clock that asks `now` each time.
    pub fn from_fn(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// Where randomness comes from (file names, nonces). Cheap to clone; simulation hands in its own.
#[derive(Clone)]
pub struct Entropy(Arc<dyn Fn() -> u64 + Send + Sync>);

impl Entropy {
    /// Randomness of the operating system, through the standard library's hasher keys.
    #[must_use]
    pub fn system() -> Self {
        use std::hash::{BuildHasher as _, RandomState};
        use std::sync::atomic::{AtomicU64, Ordering};
        let state = RandomState::new();
        let drawn = AtomicU64::new(0);
        Self::from_fn(move || {
            state.hash_one((drawn.fetch_add(1, Ordering::Relaxed), RandomState::new().hash_one(0)))
        })
    }

    /// Randomness from `draw`, which gives 64 new random bits each time.
    pub fn from_fn(draw: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(draw))
    }

    /// 64 random bits.
    #[must_use]
    pub fn u64(&self) -> u64 {
        (self.0)()
    }

    /// 128 random bits.
    #[must_use]
    pub fn u128(&self) -> u128 {
        (u128::from(self.u64()) << 64) | u128::from(self.u64())
    }
}

impl fmt::Debug for Entropy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Entropy")
    }
}
