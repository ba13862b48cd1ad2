use std::fmt;
use std::time::Duration;

use cdc_model::{Answer, Batch};
use cdc_relay::{Hello, RequestId};

use crate::Mutant;
use crate::plan::{Plan, TROUBLE};
use crate::random::Random;

/// One of this many messages takes this many times as long, long enough to come after a restart.
const SLOW_PERCENT: u64 = 5;
const SLOW_FACTOR: u32 = 20;

/// Delay of a sound network.
const HEALED_DELAY_MAX: Duration = Duration::from_millis(2);

/// What goes between the objects. Requests go up, the others down.
#[derive(Clone, Debug)]
pub(crate) enum Message {
    Hello(RequestId, Hello),
    Batch(RequestId, Batch),
    Answer(RequestId, Answer),
    /// The child's transport says that the request failed; whether it arrived is unknown.
    Failed(RequestId),
}

impl Message {
    const fn request(&self) -> RequestId {
        match self {
            Self::Hello(request, _)
            | Self::Batch(request, _)
            | Self::Answer(request, _)
            | Self::Failed(request) => *request,
        }
    }
}

/// Without nonces, times and digests: these are not the seed's.
impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hello(_, hello) => {
                write!(f, "hello {} acked {} tail {}", hello.generation, hello.acked, hello.tail.sequence)
            }
            Self::Batch(_, batch) => {
                let (after, through) = (batch.after.sequence, batch.through.sequence);
                write!(
                    f,
                    "batch ({after}, {through}] of {} generation {}",
                    batch.records.len(),
                    batch.generation
                )
            }
            Self::Answer(_, answer) => {
                let mark = answer.mark.map_or(0, |mark| mark.sequence.get());
                write!(f, "answer {} mark {mark}", answer.generation)?;
                let Some(refusal) = &answer.refusal else { return Ok(()) };
                let name = format!("{refusal:?}");
                write!(f, " refused {}", name.split_whitespace().next().unwrap_or_default())
            }
            Self::Failed(_) => f.write_str("failure"),
        }
    }
}

/// The network between the two objects: it loses, repeats, delays and so reorders, until it is healed.
#[derive(Debug)]
pub(crate) struct Network {
    plan: Plan,
    random: Random,
    mutant: Option<Mutant>,
}

impl Network {
    pub(crate) fn new(seed: u64, plan: Plan, mutant: Option<Mutant>) -> Self {
        Self { plan, random: Random::stream(seed, "network"), mutant }
    }

    /// What arrives of a message, and after which time.
    pub(crate) fn carry(&mut self, now: Duration, message: Message) -> Vec<(Duration, Message)> {
        let healed = now >= TROUBLE;
        let apart = self.plan.partitions.iter().any(|partition| partition.contains(&now));
        if !healed && (apart || self.random.chance(self.plan.loss_percent)) {
            let told = self.random.chance(30);
            return told.then(|| (self.delay(), Message::Failed(message.request()))).into_iter().collect();
        }
        let message = self.damaged(message);
        if healed {
            return vec![(self.random.time(HEALED_DELAY_MAX), message)];
        }
        let copies = 1 + u64::from(self.random.chance(self.plan.repeat_percent));
        (0..copies).map(|_| (self.delay(), message.clone())).collect()
    }

    fn delay(&mut self) -> Duration {
        let delay = self.random.time(self.plan.delay_max);
        let slow = self.random.chance(SLOW_PERCENT);
        (if slow { delay * SLOW_FACTOR } else { delay }).min(Duration::from_secs(2))
    }

    fn damaged(&mut self, mut message: Message) -> Message {
        if let Message::Batch(_, batch) = &mut message
            && batch.records.len() >= 2
            && self.random.chance(10)
        {
            match self.mutant {
                Some(Mutant::SwappedRecords) => batch.records.swap(0, 1),
                Some(Mutant::LostRecord) => {
                    batch.records.remove(1);
                    batch.kept_back += 1;
                }
                _ => {}
            }
        }
        message
    }
}
