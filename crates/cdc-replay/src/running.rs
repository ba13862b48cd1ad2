use cdc_model::{Cursor, Epoch, Filter, Record, Sequence};
use futures_core::Stream;
use futures_util::stream;

use crate::error::before;
use crate::page::Usable;
use crate::select::{Kept, Select};
use crate::tiers::{Spans, Tier, Tiers, continues, is_same_row};
use crate::{Error, Limit, Progress, Result, Scan, Source};

/// One portion of a replay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayBatch {
    /// The records that passed, strictly increasing. There may be none: then only the cursor has moved.
    pub records: Vec<Record>,
    /// The last position looked at. A replay after it gives exactly what this one gives after this batch.
    ///
    /// Its epoch is missing where a tier filtered the record at that position away; a replay after such a cursor
    /// cannot tell whether the log was rewound, and its time is that of the newest record before.
    pub cursor: Cursor,
    /// How far the replay is.
    pub progress: Progress,
}

/// A started replay. It holds one batch at a time.
///
/// It may be asked again after an error and goes on where it was.
#[derive(Debug)]
pub struct Running<C, H> {
    tiers: Tiers<C, H>,
    spans: Spans,
    /// The hot tier's copy of the newest record that both tiers hold.
    boundary: Option<Record>,
    reading: Tier,
    /// The spans must be asked again before the next read.
    stale: bool,
    cursor: Cursor,
    /// The newest epoch seen.
    epoch: Option<Epoch>,
    end: Sequence,
    select: Select,
    pushed_down: Filter,
    limit: Limit,
    progress: Progress,
}

impl<C: Source, H: Source> Running<C, H> {
    pub(crate) fn new(
        tiers: Tiers<C, H>,
        spans: Spans,
        boundary: Option<Record>,
        cursor: Cursor,
        end: Sequence,
        select: Select,
        limit: Limit,
    ) -> Result<Self> {
        let mut reading = Tier::Cold;
        if cursor.sequence < end {
            reading = spans.tier_of(cursor.sequence.next(), Tier::Cold)?;
        }
        let progress = Progress { total: end.since(cursor.sequence), ..Progress::default() };
        let epoch = cursor.epoch.filter(|_| cursor.sequence > Sequence::ZERO);
        let (pushed_down, stale) = (select.pushed_down(), false);
        Ok(Self {
            tiers,
            spans,
            boundary,
            reading,
            stale,
            cursor,
            epoch,
            end,
            select,
            pushed_down,
            limit,
            progress,
        })
    }

    /// The last position looked at.
    #[must_use]
    pub const fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// The position it ends at.
    #[must_use]
    pub const fn end(&self) -> Sequence {
        self.end
    }

    /// How far it is.
    #[must_use]
    pub const fn progress(&self) -> Progress {
        self.progress
    }

    /// The next batch; `None` at the end.
    ///
    /// # Errors
    ///
    /// [`Error::Source`] when a tier fails, [`Error::Gap`] or [`Error::BelowFloor`] when records are missing where
    /// it goes on, [`Error::Diverged`] when records contradict each other, [`Error::Record`] when one does not
    /// decode. It stays where it was.
    pub async fn try_next(&mut self) -> Result<Option<ReplayBatch>> {
        if self.cursor.sequence >= self.end {
            return Ok(None);
        }
        let batch = self.next_batch().await;
        // What a tier holds may have changed; a retry asks anew.
        self.stale |= batch.is_err();
        batch.map(Some)
    }

    /// The batches from here to the end. After an error the stream ends; go on after the last batch's cursor.
    pub fn stream(self) -> impl Stream<Item = Result<ReplayBatch>> + Send + Unpin {
        Box::pin(stream::try_unfold(self, |mut running| async move {
            Ok(running.try_next().await?.map(|batch| (batch, running)))
        }))
    }

    async fn next_batch(&mut self) -> Result<ReplayBatch> {
        let (tier, usable) = self.read().await?;
        let (after, span) = (self.cursor.sequence, self.spans.of(tier));
        let Usable { records, through } = usable;
        let epoch = self.check(&records)?;
        let Kept { records, last, failed } = self.select.keep(records);
        let through = match failed {
            Some((at, source)) if before(at) == after => return Err(Error::Record { at, source }),
            // What comes before it is given first; the next scan begins at it.
            Some((at, _)) => before(at),
            None => through,
        };
        let cursor = match last {
            Some(last) if last.sequence == through => last,
            _ if span.through.sequence == through => span.through,
            last => Cursor { sequence: through, epoch: None, ..last.unwrap_or(self.cursor) },
        };
        self.progress.scanned += through.since(after);
        self.progress.records += u64::try_from(records.len()).unwrap_or(u64::MAX);
        (self.cursor, self.epoch) = (cursor, epoch);
        Ok(ReplayBatch { records, cursor, progress: self.progress })
    }

    /// Reads what comes next. Hot rows go once the cold tier has them, also between plan and read: then it is asked anew
    /// where they are.
    async fn read(&mut self) -> Result<(Tier, Usable)> {
        let tier = self.next_tier().await?;
        let failed = match self.read_from(tier).await {
            Err(failed) if tier == Tier::Hot => failed,
            usable => return usable.map(|usable| (tier, usable)),
        };
        let spans = self.tiers.spans().await?;
        let next = self.cursor.sequence.next();
        if spans.hot.holds(next) {
            return Err(failed);
        }
        self.spans = spans;
        let tier = self.spans.tier_of(next, Tier::Cold)?;
        Ok((tier, self.read_from(tier).await?))
    }

    async fn read_from(&self, tier: Tier) -> Result<Usable> {
        let (after, filter, limit) = (self.cursor.sequence, &self.pushed_down, self.limit);
        let through = self.end.min(self.spans.of(tier).through.sequence);
        self.tiers.read(tier, Scan { after, through, filter, limit }).await
    }

    /// Where the next position is read: cold up to the end it had at the start, then hot.
    async fn next_tier(&mut self) -> Result<Tier> {
        let next = self.cursor.sequence.next();
        if self.reading == Tier::Cold && !self.spans.cold.holds(next) {
            // Hours may have passed, and hot rows may be gone; but only those that the cold tier holds by now.
            (self.reading, self.stale) = (Tier::Hot, true);
        }
        if self.stale {
            self.spans = self.tiers.spans().await?;
            self.stale = false;
        }
        self.spans.tier_of(next, self.reading)
    }

    /// Refuses records that contradict each other or the hot tier's copy; gives the newest epoch.
    fn check(&self, records: &[Record]) -> Result<Option<Epoch>> {
        let mut epoch = self.epoch;
        for record in records {
            let at = record.sequence;
            if epoch.is_some_and(|earlier| !continues(earlier, record.epoch)) {
                return Err(Error::Diverged { at });
            }
            epoch = Some(record.epoch);
        }
        let boundary = self.boundary.as_ref().filter(|_| self.reading == Tier::Cold);
        match (boundary, records.last()) {
            (Some(hot), Some(cold)) if cold.sequence == hot.sequence && !is_same_row(cold, hot) => {
                Err(Error::Diverged { at: hot.sequence })
            }
            _ => Ok(epoch),
        }
    }
}
