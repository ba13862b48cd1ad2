//! What befalls a world: faults of its plan, crashes and what follows them.

use std::sync::atomic::Ordering;
use std::time::Duration;

use cdc::Deadline;
use cdc_model::fault;

use crate::disk::{CrashMode, FileCopy};
use crate::failure::{Broken, ensure};
use crate::host::Order;
use crate::known::Copied;
use crate::plan::FaultKind;
use crate::random::Random;
use crate::store::StoreFaults;
use crate::world::{End, Event, Runner, World, lock};

/// How a process ends that stays away for a while.
#[derive(Clone, Copy, Debug)]
pub(super) struct Death {
    pub(super) end: End,
    pub(super) down: Duration,
    /// So long after it is back the power goes; not at all when zero.
    pub(super) again: Duration,
}

impl Death {
    /// It is killed, and back after a time.
    pub(super) const fn kill(down: Duration) -> Self {
        Self { end: End::Killed, down, again: Duration::ZERO }
    }
}

impl<R: Runner> World<'_, R> {
    /// Ends a process at once.
    pub(super) fn crash(&mut self, host: usize, death: Death) -> Result<(), Broken> {
        let Death { end, down, again } = death;
        let power = end == End::PowerLost;
        let process = self.processes.get_mut(host).expect("a host of this world");
        if !std::mem::take(&mut process.is_up) {
            return Ok(());
        }
        process.armed = None;
        process.orders = None;
        if self.paused.remove(&host).is_some() {
            self.runner.resume(host);
        }
        process.disk.kill();
        if let Some(store) = &process.store {
            store.kill();
        }
        self.runner.end(host, power);
        let ours: Vec<usize> = {
            let mut oracle = lock(&self.oracle);
            let places = oracle.places.iter().enumerate();
            let ours: Vec<_> = places.filter(|(_, place)| place.host == host).map(|(at, _)| at).collect();
            ours.iter().for_each(|at| oracle.crashed(*at));
            if power {
                ours.iter().for_each(|at| oracle.lost_power(*at));
            }
            ours
        };
        ours.iter().for_each(|at| self.looks.close(*at));
        let open = process.disk.open_handles();
        ensure(open.is_empty(), "a process that ends leaves nothing open", || {
            format!("host {host}: {open:?}")
        })?;
        let mode = if power { power_loss(&mut self.crashes) } else { CrashMode::Kill };
        let report = process.disk.crash(mode);
        let (lost, torn) = (report.lost, report.torn);
        let (count, how) = match end {
            End::Killed => ("crashes", "is killed"),
            End::PowerLost => ("crashes", "loses power"),
            End::Closed => ("shutdowns", "has closed"),
        };
        self.count(count);
        self.note(format!("host {host} {how}: {lost} operations lost, {torn} torn; down for {down:?}"));
        let back = self.runner.now() + down;
        self.at(back, Event::Start(host));
        if !again.is_zero() {
            let kind =
                FaultKind::Crash { host, operation: 0, power: true, down_ms: 0, again_ms: 0, at_sync: false };
            self.at(back + again, Event::Fault(kind));
        }
        Ok(())
    }

    /// Processes whose disk has met its crash.
    pub(super) fn bury(&mut self) -> Result<(), Broken> {
        for host in 0..self.processes.len() {
            let process = self.processes.get(host).expect("a host of this world");
            if let Some(death) = process.armed
                && process.disk.is_dead()
            {
                self.crash(host, death)?;
            }
        }
        Ok(())
    }

    pub(super) fn handle(&mut self, event: Event) -> Result<(), Broken> {
        match event {
            Event::Start(host) => {
                self.note(format!("host {host} starts"));
                self.start(host)
            }
            Event::Mend(one, other) => {
                self.mend(one, other);
                Ok(())
            }
            Event::Resume(host) => {
                if self.paused.get(&host).is_some_and(|until| *until <= self.runner.now()) {
                    self.paused.remove(&host);
                    self.runner.resume(host);
                }
                Ok(())
            }
            Event::RoomAgain(host) => {
                let process = self.process(host);
                process.disk.set_capacity(None);
                fault::set_full(&process.folder, false);
                Ok(())
            }
            Event::StoreBack => {
                self.set_faults(!self.healed);
                Ok(())
            }
            Event::Fault(_) if self.healed => Ok(()),
            Event::Fault(fault) => self.befall(fault),
        }
    }

    /// Two hosts reach each other again, unless another partition lasts longer.
    pub(super) fn mend(&mut self, one: usize, other: usize) {
        let now = self.runner.now();
        if self.parted.get(&(one, other)).is_some_and(|until| *until <= now) {
            self.parted.remove(&(one, other));
            self.traffic.mend(one, other, now);
            self.runner.mend(one, other);
        }
    }

    /// Ends a process at its so manieth operation from now on, or at once.
    fn crash_later(
        &mut self,
        host: usize,
        death: Death,
        operation: u64,
        at_sync: bool,
    ) -> Result<(), Broken> {
        if operation == 0 {
            return self.crash(host, death);
        }
        let process = self.process(host);
        if process.is_up {
            process.armed = Some(death);
            process.disk.crash_at(operation, at_sync);
        }
        Ok(())
    }

    pub(super) fn befall(&mut self, fault: FaultKind) -> Result<(), Broken> {
        let now = self.runner.now();
        match fault {
            FaultKind::Crash { host, operation, power, down_ms, again_ms, at_sync } => {
                let end = if power { End::PowerLost } else { End::Killed };
                let (down, again) = (Duration::from_millis(down_ms), Duration::from_millis(again_ms));
                return self.crash_later(host, Death { end, down, again }, operation, at_sync);
            }
            FaultKind::Shutdown { host, deadline_ms, down_ms } => {
                let (deadline, down) = (Deadline::millis(deadline_ms), Duration::from_millis(down_ms));
                if self.order(host, Order::Shutdown { deadline, down }) {
                    self.note(format!("host {host} is to close within {deadline_ms} ms"));
                }
            }
            FaultKind::Reparent { object, to } => self.reparent(object, to),
            FaultKind::Destroy { object, down_ms } => self.destroy(object, Duration::from_millis(down_ms))?,
            FaultKind::Partition { one, other, for_ms } => {
                let (one, other, until) =
                    (one.min(other), one.max(other), now + Duration::from_millis(for_ms));
                if self.parted.insert((one, other), until).is_none() {
                    self.traffic.part(one, other);
                    self.runner.part(one, other);
                }
                self.at(until, Event::Mend(one, other));
                self.note(format!("hosts {one} and {other} are parted for {for_ms} ms"));
            }
            FaultKind::Pause { host, for_ms } if self.process(host).is_up => {
                let until = now + Duration::from_millis(for_ms);
                if self.paused.insert(host, until).is_none() {
                    self.runner.pause(host);
                }
                self.at(until, Event::Resume(host));
                self.note(format!("host {host} stands still for {for_ms} ms"));
                self.count("pauses");
            }
            FaultKind::Pause { .. } => {}
            FaultKind::DiskFull { host, room, for_ms } => {
                let process = self.process(host);
                process.disk.set_capacity(Some(process.disk.used_bytes() + room));
                // What is left is others' before a ballast could be written whole.
                fault::set_full(&process.folder, true);
                self.at(now + Duration::from_millis(for_ms), Event::RoomAgain(host));
                self.note(format!("the disk of host {host} has {room} bytes left for {for_ms} ms"));
                self.count("full disks");
            }
            FaultKind::ClockJump { host, by_ms } => {
                self.process(host).skew_ms.fetch_add(by_ms, Ordering::Relaxed);
                self.note(format!("the clock of host {host} jumps by {by_ms} ms"));
                self.count("clock jumps");
            }
            FaultKind::StoreOutage { for_ms } => {
                if let Some(store) = &self.store {
                    store.set_faults(StoreFaults { error: 1000, ..StoreFaults::NONE });
                    self.at(now + Duration::from_millis(for_ms), Event::StoreBack);
                    self.note(format!("the store is out of reach for {for_ms} ms"));
                    self.count("store outages");
                }
            }
            FaultKind::SecondEngine { host } => {
                if self.order(host, Order::SecondEngine) {
                    self.note(format!("a second engine is opened on host {host}"));
                    self.count("second engines");
                }
            }
            FaultKind::SecondArchiver { object } => self.archive_as_well(object),
            FaultKind::Vacuum { object } => self.vacuum(object)?,
            FaultKind::Copy { object } => self.copy(object)?,
            FaultKind::Rewind { object, down_ms, again_ms } => {
                self.rewind(object, Duration::from_millis(down_ms))?;
                let host = lock(&self.oracle).place(object).host;
                let again = FaultKind::Crash {
                    host,
                    operation: 0,
                    power: false,
                    down_ms,
                    again_ms: 0,
                    at_sync: false,
                };
                self.at(now + Duration::from_millis(down_ms + again_ms), Event::Fault(again));
            }
        }
        Ok(())
    }

    /// Tells a process to do something. Gives whether it can hear.
    fn order(&mut self, host: usize, order: Order) -> bool {
        self.process(host).orders.as_ref().is_some_and(|orders| orders.send(order).is_ok())
    }

    /// A process has closed everything in order: no file of an engine's is open. Then it ends.
    pub(super) fn closed(&mut self, host: usize, down: Duration) -> Result<(), Broken> {
        let ours: Vec<usize> = {
            let oracle = lock(&self.oracle);
            let ours = oracle.places.iter().enumerate().filter(|(_, place)| place.host == host);
            ours.map(|(at, _)| at).collect()
        };
        // We read along in these files, as an application writes in its own.
        ours.iter().for_each(|at| self.looks.close(*at));
        let mut open = self.process(host).disk.open_handles();
        open.retain(|path| path.components().any(|part| part.as_os_str() == ".cdc"));
        ensure(open.is_empty(), "a process that ends leaves nothing open", || {
            format!("host {host} has closed and left {open:?}")
        })?;
        self.crash(host, Death { end: End::Closed, down, again: Duration::ZERO })
    }

    /// Somebody names another parent, which must be refused: nothing is known of how to leave the one it has.
    fn reparent(&mut self, object: usize, to: usize) {
        let (host, parent) = {
            let oracle = lock(&self.oracle);
            (oracle.place(object).host, oracle.place(object).parent)
        };
        if parent != Some(to) && self.is_open(object) && self.order(host, Order::Reparent { object, to }) {
            self.note(format!("object {object} is to go to {to}"));
            self.count("refused parents");
        }
    }

    /// The files of an object are gone when its process is back.
    fn destroy(&mut self, object: usize, down: Duration) -> Result<(), Broken> {
        let (host, is_fit) = {
            let oracle = lock(&self.oracle);
            // Of each object the oracle knows two histories at most.
            (oracle.place(object).host, !oracle.is_attached(object) && !oracle.is_rewound(object))
        };
        if !is_fit || !self.is_open(object) {
            return Ok(());
        }
        self.look_until_whole(object)?;
        if lock(&self.oracle).dirty.contains(&object) {
            return Ok(());
        }
        lock(&self.oracle).known(object).copy = Some(Copied::NOTHING);
        self.copies.insert(object, FileCopy::default());
        self.process(host).put_back = Some(object);
        self.note(format!("the files of object {object} are to be gone"));
        self.count("destroyed objects");
        self.crash(host, Death::kill(down))
    }

    /// Has somebody else archive the log of the first object from this one up that is archived.
    fn archive_as_well(&mut self, object: usize) {
        let archived = {
            let oracle = lock(&self.oracle);
            let archived =
                std::iter::once(object).chain(oracle.above(object)).find(|at| oracle.place(*at).archives);
            // Which history it finds depends on when it looks.
            archived.filter(|at| !oracle.is_rewound(*at)).map(|at| (at, oracle.place(at).host))
        };
        let Some((object, host)) = archived else { return };
        if self.order(host, Order::ArchiveAsWell(object)) {
            self.note(format!("somebody else archives object {object}"));
            self.count("second archivers");
        }
    }

    /// Keeps a copy of an object's files, and what was true when it was made, as soon as both are known.
    pub(super) fn copy(&mut self, object: usize) -> Result<(), Broken> {
        let host = lock(&self.oracle).place(object).host;
        if lock(&self.oracle).is_attached(object) {
            self.copy_foreign(object, host);
            return Ok(());
        }
        let is_open = self.is_open(object);
        if is_open {
            self.look_until_whole(object)?;
        }
        if !is_open || lock(&self.oracle).dirty.contains(&object) {
            let soon = self.runner.now() + Duration::from_millis(1);
            self.at(soon, Event::Fault(FaultKind::Copy { object }));
            return Ok(());
        }
        let path = self.paths.get(object).expect("an object of this world").clone();
        let copy = self.process(host).disk.copy(&path);
        self.copies.insert(object, copy);
        let mut oracle = lock(&self.oracle);
        oracle.copied(object);
        drop(oracle);
        self.note(format!("the files of object {object} are copied"));
        Ok(())
    }

    /// Keeps a copy of an application's database, which has been attached.
    pub(super) fn copy_foreign(&mut self, object: usize, host: usize) {
        if !self.is_open(object) {
            let soon = self.runner.now() + Duration::from_millis(1);
            return self.at(soon, Event::Fault(FaultKind::Copy { object }));
        }
        let path = self.databases.get(object).expect("an object of this world").clone();
        let copy = self.process(host).disk.copy(&path);
        self.copies.insert(object, copy);
        self.note(format!("the application's database of object {object} is copied"));
    }

    pub(super) fn rewind(&mut self, object: usize, down: Duration) -> Result<(), Broken> {
        let host = lock(&self.oracle).place(object).host;
        // Of each object the oracle knows two histories at most.
        let is_rewound = lock(&self.oracle).is_rewound(object);
        if is_rewound || !self.copies.contains_key(&object) || !self.is_open(object) {
            return Ok(());
        }
        if lock(&self.oracle).is_attached(object) {
            self.process(host).put_back = Some(object);
            self.note(format!("the application's database of object {object} is to be the copy again"));
            self.count("rewinds of applications");
            return self.crash(host, Death::kill(down));
        }
        self.look_until_whole(object)?;
        if lock(&self.oracle).dirty.contains(&object) {
            return Ok(());
        }
        self.process(host).put_back = Some(object);
        self.note(format!("the files of object {object} are to be those of the copy again"));
        self.count("rewinds");
        self.crash(host, Death::kill(down))
    }
}

fn power_loss(random: &mut Random) -> CrashMode {
    match CrashMode::draw(random) {
        CrashMode::Kill => CrashMode::POWER,
        power @ CrashMode::Power(_) => power,
    }
}
