use cdc_model::{Cursor, Filter, Record, Sequence, Timestamp, mutant};
use futures_core::Stream;
use futures_util::stream::{self, TryStreamExt as _};

use crate::error::before;
use crate::running::Running;
use crate::select::{DocumentName, Select};
use crate::tiers::{Spans, Tier, Tiers};
use crate::{Absent, Error, Folded, Limit, ReplayBatch, Result, Source};

/// Where a replay ends, at the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// After the record with this sequence.
    Sequence(Sequence),
    /// Before the first record that the log took at this time or later.
    Time(Timestamp),
}

impl From<Sequence> for Until {
    fn from(sequence: Sequence) -> Self {
        Self::Sequence(sequence)
    }
}

impl From<Timestamp> for Until {
    fn from(time: Timestamp) -> Self {
        Self::Time(time)
    }
}

/// A replay to be started: which tiers, from where, to where, and what of it.
///
/// Without any call it reads everything from the first record to the tail as of the start.
#[derive(Clone, Debug)]
#[must_use = "a replay reads nothing until it is started, streamed or folded"]
pub struct Replay<C = Absent, H = Absent> {
    cold: C,
    hot: H,
    after: Cursor,
    until: Option<Until>,
    select: Select,
    limit: Limit,
}

impl Replay {
    /// A replay of no tier yet.
    pub fn new() -> Self {
        Self {
            cold: Absent,
            hot: Absent,
            after: Cursor::START,
            until: None,
            select: Select::default(),
            limit: Limit::default(),
        }
    }
}

impl Default for Replay {
    fn default() -> Self {
        Self::new()
    }
}

impl<C: Source, H: Source> Replay<C, H> {
    /// Reads this tier up to its end before it goes on in the hot one: the archive.
    pub fn cold<S: Source>(self, cold: S) -> Replay<S, H> {
        let Self { cold: _, hot, after, until, select, limit } = self;
        Replay { cold, hot, after, until, select, limit }
    }

    /// Reads this tier for what the cold one does not hold yet: the log.
    pub fn hot<S: Source>(self, hot: S) -> Replay<C, S> {
        let Self { cold, hot: _, after, until, select, limit } = self;
        Replay { cold, hot, after, until, select, limit }
    }

    /// Begins after this cursor. Its sequence decides; sequence 0 with a time begins at the first record at or
    /// after that time.
    pub const fn after(mut self, cursor: Cursor) -> Self {
        self.after = cursor;
        self
    }

    /// Ends with this sequence, or before this time.
    pub fn until(mut self, until: impl Into<Until>) -> Self {
        self.until = Some(until.into());
        self
    }

    /// Gives only records that pass this filter.
    pub fn filter(mut self, filter: Filter) -> Self {
        self.select.filter = filter;
        self
    }

    /// Gives only the changes of one document, beside whatever the filter asks.
    pub fn history(mut self, collection: impl Into<String>, document_id: impl Into<String>) -> Self {
        let (collection, document_id) = (collection.into(), document_id.into());
        self.select.document = Some(DocumentName { collection, document_id });
        self
    }

    /// How many records a batch has at most; 0 counts as 1.
    pub fn batch_size(mut self, records: usize) -> Self {
        self.limit.records = records.max(1);
        self
    }

    /// How many bytes of bodies a batch has at most, unless a single record has more.
    pub const fn batch_bytes_max(mut self, bytes: usize) -> Self {
        self.limit.bytes = bytes;
        self
    }

