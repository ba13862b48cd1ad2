//! Costs of one side, and comparisons of several in alternating rounds.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::Result;

/// One way of doing some work, in rounds.
pub trait Side {
    /// Gets the next round ready; not timed.
    ///
    /// # Errors
    ///
    /// Whatever keeps it from running.
    fn prepare(&mut self) -> Result<()>;

    /// Does the round and gives the number of items done.
    ///
    /// # Errors
    ///
    /// Whatever it meets.
    fn run(&mut self) -> Result<u32>;
}

impl<S: Side + ?Sized> Side for Box<S> {
    fn prepare(&mut self) -> Result<()> {
        S::prepare(self)
    }

    fn run(&mut self) -> Result<u32> {
        S::run(self)
    }
}

/// What something took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Processor time of all threads; the wall time where the system does not tell.
    pub cpu: Duration,
    /// Wall time.
    pub wall: Duration,
}

/// Which part of a cost is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Processor time: hardly disturbed by other programs and slow disks.
    Cpu,
    /// Wall time: counts waiting for the disk.
    Wall,
}

/// A started measurement of wall time.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts it.
    #[must_use]
    pub fn start() -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "benchmarks measure the machine's time, here and only here"
        )]
        Self(Instant::now())
    }

    /// The time since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Does some work and gives what it took with its result.
///
/// # Errors
///
/// What `work` returns.
pub fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<(Cost, T)> {
    let before = cpu_time();
    let watch = Stopwatch::start();
    let done = work();
    let wall = watch.elapsed();
    let spent = before.zip(cpu_time()).map(|(before, after)| after.saturating_sub(before));
    Ok((Cost { cpu: spent.unwrap_or(wall), wall }, done?))
}

/// Processor time of the threads that this process has now, where the system tells.
///
/// Linux counts it in nanoseconds, but brings the count of a running thread up to date only at a timer tick or when
/// the thread gives up the processor; so this one does.
#[must_use]
pub fn cpu_time() -> Option<Duration> {
    std::thread::yield_now();
    of_tasks(Path::new("/proc/self/task"))
}

/// Processor time of the threads that another process has now, where the system tells.
#[must_use]
pub fn cpu_time_of(process: u32) -> Option<Duration> {
    of_tasks(Path::new(&format!("/proc/{process}/task")))
}

fn of_tasks(tasks: &Path) -> Option<Duration> {
    let mut nanos = None;
    for task in fs::read_dir(tasks).ok()? {
        let spent = nanos_of(&task.ok()?.path().join("schedstat"));
        nanos = match (nanos, spent) {
            (Some(sum), Some(spent)) => Some(sum + spent),
            // A thread that ended in between has no file any more.
            (known, None) => known,
            (None, spent) => spent,
        };
    }
    nanos.map(Duration::from_nanos)
}

fn nanos_of(schedstat: &Path) -> Option<u64> {
    fs::read_to_string(schedstat).ok()?.split(' ').next()?.parse().ok()
}

/// The costs of several sides per item, round by round.
#[derive(Clone, Debug)]
pub struct Compared {
    /// For each side, the microseconds per item of each round: processor and wall.
    sides: Vec<Vec<(f64, f64)>>,
}

/// Runs all sides in turn, `rounds` times, in an order that rotates. A first round warms up and does not count.
///
/// # Errors
///
/// What a side returns.
pub fn compare(rounds: usize, sides: &mut [Box<dyn Side>]) -> Result<Compared> {
    let mut costs = vec![Vec::with_capacity(rounds); sides.len()];
    for round in 0..=rounds {
        for side in sides.iter_mut() {
            side.prepare()?;
        }
        let count = sides.len();
        for turn in 0..count {
            let at = (turn + round) % count;
            let (Some(side), Some(costs)) = (sides.get_mut(at), costs.get_mut(at)) else { continue };
            let (cost, items) = timed(|| side.run())?;
            if round > 0 {
                let per_item = |spent: Duration| spent.as_secs_f64() * 1e6 / f64::from(items.max(1));
                costs.push((per_item(cost.cpu), per_item(cost.wall)));
            }
        }
    }
    Ok(Compared { sides: costs })
}

impl Compared {
    /// The median cost of a side, µs per item.
    #[must_use]
    pub fn cost(&self, side: usize, metric: Metric) -> f64 {
        median(self.series(side, metric))
    }

    /// The median over the rounds of what `side` cost relative to `base` in the same round.
    #[must_use]
    pub fn ratio(&self, side: usize, base: usize, metric: Metric) -> f64 {
        let (ours, base) = (self.series(side, metric), self.series(base, metric));
        median(ours.into_iter().zip(base).map(|(ours, base)| ours / base).collect())
    }

    /// The median over the rounds of what `side` cost more than `base` in the same round, µs per item.
    #[must_use]
    pub fn difference(&self, side: usize, base: usize, metric: Metric) -> f64 {
        let (ours, base) = (self.series(side, metric), self.series(base, metric));
        median(ours.into_iter().zip(base).map(|(ours, base)| ours - base).collect())
    }

    fn series(&self, side: usize, metric: Metric) -> Vec<f64> {
        let picked = |&(cpu, wall): &(f64, f64)| match metric {
            Metric::Cpu => cpu,
            Metric::Wall => wall,
        };
        self.sides.get(side).map(|rounds| rounds.iter().map(picked).collect()).unwrap_or_default()
    }
}

/// The middle value, or the mean of the two in the middle; not a number when there is none.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match (values.len() % 2, values.get(half.wrapping_sub(1)), values.get(half)) {
        (0, Some(low), Some(high)) => f64::midpoint(*low, *high),
        (_, _, Some(middle)) => *middle,
        _ => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_the_mean_of_the_two_in_the_middle() {
        for (values, expected) in [
            (vec![3.0], 3.0),
            (vec![9.0, 1.0], 5.0),
            (vec![5.0, 1.0, 2.0], 2.0),
            (vec![8.0, 1.0, 2.0, 4.0], 3.0),
        ] {
            assert!((median(values.clone()) - expected).abs() < 1e-9, "{values:?}");
        }
        assert!(median(Vec::new()).is_nan());
    }

    #[test]
    fn a_ratio_is_taken_within_each_round() {
        // The machine was ten times slower in the second round; the ratio does not see it.
        let compared = Compared { sides: vec![vec![(2.0, 0.0), (20.0, 0.0)], vec![(1.0, 0.0), (10.0, 0.0)]] };
        assert!((compared.ratio(0, 1, Metric::Cpu) - 2.0).abs() < 1e-9);
    }
}
