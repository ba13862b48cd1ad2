//! Drives the hop from a log to its archive.

use std::sync::Arc;
use std::time::Duration;

use cdc_iceberg::{Archive, Components};
use cdc_log::Limit;
use cdc_model::{Batch, Mark, Position, Remedy, Sequence, fault_point, mutant, reached};
use cdc_net::Env;

use crate::project::Warehouse;
use crate::settings::ArchiveSettings;
use crate::shared::{Shared, raise, stopped};
use crate::{Error, Result};

/// Bytes of bodies in one commit at most.
const COMMIT_BYTES_MAX: usize = 64 << 20;

/// Pauses after a failed commit.
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(60);

pub(crate) async fn drive<E: Env>(object: Arc<Shared<E>>, warehouse: Warehouse, settings: ArchiveSettings) {
    let mut pause = RETRY_FIRST;
    let (mut stop, mut flush) = (object.stop.subscribe(), object.flush.subscribe());
    loop {
        match archive_until_stopped(&object, &warehouse, &settings, &mut pause).await {
            Ok(()) => return,
            // The table has moved on, which may be the work of somebody who archives this same history. The log says.
            Err(error) if error.remedy() == Remedy::Recut => reached!("archive.another-was-first"),
            Err(error) if error.remedy() == Remedy::Retry => {
                reached!("archive.tried-again");
                object.set_failed("archive", &error);
                flush.borrow_and_update();
                tokio::select! {
                    biased;
                    () = stopped(&mut stop) => return,
                    // Somebody waits for it.
                    _ = flush.changed() => {}
                    () = object.env.sleep(pause) => {}
                }
                pause = (pause * 2).min(RETRY_MAX);
            }
            Err(error) => return object.set_failed("archive", &error),
        }
    }
}

async fn archive_until_stopped<E: Env>(
    object: &Arc<Shared<E>>,
    warehouse: &Warehouse,
    settings: &ArchiveSettings,
    pause: &mut Duration,
) -> Result<()> {
    let components = Components { clock: object.env.clock(), entropy: object.env.entropy() };
    let mut archive = Archive::open_in(&warehouse.open()?, object.id(), components).await?;
    let mut mark = agree(object, archive.watermark()).await?;
    object.clear_trouble("archive");
    publish(object, mark.sequence);
    let (mut stop, mut tail, mut flush) =
        (object.stop.subscribe(), object.tail.subscribe(), object.flush.subscribe());
    // Asked for before anybody listened: it counts for what is there now.
    let asked = *flush.borrow_and_update() > 0;
    let mut flush_to = if asked { object.tail.borrow().sequence } else { Sequence::ZERO };
    let mut first_waited_at = None;
    loop {
        if *stop.borrow() {
            return Ok(());
        }
        let waiting = tail.borrow_and_update().sequence.since(mark.sequence);
        let now = object.env.now();
        let due_at =
            if waiting == 0 { None } else { Some(*first_waited_at.get_or_insert(now) + settings.interval()) };
        let due = waiting > 0
            && (waiting >= settings.events_min
                || mark.sequence < flush_to
                || due_at.is_some_and(|due| due <= now));
        if due {
            let most = if fault_point!("archive.cut-short") { 1 } else { settings.events_max };
            let batch = cut(object, mark, most).await?;
            archive.append(&batch).await?;
            mark = batch.mark();
            first_waited_at = None;
            *pause = RETRY_FIRST;
            publish(object, mark.sequence);
            continue;
        }
        let sleep = async {
            match due_at {
                Some(due) => object.env.sleep(due.saturating_sub(now)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = stopped(&mut stop) => return Ok(()),
            _ = flush.changed() => flush_to = object.tail.borrow().sequence,
            _ = tail.changed() => {}
            () = sleep => {}
        }
    }
}

fn publish<E: Env>(object: &Shared<E>, watermark: Sequence) {
    if let Some(archived) = &object.archived {
        raise(archived, watermark);
    }
    object.update_settled();
}

/// The archive's mark, which the log must confirm before anything is appended after it.
async fn agree<E: Env>(object: &Arc<Shared<E>>, watermark: Option<Mark>) -> Result<Mark> {
    let (epoch, own) = object
        .run(move |node| {
            let at = watermark.map_or(Sequence::ZERO, |mark| mark.sequence);
            let floor = node.log().floor()?;
            if at.next() < floor {
                return Err(cdc_log::Error::BelowFloor { after: at, floor }.into());
            }
            Ok((node.log().epoch(), node.position_at(at)?))
        })
        .await?;
    let Some(mark) = watermark else { return Ok(Mark::start(epoch)) };
    let agrees = |own: Position| own == mark.position() || mutant!("archive-digest-not-compared");
    if own.is_some_and(agrees) && mark.epoch == epoch {
        return Ok(mark);
    }
    let reason = format!(
        "the archive ends at sequence {} of epoch {}, which this log does not confirm",
        mark.sequence, mark.epoch
    );
    Err(Error::Stopped { id: object.id().clone(), what: "archive", reason })
}

/// Reads the next range of the log. Its digest is rolled forward from the mark, as every hop does.
async fn cut<E: Env>(object: &Arc<Shared<E>>, mark: Mark, events_max: u64) -> Result<Batch> {
    let sender = object.id().clone();
    object
        .run(move |node| {
            let limit =
                Limit { records: usize::try_from(events_max).unwrap_or(usize::MAX), bytes: COMMIT_BYTES_MAX };
            let records = node.log().read(mark.sequence, limit)?;
            let through = records.iter().fold(mark.position(), |at, record| record.position_after(at));
            let (epoch, after) = (mark.epoch, mark.position());
            Ok(Batch { sender, generation: 1, epoch, after, through, records, kept_back: 0 })
        })
        .await
}
