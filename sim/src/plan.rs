use std::ops::Range;
use std::time::Duration;

use cdc_relay::LinkOptions;

use crate::random::Random;

/// How long the workload and the faults last. Then everything is healed.
pub(crate) const TROUBLE: Duration = Duration::from_secs(8);

/// After healing, everything written must have arrived and be acknowledged within this simulated time: a pause of
/// an open breaker, a request of before that is still waited for and the longest a thing can be down take two of these
/// seconds; the others are some 10 ms for each batch, which may hold a single record.
pub(crate) const LIVENESS_MAX: Duration = Duration::from_secs(8);

/// What goes wrong in a run, drawn from its seed.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) options: LinkOptions,
    pub(crate) loss_percent: u64,
    pub(crate) repeat_percent: u64,
    pub(crate) delay_max: Duration,
    /// While these last nothing passes.
    pub(crate) partitions: Vec<Range<Duration>>,
    pub(crate) crashes: Vec<Crash>,
    /// Longest pause between two transactions.
    pub(crate) write_pause_max: Duration,
}

/// One crash.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Crash {
    pub(crate) at: Duration,
    pub(crate) side: Side,
    pub(crate) point: CrashPoint,
    /// How long until the object is opened again.
    pub(crate) down: Duration,
}

/// Which of the two objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Child,
    Parent,
}

/// Where in its work an object crashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CrashPoint {
    /// Between two pieces of work.
    Idle,
    /// At its next transaction, with everything done but the COMMIT.
    BeforeCommit,
    /// At its next transaction, before anybody is told that it committed.
    AfterCommit,
}

impl Plan {
    pub(crate) fn draw(seed: u64) -> Self {
        let mut random = Random::stream(seed, "plan");
        let delay_max = Duration::from_millis(*random.pick(&[1, 5, 30, 150]));
        let pause_ms = *random.pick(&[50, 120, 250]);
        let options = LinkOptions {
            batch_size: *random.pick(&[1, 3, 10, 100]),
            batch_timeout_ms: *random.pick(&[5, 50, 200]),
            batch_bytes_max: *random.pick(&[1 << 10, 1 << 20]),
            answer_timeout_ms: 400,
            backoff_base_ms: 20,
            backoff_max_ms: 500,
            breaker_failures: 5,
            breaker_pause_ms: 400,
            ..LinkOptions::default()
        };
        let partitions = (0..random.between(0, 2)).map(|_| {
            let from = random.time(TROUBLE);
            from..from + random.time(Duration::from_secs(2))
        });
        let partitions = partitions.collect();
        Self {
            options,
            loss_percent: *random.pick(&[0, 5, 20, 40]),
            repeat_percent: *random.pick(&[0, 10, 40]),
            delay_max,
            partitions,
            crashes: crashes(seed),
            write_pause_max: Duration::from_millis(pause_ms),
        }
    }
}

fn crashes(seed: u64) -> Vec<Crash> {
    let mut random = Random::stream(seed, "crash");
    let count = random.between(2, 10);
    let draw = |_| Crash {
        at: random.time(TROUBLE),
        side: *random.pick(&[Side::Child, Side::Parent]),
        point: *random.pick(&[CrashPoint::Idle, CrashPoint::BeforeCommit, CrashPoint::AfterCommit]),
        down: random.time(Duration::from_millis(800)),
    };
    (0..count).map(draw).collect()
}
