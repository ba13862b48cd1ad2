use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cdc_model::{Batch, ObjectId};

use crate::plan::NetworkRates;
use crate::random::Random;
use crate::world::Traffic;

/// The batches under way, from both sides: what was committed, and whether its sender heard of it. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Batches {
    traffic: Traffic,
    /// Those whose answer the sender has not seen so far.
    sent: Arc<Mutex<BTreeMap<BatchName, Fate>>>,
    answers: Arc<Mutex<Answers>>,
}

/// How answers fare that a network with connections would carry or lose with all others.
#[derive(Debug)]
struct Answers {
    random: Random,
    lost_per_10_000: u64,
}

impl Batches {
    pub(crate) fn new(traffic: Traffic, random: Random) -> Self {
        let answers = Answers { random, lost_per_10_000: 0 };
        Self { traffic, sent: Arc::default(), answers: Arc::new(Mutex::new(answers)) }
    }

    pub(crate) fn set_rates(&self, rates: &NetworkRates) {
        self.answers().lost_per_10_000 = rates.answers_lost_per_10_000;
    }

    /// Whether the answer to what was committed is lost now.
    pub(super) fn is_answer_lost(&self) -> bool {
        let mut answers = self.answers();
        let rate = answers.lost_per_10_000;
        rate > 0 && answers.random.between(1, 10_000) <= rate
    }

    fn answers(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) const fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<BatchName, Fate>> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A batch is sent, or sent again.
    pub(super) fn sends(&self, batch: BatchName) {
        self.lock().insert(batch, Fate::UnderWay);
    }

    /// The receiver has committed a batch and answers.
    pub(super) fn taken(&self, batch: &BatchName) {
        let mut sent = self.lock();
        self.traffic.count(|counts| match sent.get_mut(batch) {
            Some(fate @ Fate::UnderWay) => *fate = Fate::Taken,
            Some(Fate::GivenUp) => {
                sent.remove(batch);
                counts.lost_requests -= 1;
                counts.lost_acks += 1;
            }
            Some(Fate::Taken) | None => counts.repeated += 1,
        });
    }

    /// The sender has the answer, or waits for it no longer.
    pub(super) fn ends(&self, batch: BatchName, answered: bool) {
        let mut sent = self.lock();
        let fate = sent.remove(&batch).filter(|_| !answered);
        self.traffic.count(|counts| match fate {
            None => {}
            Some(Fate::Taken) => counts.lost_acks += 1,
            Some(Fate::UnderWay | Fate::GivenUp) => {
                counts.lost_requests += 1;
                sent.insert(batch, Fate::GivenUp);
            }
        });
    }
}

/// Tells batches apart, wherever they are seen.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct BatchName {
    to: ObjectId,
    sender: ObjectId,
    generation: u64,
    after: u64,
    through: u64,
}

impl BatchName {
    pub(super) fn of(to: &ObjectId, batch: &Batch) -> Self {
        Self {
            to: to.clone(),
            sender: batch.sender.clone(),
            generation: batch.generation,
            after: batch.after.sequence.get(),
            through: batch.through.sequence.get(),
        }
    }
}

/// What is known of a batch that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    UnderWay,
    /// The receiver has committed it.
    Taken,
    /// The sender waits no more.
    GivenUp,
}
