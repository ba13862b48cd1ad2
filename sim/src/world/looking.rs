//! When the world looks into files and archives while it runs.

use std::path::Path;
use std::time::Duration;

use crate::application::is_busy;
use crate::checks::{Above, Claim, Looks};
use crate::disk::Faults;
use crate::failure::{Broken, ensure};
use crate::oracle::Oracle;
use crate::world::{CLAIMS_MAX, Runner, World, lock};

impl<R: Runner> World<'_, R> {
    /// Looks into files of a host whose disk does not fail meanwhile.
    pub(super) fn quietly<T: Default>(
        &mut self,
        host: usize,
        look: impl FnOnce(&mut Looks, &mut Oracle) -> Result<T, Broken>,
    ) -> Result<T, Broken> {
        let disk = self.process(host).disk.clone();
        // A log that its engine has closed is opened, which makes files.
        let due = disk.put_off_dying();
        let done = self.without_faults(host, |looks, oracle| {
            let seen = look(looks, oracle);
            // Closing is of its disk too.
            looks.let_go();
            seen
        });
        disk.go_on_dying(due);
        done
    }

    /// Does something at a process whose disk has no faults meanwhile, but may die.
    fn without_faults<T: Default>(
        &mut self,
        host: usize,
        look: impl FnOnce(&mut Looks, &mut Oracle) -> Result<T, Broken>,
    ) -> Result<T, Broken> {
        let disk = self.process(host).disk.clone();
        if disk.is_dead() {
            return Ok(T::default());
        }
        let faults = disk.faults();
        disk.set_faults(Faults { capacity_bytes: None, ..Faults::default() });
        let done = look(&mut self.looks, &mut lock(&self.oracle));
        disk.set_faults(faults);
        done
    }

    pub(super) fn look(&mut self, object: usize) -> Result<(), Broken> {
        if !self.is_open(object) {
            return Ok(());
        }
        let host = lock(&self.oracle).place(object).host;
        let path = self.paths.get(object).expect("an object of this world");
        let disk = &self.processes.get(host).expect("a host of this world").disk;
        // What a loss of power may still take is nothing that anybody was told; it is looked at when it is on disk.
        let (is_settled, version) = (self.healed || disk.is_synced(path), disk.version(path));
        let is_known = self.looked_at.get(&object) == Some(&version);
        if is_known && !lock(&self.oracle).dirty.contains(&object) {
            let mut oracle = lock(&self.oracle);
            oracle.known(object).known_at = oracle.moment;
            return Ok(());
        }
        let is_writing = {
            let oracle = lock(&self.oracle);
            // The log of an attached object is drained between its application's transactions.
            oracle.is_writing(object) && !oracle.is_attached(object)
        };
        if is_writing || !is_settled {
            lock(&self.oracle).dirty.insert(object);
            return Ok(());
        }
        self.looked_at.insert(object, version);
        self.quietly(host, |looks, oracle| {
            oracle.dirty.remove(&object);
            looks.look(oracle, object)
        })?;
        self.check_floor(object, host)
    }

    /// Nothing went that somebody needs: the root and the archives on the way have it, and every subscriber.
    fn check_floor(&mut self, object: usize, host: usize) -> Result<(), Broken> {
        const PROMISE: &str = "rows go behind settled and every subscriber only";
        if self.plan.options.retention_events.is_none() {
            return Ok(());
        }
        let found = self.quietly(host, |looks, _| looks.floor(object).map(Some))?;
        let Some((floor, subscriber)) = found.filter(|(floor, _)| *floor > 1) else { return Ok(()) };
        let gone = floor - 1;
        ensure(subscriber.is_none_or(|subscriber| subscriber >= gone), PROMISE, || {
            format!("object {object} has dropped {gone} rows, a subscriber is at {subscriber:?}")
        })?;
        let place = lock(&self.oracle).place(object).clone();
        if place.archives {
            let archived = self.store.as_ref().and_then(|store| self.tables.watermark(store, object));
            ensure(archived.is_some_and(|archived| archived >= gone), PROMISE, || {
                format!("object {object} has dropped {gone} rows, {archived:?} are archived")
            })?;
        }
        ensure(place.archives || place.parent.is_some(), PROMISE, || {
            format!("object {object} has dropped {gone} rows of which nobody has another copy")
        })?;
        if let Some(parent) = place.parent {
            // Held against the logs above like what is called settled in an answer.
            let mut oracle = lock(&self.oracle);
            let claim = oracle.claims.entry((parent, object)).or_default();
            *claim = gone.max(*claim);
        }
        Ok(())
    }

    /// Looks at an object and everything below it that it may have taken something from.
    pub(super) fn look_until_whole(&mut self, object: usize) -> Result<(), Broken> {
        let own = lock(&self.oracle).place(object).depth;
        for at in self.deepest_first() {
            if lock(&self.oracle).place(at).depth > own {
                self.look(at)?;
            }
        }
        self.look(object)
    }

    pub(super) fn deepest_first(&self) -> Vec<usize> {
        let oracle = lock(&self.oracle);
        let mut all: Vec<usize> = (0..self.paths.len()).collect();
        all.sort_by_key(|at| std::cmp::Reverse(oracle.place(*at).depth));
        all
    }

    pub(super) fn look_at_one(&mut self) -> Result<(), Broken> {
        let dirty = {
            let mut oracle = lock(&self.oracle);
            oracle.next_dirty()
        };
        match dirty {
            Some(object) => self.look(object),
            None => Ok(()),
        }
    }

    /// Somebody vacuums a database, unless it is in use just then.
    pub(super) fn vacuum(&mut self, object: usize) -> Result<(), Broken> {
        if !self.is_open(object) {
            return Ok(());
        }
        let host = lock(&self.oracle).place(object).host;
        let path = self.paths.get(object).expect("an object of this world").clone();
        match self.without_faults(host, |_, _| Ok(vacuum(&path)))? {
            None => {
                self.count("vacuums");
                self.note(format!("the database of object {object} is vacuumed"));
            }
            Some(error) if is_busy(&error) => self.count("vacuums of a database in use"),
            // It was the operation at which the crash that was due befell the machine.
            Some(_) if self.process(host).disk.is_dead() => self.count("vacuums in which the machine died"),
            Some(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Now and then somebody else commits to a table, while the trouble lasts.
    pub(super) fn commit_foreign(&mut self) {
        let Some(store) = self.store.as_ref().filter(|_| !self.healed) else { return };
        let often = self.foreign.between(1, 10_000) <= self.plan.options.store.foreign_commits;
        if often && self.tables.commit_foreign(store, &mut self.foreign) {
            self.count("foreign commits");
        }
    }

    /// Notes how far the logs and archives above are that an answer has called something settled in.
    pub(super) fn note_claim(&mut self) -> Result<(), Broken> {
        let Some(((_, child), position)) = lock(&self.oracle).claims.pop_first() else { return Ok(()) };
        let chain: Vec<usize> = lock(&self.oracle).above(child).collect();
        if self.claims.len() == CLAIMS_MAX || !chain.iter().all(|at| self.is_open(*at)) {
            self.count("claims never held");
            return Ok(());
        }
        let mut above = Vec::new();
        for at in chain {
            let host = lock(&self.oracle).place(at).host;
            let tail = self.quietly(host, |looks, _| looks.tail(at))?;
            let archived = self.store.as_ref().and_then(|store| self.tables.watermark(store, at));
            above.push(Above { at, tail, archived });
        }
        self.claims.push(Claim { child, position, above });
        self.count("claims of settled");
        Ok(())
    }

    pub(super) fn look_at_all(&mut self) -> Result<(), Broken> {
        self.deepest_first().into_iter().try_for_each(|at| self.look(at))
    }
}

/// What kept it from being done, if anything did.
fn vacuum(path: &Path) -> Option<rusqlite::Error> {
    let vacuumed = rusqlite::Connection::open(path).and_then(|database| {
        database.busy_timeout(Duration::ZERO)?;
        database.execute_batch("VACUUM")
    });
    vacuumed.err()
}
