//! Key-value stores in this process: the number of an event is its key.

use std::path::{Path, PathBuf};

use ::redb::{ReadableDatabase as _, TableDefinition};
use benches::Result;
use fjall::{Keyspace, KeyspaceCreateOptions, PersistMode};

use crate::peer::{Event, Peer, folder_bytes};

/// fjall, which hands a batch to the system and leaves the sync to it.
pub(crate) fn fjall_buffered(folder: &Path) -> Result<Box<dyn Peer>> {
    fjall(folder, PersistMode::Buffer)
}

/// fjall with a sync per batch.
pub(crate) fn fjall_sync(folder: &Path) -> Result<Box<dyn Peer>> {
    fjall(folder, PersistMode::SyncData)
}

fn fjall(folder: &Path, mode: PersistMode) -> Result<Box<dyn Peer>> {
    let database = fjall::Database::builder(folder).open()?;
    let events = database.keyspace("events", KeyspaceCreateOptions::default)?;
    Ok(Box::new(Fjall { database, events, mode, folder: folder.to_owned(), read: 0 }))
}

struct Fjall {
    database: fjall::Database,
    events: Keyspace,
    mode: PersistMode,
    folder: PathBuf,
    read: u32,
}

impl Peer for Fjall {
    fn append(&mut self, batch: &[Event]) -> Result<()> {
        let mut write = self.database.batch().durability(Some(self.mode));
        for event in batch {
            write.insert(&self.events, event.number.to_be_bytes(), event.body.as_str());
        }
        write.commit()?;
        Ok(())
    }

    fn read(&mut self, visit: &mut dyn FnMut(&[u8])) -> Result<Option<u64>> {
        let mut count = 0;
        for guard in self.events.range((self.read + 1).to_be_bytes()..) {
            visit(&guard.value()?);
            count += 1;
        }
        self.read += u32::try_from(count)?;
        Ok(Some(count))
    }

    fn bytes(&mut self) -> Result<u64> {
        folder_bytes(&self.folder)
    }
}

const EVENTS: TableDefinition<'_, u32, &str> = TableDefinition::new("events");

/// redb, which syncs every commit.
pub(crate) fn redb(folder: &Path) -> Result<Box<dyn Peer>> {
    let database = ::redb::Database::create(folder.join("events.redb"))?;
    Ok(Box::new(Redb { database, folder: folder.to_owned(), read: 0 }))
}

struct Redb {
    database: ::redb::Database,
    folder: PathBuf,
    read: u32,
}

impl Peer for Redb {
    fn append(&mut self, batch: &[Event]) -> Result<()> {
        let write = self.database.begin_write()?;
        {
            let mut table = write.open_table(EVENTS)?;
            for event in batch {
                table.insert(event.number, event.body.as_str())?;
            }
        }
        write.commit()?;
        Ok(())
    }

    fn read(&mut self, visit: &mut dyn FnMut(&[u8])) -> Result<Option<u64>> {
        let table = self.database.begin_read()?.open_table(EVENTS)?;
        let mut count = 0;
        for entry in table.range(self.read + 1..)? {
            visit(entry?.1.value().as_bytes());
            count += 1;
        }
        self.read += u32::try_from(count)?;
        Ok(Some(count))
    }

    fn bytes(&mut self) -> Result<u64> {
        folder_bytes(&self.folder)
    }
}
