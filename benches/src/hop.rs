//! One hop from a child's log into its parent's, without transport, against inserting the rows that it stores.

use std::path::PathBuf;
use std::sync::Arc;

use cdc_log::{Limit, Link, Log, LogTransaction};
use cdc_model::{Batch, Clock, Filter, Position, Record, Sequence};
use cdc_relay::{Cut, Cutter, Hello, Inbound, Intake, OriginMark, Receiver};
use tempfile::TempDir;

use crate::stored::{BareLog, StoredRow, newest, renumbered};
use crate::{Result, Rng, Side, bodies, object, workload};

/// Records in one batch; the default of a link.
const BATCH: u32 = 100;

/// The hop and the bare insert of the same rows, in this order; both in transactions of 100 rows.
///
/// # Errors
///
/// When a log cannot be made.
pub fn hop_sides(rows: u32) -> Result<Vec<Box<dyn Side>>> {
    let folder = Arc::new(tempfile::tempdir()?);
    let mut hop = Hop::new(Arc::clone(&folder), rows)?;
    // A first round, so that the bare side finds rows whichever begins.
    hop.prepare()?;
    hop.run()?;
    let bare = BareHop {
        bare: BareLog::create(&folder.path().join("bare.db"))?,
        parent: folder.path().join("parent.db"),
        count: rows,
        rows: Vec::new(),
        last: 0,
        _folder: folder,
    };
    Ok(vec![Box::new(hop), Box::new(bare)])
}

/// Cuts, admits, plans and stores batches as the engine does, with marks and counters in the same transaction.
#[derive(Debug)]
pub struct Hop {
    child: Log,
    parent: Log,
    receiver: Receiver,
    link: Inbound,
    at: Position,
    filter: Arc<Filter>,
    rng: Rng,
    rows: u32,
    _folder: Arc<TempDir>,
}

impl Hop {
    fn new(folder: Arc<TempDir>, rows: u32) -> Result<Self> {
        let open = |name: &str| {
            let path = folder.path().join(format!("{name}.db"));
            Log::open(path, &object(name)?, &Clock::system()).map_err(crate::Error::from)
        };
        let (child, parent) = (open("child")?, open("parent")?);
        let receiver = Receiver { id: parent.id().clone(), ancestors: Vec::new() };
        let hello = Hello {
            sender: child.id().clone(),
            generation: 1,
            session: 1,
            epoch: child.epoch(),
            acked: Sequence::ZERO,
            tail: child.tail(),
            floor: Sequence::new(1),
        };
        let link = receiver.greet(None, &hello)?;
        let filter = Arc::new(Filter::ALL);
        let (at, rng) = (Position::START, Rng::new(17));
        Ok(Self { child, parent, receiver, link, at, filter, rng, rows, _folder: folder })
    }

    fn cut(&self) -> Result<Batch> {
        let cut = Cut {
            after: self.at,
            through_max: self.child.tail().sequence,
            records_max: usize::try_from(BATCH)?,
            bytes_max: 1 << 20,
            filter: Arc::clone(&self.filter),
        };
        let mut cutter = Cutter::new(cut);
        for record in self.child.read(self.at.sequence, Limit { records: 256, bytes: 1 << 20 })? {
            if cutter.push(record)?.is_break() {
                break;
            }
        }
        let slice = cutter.finish();
        Ok(Batch {
            sender: self.child.id().clone(),
            generation: self.link.generation,
            epoch: self.child.epoch(),
            after: slice.after,
            through: slice.through,
            records: slice.records,
            kept_back: slice.kept_back,
        })
    }

    fn store(&mut self, batch: &Batch) -> Result<()> {
        let (receiver, link) = (&self.receiver, &self.link);
        let stored = self.parent.transact(|log| take(log, receiver, link, batch))?;
        self.link = stored?;
        Ok(())
    }
}

/// Takes one batch into the parent's transaction.
pub(crate) fn take(
    log: &mut LogTransaction<'_>,
    receiver: &Receiver,
    link: &Inbound,
    batch: &Batch,
) -> cdc_log::Result<Result<Inbound>> {
    let admitted = match receiver.admit(Some(link), batch) {
        Ok(admitted) => admitted,
        Err(refusal) => return Ok(Err(refusal.into())),
    };
    let plan = admitted.plan(|source, epoch| {
        let taken = log.origin_mark(source, epoch)?;
        Ok::<_, cdc_log::Error>(OriginMark { taken, holes: Vec::new() })
    })?;
    let now = log.now();
    for (record, intake) in batch.records.iter().zip(&plan.intake) {
        if let Intake::Store(origin) = intake {
            log.append_forwarded(record, origin, now)?;
        }
    }
    for ((source, epoch), mark) in &plan.origin_marks {
        log.set_origin_mark(source, *epoch, *mark)?;
    }
    let Inbound { generation, session, mark } = plan.link;
    log.set_link(&batch.sender, &Link { generation, session, mark })?;
    log.count("received", plan.received.received)?;
    log.count("stored", plan.received.stored)?;
    Ok(Ok(plan.link))
}

impl Side for Hop {
    fn prepare(&mut self) -> Result<()> {
        let bodies = bodies(&mut self.rng, self.rows)?;
        self.child.transact(|log| {
            for body in bodies {
                let timestamp = workload::time_of(log.tail().sequence);
                log.append(timestamp, body)?;
            }
            Ok(())
        })?;
        Ok(())
    }

    fn run(&mut self) -> Result<u32> {
        let mut sent = 0;
        while self.at != self.child.tail() {
            let batch = self.cut()?;
            self.store(&batch)?;
            self.at = batch.through;
            sent += records(&batch.records)?;
        }
        Ok(sent)
    }
}

fn records(records: &[Record]) -> Result<u32> {
    Ok(u32::try_from(records.len())?)
}

/// Inserts the rows that the parent stored again, with plain rusqlite, at the same sync and batch.
#[derive(Debug)]
pub struct BareHop {
    bare: BareLog,
    parent: PathBuf,
    count: u32,
    rows: Vec<StoredRow>,
    last: i64,
    _folder: Arc<TempDir>,
}

impl Side for BareHop {
    fn prepare(&mut self) -> Result<()> {
        self.rows = renumbered(newest(&self.parent, self.count)?, &mut self.last);
        Ok(())
    }

    fn run(&mut self) -> Result<u32> {
        self.bare.insert(&self.rows, usize::try_from(BATCH)?)
    }
}
