//! Taking children's batches into a log, with the marks of their origins, against appending as many events of one's own.

use cdc_log::Log;
use cdc_model::{Batch, Clock, Epoch, Position, Sequence};
use cdc_relay::{Hello, Inbound, Receiver};
use tempfile::TempDir;

use crate::hop::take;
use crate::{AppendOptions, Batches, Result, Side, Whose, append_sides, object};

/// Records in one batch and one transaction; the default of a link.
const BATCH: u32 = 100;

const EPOCH: Epoch = Epoch { number: 1, nonce: 1 };

/// The inbox of batches with so many origins in each, and the log that appends its own events, in this order; both in
/// transactions of 100 rows.
///
/// # Errors
///
/// When a log cannot be made.
pub fn inbox_sides(origins: u32, rows: u32) -> Result<Vec<Box<dyn Side>>> {
    let mut plain = append_sides(AppendOptions { whose: Whose::Own, per_transaction: BATCH, rows })?;
    plain.truncate(1);
    plain.insert(0, Box::new(Inbox::new(origins, rows)?));
    Ok(plain)
}

/// Admits batches that were cut beforehand, plans and stores them as the engine does: events, the mark of each origin,
/// the link's mark and the counters in one transaction.
#[derive(Debug)]
pub struct Inbox {
    parent: Log,
    receiver: Receiver,
    link: Inbound,
    workload: Batches,
    batches: Vec<Batch>,
    rows: u32,
    _folder: TempDir,
}

impl Inbox {
    fn new(origins: u32, rows: u32) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let child = object("child")?;
        let parent = Log::open(folder.path().join("parent.db"), &object("parent")?, &Clock::system())?;
        let receiver = Receiver { id: parent.id().clone(), ancestors: Vec::new() };
        let hello = Hello {
            sender: child.clone(),
            generation: 1,
            session: 1,
            epoch: EPOCH,
            acked: Sequence::ZERO,
            tail: Position::START,
            floor: Sequence::new(1),
        };
        let link = receiver.greet(None, &hello)?;
        let workload = Batches::with_origins(&child, EPOCH, origins)?;
        Ok(Self { parent, receiver, link, workload, batches: Vec::new(), rows, _folder: folder })
    }
}

impl Side for Inbox {
    fn prepare(&mut self) -> Result<()> {
        let count = self.rows.div_ceil(BATCH);
        self.batches = (0..count).map(|_| self.workload.next(BATCH)).collect::<Result<_>>()?;
        Ok(())
    }

    fn run(&mut self) -> Result<u32> {
        let mut taken = 0;
        for batch in &self.batches {
            let (receiver, link) = (&self.receiver, &self.link);
            let stored = self.parent.transact(|log| take(log, receiver, link, batch))?;
            self.link = stored?;
            taken += u32::try_from(batch.records.len())?;
        }
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inbox_stores_every_event_with_the_mark_of_its_origin() {
        let mut inbox = Inbox::new(7, 200).unwrap();
        for round in 1..=2 {
            inbox.prepare().unwrap();
            assert_eq!(inbox.run().unwrap(), 200);
            assert_eq!(inbox.parent.tail().sequence, Sequence::new(200 * round));
        }
        let marks = inbox.parent.transact(|log| {
            (1..=7)
                .map(|number| {
                    let origin = crate::origin(number).unwrap();
                    log.origin_mark(origin.source(), origin.epoch())
                })
                .collect::<cdc_log::Result<Vec<_>>>()
        });
        assert_eq!(marks.unwrap().into_iter().filter(|mark| *mark > Sequence::new(50)).count(), 7);
    }
}
