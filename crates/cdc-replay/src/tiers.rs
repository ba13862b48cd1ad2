use cdc_model::{Cursor, Epoch, Filter, Record, Sequence, Timestamp};

use crate::error::before;
use crate::page::{Usable, usable};
use crate::{Error, Limit, Result, Scan, Source, Span};

/// One of the two places a log is read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tier {
    Cold,
    Hot,
}

impl Tier {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Hot => "hot",
        }
    }

    const fn other(self) -> Self {
        match self {
            Self::Cold => Self::Hot,
            Self::Hot => Self::Cold,
        }
    }
}

/// What both tiers offered when they were last asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spans {
    pub(crate) cold: Span,
    pub(crate) hot: Span,
}

impl Spans {
    pub(crate) const fn of(&self, tier: Tier) -> Span {
        match tier {
            Tier::Cold => self.cold,
            Tier::Hot => self.hot,
        }
    }

    /// The newest position of the log. The cold tier's is the newer one where there is no hot tier, or where it
    /// was asked later.
    pub(crate) fn tail(&self) -> Cursor {
        if self.hot.through.sequence >= self.cold.through.sequence {
            self.hot.through
        } else {
            self.cold.through
        }
    }

    /// The tier to read this position from, which must not lie beyond the tail.
    pub(crate) fn tier_of(&self, position: Sequence, preferred: Tier) -> Result<Tier> {
        if let Some(tier) =
            [preferred, preferred.other()].into_iter().find(|tier| self.of(*tier).holds(position))
        {
            return Ok(tier);
        }
        let after = before(position);
        let both = [self.cold, self.hot];
        let held_before = both.iter().any(|span| !span.is_empty() && span.through.sequence < position);
        let next = both.iter().map(|span| span.floor).filter(|floor| *floor > position).min();
        Err(match next {
            Some(next) if held_before => Error::Gap { after, next },
            Some(floor) => Error::BelowFloor { after, floor },
            None => Error::BeyondTail { asked: position, tail: self.tail().sequence },
        })
    }
}

/// Both tiers, with their errors under one type.
#[derive(Debug)]
pub(crate) struct Tiers<C, H> {
    pub(crate) cold: C,
    pub(crate) hot: H,
}

fn failed(tier: Tier) -> impl FnOnce(Box<dyn std::error::Error + Send + Sync>) -> Error {
    move |source| Error::Source { tier: tier.name(), source }
}

impl<C: Source, H: Source> Tiers<C, H> {
    /// Asks both what they offer: the hot tier first, because its rows go only after the cold tier has them.
    pub(crate) async fn spans(&self) -> Result<Spans> {
        let hot = self.hot.span().await.map_err(Into::into).map_err(failed(Tier::Hot))?;
        let cold = self.cold.span().await.map_err(Into::into).map_err(failed(Tier::Cold))?;
        for (tier, span) in [(Tier::Cold, cold), (Tier::Hot, hot)] {
            if before(span.floor) > span.through.sequence {
                let reason = "the floor of its span lies beyond the end";
                return Err(Error::Contract { tier: tier.name(), at: span.floor, reason });
            }
        }
        Ok(Spans { cold, hot })
    }

    pub(crate) async fn read(&self, tier: Tier, scan: Scan<'_>) -> Result<Usable> {
        let page = match tier {
            Tier::Cold => self.cold.read(scan).await.map_err(Into::into),
            Tier::Hot => self.hot.read(scan).await.map_err(Into::into),
        };
        usable(page.map_err(failed(tier))?, &scan, tier.name())
    }

    /// The record at one position that the tier holds; `None` when the tier says that there is none any more.
    async fn probe(&self, tier: Tier, at: Sequence) -> Result<Option<Record>> {
        let limit = Limit { records: 1, ..Limit::default() };
        let scan = Scan { after: before(at), through: at, filter: &Filter::ALL, limit };
        Ok(self.read(tier, scan).await?.records.pop())
    }

    /// The record at one position, from whichever tier holds it.
    async fn record_at(&self, spans: &Spans, at: Sequence, preferred: Tier) -> Result<Option<Record>> {
        match spans.tier_of(at, preferred) {
            Ok(tier) => self.probe(tier, at).await,
            Err(_) => Ok(None),
        }
    }

    /// The first record at or after a time.
    pub(crate) async fn seek(&self, spans: &Spans, time: Timestamp) -> Result<Option<Sequence>> {
        let older = |tier| {
            let newest = spans.of(tier).through.timestamp;
            spans.of(tier).is_empty() || (newest < time && newest != Timestamp::ZERO)
        };
        let mut found = None;
        if !older(Tier::Cold) {
            found = self.cold.seek(time).await.map_err(Into::into).map_err(failed(Tier::Cold))?;
        }
        if found.is_none() && !older(Tier::Hot) {
            found = self.hot.seek(time).await.map_err(Into::into).map_err(failed(Tier::Hot))?;
        }
        Ok(found.filter(|first| *first <= spans.tail().sequence))
    }

    /// The position after which everything at or after a time lies.
    ///
    /// A record found at a tier's very floor does not prove that none before it was of that time too. Then this is
    /// the last position known to be older, and whatever is missing behind it shows as gap or floor.
    pub(crate) async fn last_before(&self, spans: &Spans, time: Timestamp) -> Result<Sequence> {
        let Some(first) = self.seek(spans, time).await? else {
            return Ok(spans.tail().sequence);
        };
        if [spans.cold, spans.hot].iter().any(|span| span.holds(before(first))) {
            return Ok(before(first));
        }
        let cold_end = spans.cold.through.sequence;
        Ok(if cold_end < first && !spans.cold.is_empty() { cold_end } else { Sequence::ZERO })
    }

