//! Somebody who archives an object's log beside the archiver of its engine, from what any reader is given: as a process
//! does that was taken for dead, or a tool.

use cdc::{Env, Object};
use cdc_iceberg::{Archive, Components, Storage};
use cdc_model::{Batch, Cursor, Mark, Remedy, Sequence};
use futures_util::TryStreamExt as _;

use crate::failure::{Broken, chain, ensure};

/// Rows of one commit.
const ROWS_MAX: usize = 40;

const PROMISE: &str = "archivers of one history get along";

/// Archives what it finds, once.
#[derive(Debug)]
pub(crate) struct Archivist<E: Env> {
    env: E,
    object: Object<E>,
    storage: Storage,
}

impl<E: Env> Archivist<E> {
    pub(crate) const fn new(env: E, object: Object<E>, storage: Storage) -> Self {
        Self { env, object, storage }
    }

    /// Adds up to so many batches to the archive. It may fail, as what it reads and writes may; but neither table nor
    /// log may look damaged to it.
    pub(crate) async fn archive(self, batches: u64) -> Result<(), Broken> {
        let Err(error) = self.try_to_archive(batches).await else { return Ok(()) };
        let is_damage = matches!(error.remedy(), Remedy::Restore | Remedy::Bug);
        ensure(!is_damage, PROMISE, || {
            format!("object {}: the second met {}", self.object.id(), chain(&error))
        })
    }

    async fn try_to_archive(&self, batches: u64) -> cdc::Result<()> {
        let components = Components { clock: self.env.clock(), entropy: self.env.entropy() };
        let mut archive = Archive::open_in(&self.storage, self.object.id(), components).await?;
        for _ in 0..batches {
            let Some(batch) = self.cut(archive.watermark()).await? else { return Ok(()) };
            archive.append(&batch).await?;
        }
        Ok(())
    }

    /// The rows after a mark, as a batch.
    async fn cut(&self, mark: Option<Mark>) -> cdc::Result<Option<Batch>> {
        let after = mark.map_or(Sequence::ZERO, |mark| mark.sequence);
        let replay = self.object.reader().await?.replay().after(Cursor::after(after));
        let page = replay.batch_size(ROWS_MAX).with_schema_changes().stream().try_next().await?;
        let records = page.map(|page| page.records).unwrap_or_default();
        let Some(epoch) = records.first().map(|record| record.epoch) else { return Ok(None) };
        let after = mark.unwrap_or_else(|| Mark::start(epoch)).position();
        let through = records.iter().fold(after, |at, record| record.position_after(at));
        let sender = self.object.id().clone();
        Ok(Some(Batch { sender, generation: 1, epoch, after, through, records, kept_back: 0 }))
    }
}
