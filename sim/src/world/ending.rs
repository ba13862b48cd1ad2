//! How a world ends: everything heals, everything arrives, and what is left is held against what was written.

use std::time::Duration;

use cdc::{Trim, Trouble};
use cdc_model::{Remedy, fault};
use tokio::sync::oneshot;

use crate::checks::{Looks, check_fold, not_consumed, parted_from_parent};
use crate::failure::{Broken, ensure};
use crate::host::Order;
use crate::oracle::Oracle;
use crate::plan::NetworkRates;
use crate::world::befalling::Death;
use crate::world::{ARRIVAL_ASKED_EVERY, End, FOLDS_MAX, LIVENESS_MAX, Runner, World, lock};

/// Captured rows of an application's database that are too few to be removed.
const UNTRIMMED_MAX: i64 = 256;

impl<R: Runner> World<'_, R> {
    pub(super) fn heal(&mut self) -> Result<(), Broken> {
        self.note("everything heals");
        self.healed = true;
        for host in std::mem::take(&mut self.paused).into_keys() {
            self.runner.resume(host);
        }
        let now = self.runner.now();
        for (one, other) in std::mem::take(&mut self.parted).into_keys() {
            self.traffic.mend(one, other, now);
            self.runner.mend(one, other);
        }
        self.runner.set_rates(NetworkRates { delay_max_us: 2_000, ..NetworkRates::default() });
        self.set_faults(false);
        let mutant = self.plan.mutant.clone();
        fault::plant(Some(fault::Faults { mutant, ..fault::Faults::default() }));
        for host in 0..self.processes.len() {
            let process = self.process(host);
            process.disk.set_capacity(None);
            if process.armed.take().is_some() && process.disk.is_dead() {
                self.crash(host, Death { end: End::PowerLost, ..Death::kill(Duration::ZERO) })?;
            }
            let process = self.process(host);
            process.disk.crash_at(u64::MAX, false);
        }
        lock(&self.oracle).begun = u64::MAX;
        Ok(())
    }

    pub(super) fn not_open(&self) -> Option<String> {
        let count = self.paths.len();
        let closed = (0..count)
            .find(|object| !self.is_open(*object))
            .map(|object| format!("object {object} is not open"));
        // A process without objects is asked in the end as well.
        let down = self.processes.iter().position(|process| !process.is_up || process.orders.is_none());
        closed.or_else(|| down.map(|host| format!("host {host} is not up")))
    }

    pub(super) fn not_archived(&mut self) -> Result<Option<String>, Broken> {
        let Some(store) = &self.store else { return Ok(None) };
        self.tables.check(store, &lock(&self.oracle))
    }

    pub(super) fn not_consumed(&mut self) -> Result<Option<String>, Broken> {
        self.first_missing(|_, _| true, |looks, oracle, object| not_consumed(oracle, looks, object))
    }

    /// A log that keeps more hot than it is to, although everybody has taken it.
    pub(super) fn not_pruned(&mut self) -> Result<Option<String>, Broken> {
        let Some(most) = self.plan.options.retention_events else { return Ok(None) };
        if lock(&self.oracle).any_rewound() {
            return Ok(None);
        }
        let is_taken = |oracle: &Oracle, object| {
            let place = oracle.place(object);
            place.parent.is_some() || place.archives
        };
        self.first_missing(is_taken, |looks, _, object| {
            let ((floor, _), tail) = (looks.floor(object)?, looks.tail(object)?);
            Ok((floor + most.max(1) <= tail)
                .then(|| format!("object {object} keeps {floor} to {tail}, it is to keep {most}")))
        })
    }

    /// Drained rows that an application's database still has, although they are to go; or has no more, although they are
    /// to stay.
    pub(super) fn not_trimmed(&mut self) -> Result<Option<String>, Broken> {
        const PROMISE: &str = "rows stay where none are to be trimmed";
        let trim = self.plan.options.trim;
        self.first_missing(Oracle::is_attached, |looks, _, object| {
            let Some((oldest, newest)) = looks.captured(object)? else { return Ok(None) };
            ensure(trim != Trim::Never || oldest == 1, PROMISE, || {
                format!("the database of object {object} has the captured rows {oldest} to {newest}")
            })?;
            let is_long = trim != Trim::Never && newest - oldest >= UNTRIMMED_MAX;
            Ok(is_long.then(|| format!("object {object}: the rows {oldest} to {newest} are not trimmed")))
        })
    }

    /// What the log of an object whose application lost something does not say of its tables.
    pub(super) fn not_drained(&mut self) -> Result<Option<String>, Broken> {
        self.first_missing(Oracle::is_loose, |looks, oracle, object| {
            let differ = looks.tables_differ(oracle, object)?;
            Ok(differ.map(|differ| format!("object {object}: its tables and its log differ: {differ}")))
        })
    }

    /// What the first object that lacks something lacks, of those that are to be asked.
    fn first_missing(
        &mut self,
        is_asked: impl Fn(&Oracle, usize) -> bool,
        ask: impl Fn(&mut Looks, &mut Oracle, usize) -> Result<Option<String>, Broken>,
    ) -> Result<Option<String>, Broken> {
        for object in 0..self.paths.len() {
            let host = {
                let oracle = lock(&self.oracle);
                is_asked(&oracle, object).then(|| oracle.place(object).host)
            };
            let Some(host) = host else { continue };
            let missing = self.quietly(host, |looks, oracle| ask(looks, oracle, object))?;
            if missing.is_some() {
                return Ok(missing);
            }
        }
        Ok(None)
    }

    pub(super) fn with_failures(&mut self, missing: String) -> String {
        let mut saw = missing;
        for (host, reason) in &self.last_failure {
            saw.push_str(&format!("; host {host} could not open: {reason}"));
        }
        for host in 0..self.processes.len() {
            for (object, trouble) in self.ask(host, Order::Troubles).unwrap_or_default() {
                saw.push_str(&format!("; object {object}: {}: {}", trouble.what, trouble.reason));
            }
        }
        saw
    }

    /// Asks a process and lets the world go on until it has answered.
    pub(super) fn ask<A>(
        &mut self,
        host: usize,
        order: impl FnOnce(oneshot::Sender<A>) -> Order,
    ) -> Result<A, Broken> {
        let (way, mut answered) = oneshot::channel();
        let orders = self.process(host).orders.clone();
        let sent = orders.is_some_and(|orders| orders.send(order(way)).is_ok());
        ensure(sent, "what is written arrives", || format!("host {host} takes no orders"))?;
        let until = self.runner.now() + LIVENESS_MAX;
        while self.runner.now() < until {
            if let Ok(answer) = answered.try_recv() {
                return Ok(answer);
            }
            self.run_until(self.runner.now() + Duration::from_millis(10))?;
        }
        Err(Broken { promise: "what is written arrives", saw: format!("host {host} does not answer") })
    }

    /// Nothing sound has stopped. What pauses before it tries again does so in time.
    pub(super) fn check_troubles(&mut self) -> Result<(), Broken> {
        let until = self.runner.now() + LIVENESS_MAX;
        for host in 0..self.processes.len() {
            while let Some((object, trouble)) = self.trouble(host)? {
                let pauses = trouble.remedy == Remedy::Retry && self.runner.now() < until;
                ensure(pauses, "nothing sound ends stopped", || {
                    format!("object {object}: {}: {}", trouble.what, trouble.reason)
                })?;
                self.run_until(self.runner.now() + ARRIVAL_ASKED_EVERY)?;
            }
        }
        Ok(())
    }

    /// Where a child and its parent are no longer of one past, the child has noticed, has stopped, and says that
    /// something must be restored.
    pub(super) fn check_detected(&mut self) -> Result<(), Broken> {
        let until = self.runner.now() + LIVENESS_MAX;
        for object in 0..self.paths.len() {
            let host = lock(&self.oracle).place(object).host;
            while self.quietly(host, |looks, oracle| parted_from_parent(oracle, looks, object))? {
                let mut troubles = self.ask(host, Order::Troubles)?;
                troubles.retain(|(at, trouble)| *at == object && trouble.what == "link");
                if troubles.iter().any(|(_, trouble)| trouble.remedy == Remedy::Restore) {
                    break;
                }
                ensure(self.runner.now() < until, "a rewound log is detected", || {
                    format!("object {object} and its parent have not one past, and it tells {troubles:?}")
                })?;
                self.run_until(self.runner.now() + ARRIVAL_ASKED_EVERY)?;
            }
        }
        Ok(())
    }

    /// Something sound on a host that does not work.
    fn trouble(&mut self, host: usize) -> Result<Option<(usize, Trouble)>, Broken> {
        let troubles = self.ask(host, Order::Troubles)?;
        let oracle = lock(&self.oracle);
        // A link with nothing to send may not have met its parent since that came back.
        let is_idle = |trouble: &Trouble| trouble.what == "link" && trouble.remedy == Remedy::Retry;
        let mut sound = troubles.into_iter().filter(|(object, _)| oracle.is_sound(*object));
        Ok(sound.find(|(_, trouble)| !is_idle(trouble)))
    }

    pub(super) fn check_folds(&mut self) -> Result<(), Broken> {
        let objects: Vec<usize> = (0..self.paths.len().min(FOLDS_MAX)).collect();
        for object in objects {
            let (host, rewound) = {
                let oracle = lock(&self.oracle);
                (oracle.place(object).host, oracle.any_rewound())
            };
            if rewound {
                continue;
            }
            let folded = self.ask(host, |way| Order::Fold(object, way))?;
            let (floor, _) = self.quietly(host, |looks, _| looks.floor(object))?;
            if floor > 1 && !lock(&self.oracle).place(object).archives {
                let is_told =
                    folded.as_ref().is_err_and(|told| told.contains("the oldest readable sequence"));
                ensure(is_told, "below the floor is told", || {
                    format!("object {object} has the floor {floor} and no archive, its history is {folded:?}")
                })?;
                continue;
            }
            let folded = folded.map_err(|saw| Broken { promise: "a replay reads everything", saw })?;
            check_fold(&lock(&self.oracle), object, folded)?;
        }
        Ok(())
    }
}