    /// Refuses tiers that hold different pasts at the newest position both hold. Gives the hot tier's record
    /// there, for comparison with the cold tier's once that is read.
    pub(crate) async fn check_overlap(&self, spans: &Spans) -> Result<Option<Record>> {
        let Spans { cold, hot } = spans;
        if cold.is_empty() || hot.is_empty() {
            return Ok(None);
        }
        if hot.through.sequence >= cold.through.sequence {
            let at = cold.through.sequence;
            if !hot.holds(at) {
                return Ok(None);
            }
            let record = self.probe(Tier::Hot, at).await?;
            return match &record {
                Some(record) if !may_be_at(cold.through, record) => Err(Error::Diverged { at }),
                _ => Ok(record),
            };
        }
        // The hot tier is a copy older than what it sent on: it is fine as long as it agrees.
        let at = hot.through.sequence;
        if !cold.holds(at) {
            return Err(Error::Diverged { at });
        }
        match (self.probe(Tier::Cold, at).await?, self.probe(Tier::Hot, at).await?) {
            (Some(cold), Some(hot)) if !is_same_row(&cold, &hot) => Err(Error::Diverged { at }),
            _ => Ok(None),
        }
    }

    /// Refuses a cursor that another life of this log issued, or that lies beyond the tail.
    pub(crate) async fn check_cursor(&self, spans: &Spans, cursor: Cursor) -> Result<()> {
        let (at, tail) = (cursor.sequence, spans.tail());
        let rewound = |fork| Err(Error::Rewound { cursor, fork });
        if at > tail.sequence {
            return match (cursor.epoch, tail.epoch) {
                (Some(epoch), Some(now)) if epoch != now => {
                    rewound(self.fork(spans, epoch, tail.sequence).await?)
                }
                _ => Err(Error::BeyondTail { asked: at, tail: tail.sequence }),
            };
        }
        let (Some(epoch), true) = (cursor.epoch, at > Sequence::ZERO) else {
            return Ok(());
        };
        match self.witness(spans, at, epoch).await? {
            Some(record) if record.epoch != epoch => rewound(self.fork(spans, epoch, at).await?),
            Some(record)
                if record.sequence == at
                    && cursor.timestamp != Timestamp::ZERO
                    && cursor.timestamp != record.timestamp =>
            {
                Err(Error::Diverged { at })
            }
            _ => Ok(()),
        }
    }

    /// The record that speaks for a cursor: the one at its position, of its epoch if either tier knows it so. The
    /// hot tier is asked first because it is near. Just below the floor only the record after it can speak.
    async fn witness(&self, spans: &Spans, at: Sequence, epoch: Epoch) -> Result<Option<Record>> {
        let hot = self.record_at(spans, at, Tier::Hot).await?;
        let known = hot.as_ref().is_some_and(|record| record.epoch == epoch);
        if !known && spans.cold.holds(at) && spans.hot.holds(at) {
            return self.record_at(spans, at, Tier::Cold).await;
        }
        if hot.is_none() && at < spans.tail().sequence {
            return self.record_at(spans, at.next(), Tier::Hot).await;
        }
        Ok(hot)
    }

    /// The last position up to `high` that is of this epoch or an earlier one. Epochs never decrease along a log,
    /// so that halving finds it with few reads.
    async fn fork(&self, spans: &Spans, epoch: Epoch, high: Sequence) -> Result<Sequence> {
        let floors = [spans.cold, spans.hot].into_iter().filter(|span| !span.is_empty());
        let floor = floors.map(|span| span.floor).min().unwrap_or(Sequence::ZERO);
        let (mut low, mut high) = (before(floor), high);
        while low < high {
            let middle = Sequence::new(low.get() + high.since(low).div_ceil(2));
            match self.record_at(spans, middle, Tier::Cold).await? {
                Some(record) if continues(record.epoch, epoch) => low = middle,
                _ => high = before(middle),
            }
        }
        Ok(low)
    }
}

/// Whether a record of epoch `later` may follow one of epoch `earlier` in a log, or be the same row read after a
/// new epoch was granted.
pub(crate) fn continues(earlier: Epoch, later: Epoch) -> bool {
    earlier == later || earlier.number < later.number
}

/// Whether two tiers hold the same row. The hot one may have been granted a newer epoch since the row was archived.
pub(crate) fn is_same_row(cold: &Record, hot: &Record) -> bool {
    continues(cold.epoch, hot.epoch)
        && (cold.sequence, cold.timestamp, cold.origin_sequence, cold.origin_timestamp)
            == (hot.sequence, hot.timestamp, hot.origin_sequence, hot.origin_timestamp)
        && cold.origin == hot.origin
        && cold.body == hot.body
}

/// Whether the record may be the one this end of the cold tier stands for.
fn may_be_at(end: Cursor, record: &Record) -> bool {
    end.epoch.is_none_or(|epoch| continues(epoch, record.epoch))
        && (end.timestamp == Timestamp::ZERO || end.timestamp == record.timestamp)
}
