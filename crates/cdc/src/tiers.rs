//! The tiers of one object as sources of a replay: its log, read along while an engine may be writing it, and its
//! archive.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;

use cdc_iceberg::Archive;
use cdc_log::Log;
use cdc_model::{Cursor, Filter, Record, Sequence, Timestamp};
use cdc_net::Env;
use cdc_replay::{Page, Scan, Source, Span};
use futures_core::Stream;
use futures_util::TryStreamExt as _;

use crate::lane::Lane;
use crate::{Error, Result};

/// An object's log, through a connection of its own.
#[derive(Debug)]
pub(crate) struct HotTier<E> {
    pub(crate) lane: Lane<Log, E>,
}

impl<E: Env> Clone for HotTier<E> {
    fn clone(&self) -> Self {
        Self { lane: self.lane.clone() }
    }
}

impl<E: Env> Source for HotTier<E> {
    type Error = Error;

    async fn span(&self) -> Result<Span> {
        let span = |log: &mut Log| {
            log.refresh()?;
            Ok::<_, Error>(Span { floor: log.floor()?, through: log.cursor() })
        };
        self.lane.run(span).await?
    }

    async fn read(&self, scan: Scan<'_>) -> Result<Page> {
        let (after, limit) =
            (scan.after, cdc_log::Limit { records: scan.limit.records, bytes: scan.limit.bytes });
        let records = self.lane.run(move |log| log.read(after, limit)).await??;
        Ok(Page::Dense(records))
    }

    async fn seek(&self, time: Timestamp) -> Result<Option<Sequence>> {
        Ok(self.lane.run(move |log| log.seek(time)).await??)
    }
}

/// An object's archive. Scans that go on where the last page ended go on in the same files.
#[derive(Clone)]
pub(crate) struct ColdTier {
    state: Arc<tokio::sync::Mutex<ColdState>>,
}

struct ColdState {
    archive: Archive,
    open: Option<OpenScan>,
}

type Records = Pin<Box<dyn Stream<Item = cdc_iceberg::Result<Vec<Record>>> + Send>>;

struct OpenScan {
    /// Where the next page begins.
    at: Sequence,
    through: Sequence,
    filter: Filter,
    stream: Records,
    read_ahead: VecDeque<Record>,
}

impl ColdTier {
    pub(crate) fn new(archive: Archive) -> Self {
        Self { state: Arc::new(tokio::sync::Mutex::new(ColdState { archive, open: None })) }
    }

    pub(crate) async fn status(&self) -> Result<cdc_iceberg::Status> {
        let mut state = self.state.lock().await;
        state.archive.refresh().await?;
        Ok(state.archive.status().await?)
    }
}

impl std::fmt::Debug for ColdTier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ColdTier")
    }
}

/// How many of these fit into a page, which takes no more than it may: the scan goes on where the next page begins.
fn fitting(records: &VecDeque<Record>, limit: cdc_replay::Limit) -> usize {
    let mut bytes = 0;
    let fits = |record: &&Record| {
        let fits = bytes < limit.bytes;
        bytes += record.body.as_str().len();
        fits
    };
    records.iter().take(limit.records.max(1)).take_while(fits).count().max(1).min(records.len())
}

impl Source for ColdTier {
    type Error = Error;

    async fn span(&self) -> Result<Span> {
        let mut state = self.state.lock().await;
        state.open = None;
        let Some(mark) = state.archive.refresh().await? else { return Ok(Span::EMPTY) };
        let status = state.archive.status().await?;
        let timestamp = status.valid_through.unwrap_or_default();
        let floor = status.first_sequence.unwrap_or_else(|| mark.sequence.next());
        Ok(Span { floor, through: Cursor { sequence: mark.sequence, timestamp, epoch: Some(mark.epoch) } })
    }

    async fn read(&self, scan: Scan<'_>) -> Result<Page> {
        let mut state = self.state.lock().await;
        let resumes = |open: &OpenScan| {
            open.at == scan.after && open.through == scan.through && open.filter == *scan.filter
        };
        let mut open = match state.open.take().filter(resumes) {
            Some(open) => open,
            None => OpenScan {
                at: scan.after,
                through: scan.through,
                filter: scan.filter.clone(),
                stream: Box::pin(
                    state
                        .archive
                        .scan()
                        .after(scan.after)
                        .through(scan.through)
                        .filter(scan.filter.clone())
                        .stream(),
                ),
                read_ahead: VecDeque::new(),
            },
        };
        if open.read_ahead.is_empty() {
            open.read_ahead = open.stream.try_next().await?.unwrap_or_default().into();
        }
        let taken = fitting(&open.read_ahead, scan.limit);
        let records: Vec<Record> = open.read_ahead.drain(..taken).collect();
        // At the end of the stream everything up to the scan's end has been looked at.
        open.at = records.last().map_or(scan.through, |record| record.sequence);
        let through = open.at;
        state.open = Some(open);
        Ok(Page::Filtered { records, through })
    }

    async fn seek(&self, time: Timestamp) -> Result<Option<Sequence>> {
        let state = self.state.lock().await;
        let mut later = Box::pin(state.archive.scan().from_time(time).stream());
        let first = later.try_next().await?;
        Ok(first.and_then(|records| records.first().map(|record| record.sequence)))
    }
}
