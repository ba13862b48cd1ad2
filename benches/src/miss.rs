//! Appending to an object whose log is not open, against appending to one that is.

use std::path::PathBuf;
use std::sync::Arc;

use cdc_log::Log;
use cdc_model::{Body, Clock, ObjectId};
use tempfile::TempDir;

use crate::{Result, Rng, Side, bodies, object, workload};

/// Objects that are taken in turn, so that none is open when its turn comes.
const OBJECTS: usize = 16;

/// The append that has to open its log first and the one that finds it open, in this order; `rows` in one round, each
/// in a transaction of its own.
///
/// # Errors
///
/// When a log cannot be made.
pub fn miss_sides(rows: u32) -> Result<Vec<Box<dyn Side>>> {
    let folder = Arc::new(tempfile::tempdir()?);
    let miss = HandleMiss::new(Arc::clone(&folder), rows)?;
    let warm = WarmHandle {
        log: Log::open(folder.path().join("warm.db"), &object("warm")?, &Clock::system())?,
        rng: Rng::new(19),
        rows,
        bodies: Vec::new(),
        _folder: folder,
    };
    Ok(vec![Box::new(miss), Box::new(warm)])
}

/// Opens a log, appends one event and closes it again, as for an object that has no handle in the cache.
#[derive(Debug)]
pub struct HandleMiss {
    objects: Vec<(PathBuf, ObjectId)>,
    clock: Clock,
    rng: Rng,
    rows: u32,
    bodies: Vec<Body>,
    _folder: Arc<TempDir>,
}

impl HandleMiss {
    fn new(folder: Arc<TempDir>, rows: u32) -> Result<Self> {
        let place = |at| -> Result<_> {
            let name = format!("cold-{at}");
            Ok((folder.path().join(format!("{name}.db")), object(&name)?))
        };
        let objects = (0..OBJECTS).map(place).collect::<Result<Vec<_>>>()?;
        let clock = Clock::system();
        for (path, id) in &objects {
            // What making a file costs is not what is asked here.
            drop(Log::open(path, id, &clock)?);
        }
        Ok(Self { objects, clock, rng: Rng::new(19), rows, bodies: Vec::new(), _folder: folder })
    }
}

impl Side for HandleMiss {
    fn prepare(&mut self) -> Result<()> {
        self.bodies = bodies(&mut self.rng, self.rows)?;
        Ok(())
    }

    fn run(&mut self) -> Result<u32> {
        for (body, (path, id)) in self.bodies.drain(..).zip(self.objects.iter().cycle()) {
            append_one(&mut Log::open(path, id, &self.clock)?, body)?;
        }
        Ok(self.rows)
    }
}

/// Appends to a log that stays open.
#[derive(Debug)]
pub struct WarmHandle {
    log: Log,
    rng: Rng,
    rows: u32,
    bodies: Vec<Body>,
    _folder: Arc<TempDir>,
}

impl Side for WarmHandle {
    fn prepare(&mut self) -> Result<()> {
        self.bodies = bodies(&mut self.rng, self.rows)?;
        Ok(())
    }

    fn run(&mut self) -> Result<u32> {
        for body in self.bodies.drain(..) {
            append_one(&mut self.log, body)?;
        }
        Ok(self.rows)
    }
}

fn append_one(log: &mut Log, body: Body) -> Result<()> {
    log.transact(|log| {
        let timestamp = workload::time_of(log.tail().sequence);
        log.append(timestamp, body).map(drop)
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_of_misses_appends_every_event_and_leaves_no_log_open() {
        let mut miss = HandleMiss::new(Arc::new(tempfile::tempdir().unwrap()), 20).unwrap();
        miss.prepare().unwrap();
        assert_eq!(miss.run().unwrap(), 20);
        let mut stored = 0;
        for (path, id) in &miss.objects {
            assert!(!path.with_extension("db-wal").exists());
            stored += Log::open(path, id, &miss.clock).unwrap().tail().sequence.get();
        }
        assert_eq!(stored, 20);
    }
}
