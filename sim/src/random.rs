use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// One stream of random numbers (splitmix64). Every concern of a world has its own, so that one more draw for the
/// network does not change what is written or when something crashes.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The stream of one concern of the world with this seed.
    #[must_use]
    pub fn stream(seed: u64, concern: &str) -> Self {
        Self(xxh3_64_with_seed(concern.as_bytes(), seed))
    }

    /// A stream of its own for each of several things of one concern.
    pub(crate) fn branch(&self, number: usize) -> Self {
        Self(xxh3_64_with_seed(&number.to_le_bytes(), self.0))
    }

    /// Any number.
    #[must_use = "a draw that nobody looks at changes the next"]
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from `least` to `most`.
    ///
    /// # Panics
    ///
    /// `most` is less than `least`.
    pub fn between(&mut self, least: u64, most: u64) -> u64 {
        assert!(least <= most, "an empty range has no number in it");
        least + self.next() % (most - least + 1)
    }

    /// Whether a thing happens that does in so many of a hundred cases.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.between(1, 100) <= percent
    }

    /// A time of at most `most`, in microseconds, so that few things happen at once.
    pub fn time(&mut self, most: Duration) -> Duration {
        Duration::from_micros(self.between(0, u64::try_from(most.as_micros()).unwrap_or(u64::MAX)))
    }

    /// A place in a list of `len` items.
    pub fn place(&mut self, len: usize) -> usize {
        let most = u64::try_from(len).unwrap_or(u64::MAX).saturating_sub(1);
        usize::try_from(self.between(0, most)).unwrap_or_default()
    }

    /// One of the items.
    ///
    /// # Panics
    ///
    /// There are none.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        let place = self.place(items.len());
        items.get(place).expect("there is nothing to pick from")
    }
}

/// A hash with one more number in it.
pub(crate) const fn mixed(hash: u64, with: u64) -> u64 {
    let mixed = (hash.rotate_left(23) ^ with).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 29)
}
