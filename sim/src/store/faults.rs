use std::io::ErrorKind;
use std::time::Duration;

use object_store::Error;
use object_store::path::Path;

use crate::random::Random;

/// The name that errors give for the store.
pub(crate) const STORE: &str = "SimStore";
const OF: u64 = 1000;

/// How often a request of the store goes wrong: in so many of a thousand cases each. Together at most 1000.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreFaults {
    /// Not done and reported as failed.
    pub error: u64,
    /// Done and reported as failed.
    pub lost_ack: u64,
    /// Of writes and deletes: reported as failed, and done some requests later, even if the host is dead by then.
    pub late: u64,
    /// Of creates: done, but its answer was lost on the way to the client, which asked again and was told that the
    /// object exists. Clients of S3 repeat requests answered with 5xx by themselves.
    pub echo: u64,
    /// Not done, reported as too many.
    pub throttled: u64,
    /// Done, but late.
    pub slow: u64,
    /// The longest a slow request takes.
    pub slow_max: Duration,
    /// No write takes place. Deletes do.
    pub full: bool,
    /// How often a request lets others go first, if they run at the same time. Not one of the faults: it adds to them.
    pub waits: u64,
}

impl StoreFaults {
    /// No faults.
    pub const NONE: Self = Self {
        error: 0,
        lost_ack: 0,
        late: 0,
        echo: 0,
        throttled: 0,
        slow: 0,
        slow_max: Duration::ZERO,
        full: false,
        waits: 0,
    };

    /// A bad time: every kind of fault but a full store, each in this many of a thousand cases.
    #[must_use]
    pub const fn all_kinds(rate: u64) -> Self {
        Self {
            error: rate,
            lost_ack: rate,
            late: rate,
            echo: rate,
            throttled: rate,
            slow: rate,
            slow_max: Duration::from_secs(5),
            ..Self::NONE
        }
    }

    pub(crate) fn assert_sound(&self) {
        let Self { error, lost_ack, late, echo, throttled, slow, .. } = self;
        assert!(error + lost_ack + late + echo + throttled + slow <= OF, "a request has one fate: {self:?}");
        assert!(self.waits < OF, "a request that always waits is never served");
    }

    pub(crate) fn waits(&self, random: &mut Random) -> bool {
        self.waits > 0 && random.between(0, OF - 1) < self.waits
    }

    /// What happens to the next request. One draw, whatever the rates are.
    pub(crate) fn draw(&self, random: &mut Random) -> Fate {
        let mut drawn = random.between(0, OF - 1);
        for (rate, fate) in [
            (self.error, Fate::Error),
            (self.lost_ack, Fate::LostAck),
            (self.late, Fate::Late),
            (self.echo, Fate::Echo),
            (self.throttled, Fate::Throttled),
        ] {
            if drawn < rate {
                return fate;
            }
            drawn -= rate;
        }
        if drawn < self.slow { Fate::Slow(random.time(self.slow_max)) } else { Fate::Served }
    }
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Served,
    Error,
    LostAck,
    Late,
    Echo,
    Throttled,
    Slow(Duration),
}

/// What a client of S3 reports when there was no answer.
pub(crate) fn timeout() -> Error {
    failed(std::io::Error::new(ErrorKind::TimedOut, "operation timed out"))
}

pub(crate) fn unreachable() -> Error {
    failed(std::io::Error::new(ErrorKind::ConnectionAborted, "the host is dead"))
}

pub(crate) fn server_error() -> Error {
    failed("Server returned non-2xx status code: 500 Internal Server Error")
}

pub(crate) fn throttled() -> Error {
    failed("Server returned non-2xx status code: 503 Slow Down: Please reduce your request rate.")
}

pub(crate) fn full() -> Error {
    failed(std::io::Error::new(ErrorKind::StorageFull, "no space left"))
}

pub(crate) fn exists(path: &Path) -> Error {
    Error::AlreadyExists { path: path.to_string(), source: "the object exists".into() }
}

fn failed(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Generic { store: STORE, source: source.into() }
}