    /// Asks the tiers what they hold, checks that they and the cursor agree, and fixes where the replay ends.
    ///
    /// # Errors
    ///
    /// [`Error::BelowFloor`], [`Error::BeyondTail`] or [`Error::Gap`] when the first position cannot be read or the
    /// last does not exist, [`Error::Rewound`] or [`Error::Diverged`] when the cursor or the tiers contradict each
    /// other, [`Error::Source`] when a tier fails.
    pub async fn start(self) -> Result<Running<C, H>> {
        let Self { cold, hot, after, until, select, limit } = self;
        let tiers = Tiers { cold, hot };
        let by_time = (after.sequence == Sequence::ZERO && after.timestamp != Timestamp::ZERO)
            || matches!(until, Some(Until::Time(_)));
        let mut spans = tiers.spans().await?;
        let mut plans = 1;
        let Plan { boundary, cursor, end } = loop {
            let plan = Plan::make(&tiers, &spans, after, until).await;
            let is_final = match &plan {
                Ok(_) => !by_time,
                Err(Error::Diverged { .. } | Error::Rewound { .. } | Error::BeyondTail { .. }) => true,
                Err(_) => false,
            };
            if is_final {
                break plan?;
            }
            // Hot rows may have gone since it was asked where they are: then a time was sought in what is left.
            let now = tiers.spans().await?;
            if now.hot.floor == spans.hot.floor {
                break plan?;
            }
            if plans == PLANS_MAX {
                let gone = Error::BelowFloor { after: before(spans.hot.floor), floor: now.hot.floor };
                return Err(plan.err().unwrap_or(gone));
            }
            (spans, plans) = (now, plans + 1);
        };
        Running::new(tiers, spans, boundary, cursor, end, select, limit)
    }

    /// The batches from here to the end. After an error the stream ends; go on after the last batch's cursor.
    pub fn stream(self) -> impl Stream<Item = Result<ReplayBatch>> + Send + Unpin {
        let running = stream::once(async move { Ok::<_, Error>(self.start().await?.stream()) });
        Box::pin(running.try_flatten())
    }

    /// The documents that the records add up to. With [`Replay::until`] they are those at that position or moment.
    ///
    /// # Errors
    ///
    /// [`Error::FoldByOperation`] when the filter names operations, and whatever reading meets.
    pub async fn fold(self) -> Result<Folded> {
        let cursor = self.after;
        self.fold_into(Folded { cursor, ..Folded::default() }).await
    }

    /// Goes on folding where an earlier fold with the same filter ended.
    ///
    /// # Errors
    ///
    /// As for [`Replay::fold`].
    pub async fn fold_onto(self, folded: Folded) -> Result<Folded> {
        self.after(folded.cursor).fold_into(folded).await
    }

    async fn fold_into(self, mut folded: Folded) -> Result<Folded> {
        if !self.select.filter.operations.is_empty() {
            return Err(Error::FoldByOperation);
        }
        let mut running = self.start().await?;
        while let Some(batch) = running.try_next().await? {
            batch.records.iter().try_for_each(|record| folded.take(record))?;
            folded.cursor = batch.cursor;
        }
        Ok(folded)
    }
}

/// A replay is planned at most so many times, while rows go under its feet.
const PLANS_MAX: u32 = 8;

/// Where a replay begins and ends.
struct Plan {
    /// The hot tier's copy of the newest record that both tiers hold.
    boundary: Option<Record>,
    cursor: Cursor,
    end: Sequence,
}

impl Plan {
    async fn make<C: Source, H: Source>(
        tiers: &Tiers<C, H>,
        spans: &Spans,
        after: Cursor,
        until: Option<Until>,
    ) -> Result<Self> {
        let boundary = tiers.check_overlap(spans).await?;
        let mut cursor = after;
        if cursor.sequence > Sequence::ZERO {
            tiers.check_cursor(spans, cursor).await?;
        } else if cursor.timestamp != Timestamp::ZERO {
            cursor = Cursor::after(tiers.last_before(spans, cursor.timestamp).await?);
        }
        if after.sequence > Sequence::ZERO && mutant!("cursor-read-again") {
            cursor.sequence = before(cursor.sequence);
        }
        if let Err(Error::BelowFloor { floor, .. }) = spans.tier_of(cursor.sequence.next(), Tier::Cold)
            && mutant!("replay-below-floor")
        {
            cursor.sequence = before(floor);
        }
        let tail = spans.tail().sequence;
        let end = match until {
            None => tail,
            Some(Until::Sequence(end)) if end > tail => return Err(Error::BeyondTail { asked: end, tail }),
            Some(Until::Sequence(end)) => end,
            Some(Until::Time(time)) => tiers.seek(spans, time).await?.map_or(tail, before),
        };
        Ok(Self { boundary, cursor, end })
    }
}
