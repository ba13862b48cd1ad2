use cdc_model::{Record, Sequence};

use crate::{Error, Page, Result, Scan};

/// The usable beginning of a page: its records and the last position looked at, beyond `scan.after`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Usable {
    pub(crate) records: Vec<Record>,
    pub(crate) through: Sequence,
}

/// Takes of a page what the scan asked for, up to the limit or the first hole in a dense page.
pub(crate) fn usable(page: Page, scan: &Scan<'_>, tier: &'static str) -> Result<Usable> {
    let (mut records, vouched) = match page {
        Page::Dense(records) => (records, None),
        Page::Filtered { records, through } => (records, Some(through)),
    };
    let contract = |at, reason| Err(Error::Contract { tier, at, reason });
    if vouched.is_some_and(|through| records.last().is_some_and(|last| last.sequence > through)) {
        return contract(scan.after, "a record lies beyond the page's own end");
    }
    let (mut last, mut kept, mut bytes) = (scan.after, 0, 0_usize);
    let mut ends = vouched.unwrap_or(Sequence::ZERO).min(scan.through);
    for record in &records {
        if record.sequence <= last {
            return contract(record.sequence, "its records do not increase after where the scan begins");
        }
        if vouched.is_none() && record.sequence != last.next() {
            if kept == 0 {
                return Err(Error::Gap { after: last, next: record.sequence });
            }
            // The good beginning is given first; the next scan begins at the hole and names it.
            break;
        }
        if record.sequence > scan.through {
            break;
        }
        last = record.sequence;
        kept += 1;
        bytes = bytes.saturating_add(record.body.as_str().len());
        if kept < records.len() && (kept >= scan.limit.records || bytes >= scan.limit.bytes) {
            ends = last;
            break;
        }
    }
    records.truncate(kept);
    let through = ends.max(last);
    if through == scan.after {
        return contract(through, "a page before the end of its span does not move on");
    }
    Ok(Usable { records, through })
}
