use std::time::Duration;

use cdc_model::Clock;

use crate::host::Host;
use crate::machine::Machine;
use crate::plan::NetworkRates;

/// One life of a process, about to begin.
#[derive(Debug)]
pub(crate) struct Life {
    /// Which process.
    pub(crate) host: usize,
    /// Its so manieth life, from 1.
    pub(crate) number: u64,
    pub(crate) shell: Host,
    pub(crate) machine: Machine,
}

/// What a world needs of whatever runs its processes: time, tasks and the network between them.
pub(crate) trait Runner {
    /// Steps between two looks into a file.
    const STEPS_PER_LOOK: u64;

    /// Simulated time since the beginning.
    fn now(&self) -> Duration;

    /// The wall clock, which is right.
    fn clock(&self) -> Clock;

    /// Goes on a little, and not beyond `until` if it can. False when nothing was left to do before that time, which it
    /// then is.
    fn step(&mut self, until: Duration) -> bool;

    /// Starts a process.
    fn start(&mut self, life: Life);

    /// Ends a process at once, wherever it is. Nothing of it is left then. Its peers may hear of it, but not when its
    /// power went.
    fn end(&mut self, host: usize, power: bool);

    /// A process stands still from now on.
    fn pause(&mut self, host: usize);

    /// It goes on.
    fn resume(&mut self, host: usize);

    /// Two hosts do not reach each other from now on.
    fn part(&mut self, one: usize, other: usize);

    /// They do again.
    fn mend(&mut self, one: usize, other: usize);

    /// How messages fare from now on.
    fn set_rates(&mut self, rates: NetworkRates);

    /// Steps so far, and a hash over all of them.
    fn trace(&self) -> (u64, u64);

    /// Ends everything.
    fn shut(self);
}
