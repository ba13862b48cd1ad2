use std::convert::Infallible;
use std::future::{Future, ready};

use cdc_model::{Cursor, Filter, Record, Sequence, Timestamp};

/// What a tier offers of a log: a readable range of positions, pages of records, and a search by time.
///
/// A replay asks the range once at its start and again when it changes tiers or after an error. It reads forward:
/// each scan begins where the page before it ended, so that a tier which is dear to open may keep its place between
/// calls. References and options of sources are sources; `None` holds nothing.
pub trait Source: Send + Sync {
    /// Why the tier cannot be read.
    type Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send;

    /// What can be read now.
    fn span(&self) -> impl Future<Output = Result<Span, Self::Error>> + Send;

    /// The next records after `scan.after`, which lies in the span or just before it.
    fn read(&self, scan: Scan<'_>) -> impl Future<Output = Result<Page, Self::Error>> + Send;

    /// The first record that the log took at this time or later; `None` when all are older.
    fn seek(&self, time: Timestamp) -> impl Future<Output = Result<Option<Sequence>, Self::Error>> + Send;
}

/// The readable positions of a tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The oldest readable sequence; one beyond `through` when nothing is readable any more, zero when nothing was
    /// ever held.
    pub floor: Sequence,
    /// The newest position with its record's time and epoch. A time of zero or a missing epoch is not known and
    /// is not compared with the other tier.
    pub through: Cursor,
}

impl Span {
    /// Of a tier that never held anything.
    pub const EMPTY: Self = Self { floor: Sequence::ZERO, through: Cursor::START };

    /// Of a tier that holds exactly these, in the order of their sequences.
    #[must_use]
    pub fn of(records: &[Record]) -> Self {
        match (records.first(), records.last()) {
            (Some(first), Some(last)) => Self { floor: first.sequence, through: last.cursor() },
            _ => Self::EMPTY,
        }
    }

    /// Whether this position can be read here.
    #[must_use]
    pub fn holds(&self, position: Sequence) -> bool {
        Sequence::ZERO < position && self.floor <= position && position <= self.through.sequence
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.holds(self.through.sequence)
    }
}

/// What a replay asks of a tier.
#[derive(Clone, Copy, Debug)]
pub struct Scan<'a> {
    /// Records strictly after this position. It may lie below the tier's floor only by one.
    pub after: Sequence,
    /// Nothing beyond this position is used; the tier may still answer it.
    pub through: Sequence,
    /// What will be kept. A tier may leave out what does not pass; the replay filters again anyway.
    pub filter: &'a Filter,
    /// How much one page may hold. What a tier answers beyond it is asked for again.
    pub limit: Limit,
}

impl Scan<'_> {
    /// Whether this position lies in the range asked for.
    #[must_use]
    pub fn wants(&self, position: Sequence) -> bool {
        self.after < position && position <= self.through
    }
}

/// How much one page holds at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Records.
    pub records: usize,
    /// Bytes of bodies; at least one record is given, however large.
    pub bytes: usize,
}

impl Default for Limit {
    /// 1,000 records or 4 MiB.
    fn default() -> Self {
        Self { records: 1000, bytes: 4 << 20 }
    }
}

/// What a tier answers to a [`Scan`]. Positions count, not records: a page without a match still moves on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Page {
    /// Every record from `after` on, without a hole; at least one. The replay refuses a hole as a gap.
    Dense(Vec<Record>),
    /// The records in `(after, through]` that there are and that may pass. The tier vouches for the holes: they did
    /// not pass the filter, or were erased.
    Filtered {
        /// Strictly increasing; none is fine.
        records: Vec<Record>,
        /// The last position looked at; beyond `after`.
        through: Sequence,
    },
}

/// The tier of a replay that was given none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Absent;

impl Source for Absent {
    type Error = Infallible;

    fn span(&self) -> impl Future<Output = Result<Span, Infallible>> + Send {
        ready(Ok(Span::EMPTY))
    }

    fn read(&self, _scan: Scan<'_>) -> impl Future<Output = Result<Page, Infallible>> + Send {
        ready(Ok(Page::Dense(Vec::new())))
    }

    fn seek(&self, _time: Timestamp) -> impl Future<Output = Result<Option<Sequence>, Infallible>> + Send {
        ready(Ok(None))
    }
}

impl<S: Source> Source for &S {
    type Error = S::Error;

    fn span(&self) -> impl Future<Output = Result<Span, S::Error>> + Send {
        S::span(self)
    }

    fn read(&self, scan: Scan<'_>) -> impl Future<Output = Result<Page, S::Error>> + Send {
        S::read(self, scan)
    }

    fn seek(&self, time: Timestamp) -> impl Future<Output = Result<Option<Sequence>, S::Error>> + Send {
        S::seek(self, time)
    }
}

impl<S: Source> Source for Option<S> {
    type Error = S::Error;

    async fn span(&self) -> Result<Span, S::Error> {
        match self {
            Some(source) => source.span().await,
            None => Ok(Span::EMPTY),
        }
    }

    async fn read(&self, scan: Scan<'_>) -> Result<Page, S::Error> {
        match self {
            Some(source) => source.read(scan).await,
            None => Ok(Page::Dense(Vec::new())),
        }
    }

    async fn seek(&self, time: Timestamp) -> Result<Option<Sequence>, S::Error> {
        match self {
            Some(source) => source.seek(time).await,
            None => Ok(None),
        }
    }
}
