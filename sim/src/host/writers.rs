//! Who writes in a process: into its own objects through the engine, into attached ones as an application.

use std::collections::BTreeMap;
use std::time::Duration;

use cdc::{Change, Env, LogError, Object};
use futures_util::future::join_all;

use super::{Host, lock};
use crate::application::Application;
use crate::workload::{BURSTS, ON_PURPOSE, Transaction};

/// The stream of random numbers of what applications write before an engine is there.
const UNSEEN: usize = usize::MAX / 7;

/// Transactions of that kind in one life, at most.
const UNSEEN_MAX: u64 = 4;

/// Of a hundred transactions, how many have others beside them at the same time.
const BURST_PERCENT: u64 = 15;

/// So many at most.
const BESIDE_MAX: u64 = 6;

/// Whether a write committed, if anybody knows.
fn committed(written: &cdc::Result<()>) -> Option<bool> {
    match written {
        Ok(()) => Some(true),
        Err(cdc::Error::Log(LogError::GivenUp { reason })) if reason == ON_PURPOSE => Some(false),
        Err(_) => None,
    }
}

impl Host {
    pub(super) fn start_writers<E: Env>(
        &self,
        env: &E,
        objects: &[(usize, Object<E>)],
        mut applications: BTreeMap<usize, Application<E>>,
    ) {
        for writer in 0..self.options.writers {
            let share: Vec<_> = objects.iter().skip(writer).step_by(self.options.writers).cloned().collect();
            if share.is_empty() {
                continue;
            }
            let ours = |(at, _): &(usize, Object<E>)| Some((*at, applications.remove(at)?));
            let applications = share.iter().filter_map(ours).collect();
            let (host, ours) = (self.clone(), env.clone());
            env.spawn(async move { host.write(ours, share, applications, writer).await });
        }
    }

    async fn write<E: Env>(
        self,
        env: E,
        objects: Vec<(usize, Object<E>)>,
        mut applications: BTreeMap<usize, Application<E>>,
        writer: usize,
    ) {
        let mut random = self.random.branch(writer);
        let pause_max = Duration::from_millis(self.options.write_pause_max_ms);
        loop {
            env.sleep(random.time(pause_max)).await;
            let (at, object) = random.pick(&objects);
            let transaction = {
                let mut oracle = lock(&self.oracle);
                if oracle.begun >= self.options.writes_max {
                    return;
                }
                oracle.begin(*at)
            };
            let Some(transaction) = transaction else { continue };
            if let Some(application) = applications.get_mut(at) {
                self.write_attached(*at, application, transaction).await;
                continue;
            }
            let beside = if random.chance(BURST_PERCENT) { random.between(1, BESIDE_MAX) } else { 0 };
            let beside = (0..beside).map(|_| self.write_beside(*at, object, random.chance(20)));
            let written = object.write(move |tx| Ok(transaction.run(tx)?));
            // Polled in this order, each in its turn: they wait in the object's queue together.
            let (written, _) =
                futures_util::future::join(written, join_all(beside.collect::<Vec<_>>())).await;
            lock(&self.oracle).ended(*at, committed(&written));
        }
    }

    /// Writes one document, or gives it up.
    async fn write_beside<E: Env>(&self, at: usize, object: &Object<E>, gives_up: bool) {
        let id = lock(&self.oracle).begin_burst(at);
        let document = Change::insert(BURSTS, &id, &at);
        let written = object.write(move |tx| {
            tx.emit(&document?)?;
            let on_purpose = LogError::GivenUp { reason: ON_PURPOSE.to_owned() };
            if gives_up { Err(on_purpose.into()) } else { Ok(()) }
        });
        let written = written.await;
        lock(&self.oracle).burst_ended(at, &id, committed(&written));
    }

    async fn write_attached<E: Env>(
        &self,
        at: usize,
        application: &mut Application<E>,
        transaction: Transaction,
    ) {
        let committed = application.run(transaction).await;
        lock(&self.oracle).ended(at, committed);
        if committed.is_none() {
            lock(&self.oracle).is_unsettled(at);
            let number = application.settle().await;
            lock(&self.oracle).last_committed(at, number);
        } else if let Some(design) = application.design() {
            // Rows that change without an event of their own are found by comparison.
            lock(&self.oracle).loosen(at);
            if design.is_unseen() {
                lock(&self.oracle).known(at).is_bypassed = true;
            }
            let redesigned = application.redesign(design).await;
            lock(&self.oracle).redesigns += u64::from(redesigned);
        }
    }

    /// An application goes on with its database while nobody looks at it.
    pub(super) async fn write_unseen<E: Env>(&self, at: usize, application: &mut Application<E>) {
        let mut random = self.random.branch(UNSEEN).branch(at);
        for _ in 0..random.between(0, UNSEEN_MAX) {
            let transaction = {
                let mut oracle = lock(&self.oracle);
                if oracle.begun >= self.options.writes_max { None } else { oracle.begin(at) }
            };
            let Some(transaction) = transaction else { return };
            self.write_attached(at, application, transaction).await;
        }
    }
}
