//! Prints what writes of one object cost with so many of them under way at the same time.
//!
//! One line each on stdout: writes in flight, events a second, transactions per event, processor time per event.
//! Each transaction is one sync of the write-ahead log; those of `normal` lines are synced some 10 ms later, together. The
//! first line is a bare table, one row to a transaction.

use benches::{GroupOptions, GroupResult, Result, bare, group};
use cdc::Durability;
use clap::Parser as _;

/// Measures writes of one object that share transactions.
#[derive(Debug, clap::Parser)]
struct Arguments {
    /// Events of each line.
    #[arg(long, default_value_t = 40_960)]
    events: u32,
    /// Writes in flight, line by line.
    #[arg(long, value_delimiter = ',', default_value = "1,8,64,512")]
    in_flight: Vec<u32>,
}

/// With one write in flight each waits for its own sync: fewer events are enough.
const ALONE_EVENTS_MAX: u32 = 4096;

#[expect(clippy::print_stdout, reason = "the figures are this program's output")]
fn print(name: &str, found: &GroupResult) {
    let (rate, commits, cpu) = (found.rate(), found.commits_per_event(), found.cpu_per_event());
    println!("{name:>11} {rate:>10.0} events/s {commits:>8.4} transactions/event {cpu:>8.2} cpu-µs/event");
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    print("bare", &bare(arguments.events.min(ALONE_EVENTS_MAX))?);
    for (durability, name) in [(Durability::Full, ""), (Durability::Normal, "normal ")] {
        for in_flight in arguments.in_flight.iter().copied().filter(|in_flight| *in_flight > 0) {
            let is_slow = in_flight == 1 && durability == Durability::Full;
            let events = if is_slow { arguments.events.min(ALONE_EVENTS_MAX) } else { arguments.events };
            let found = group(GroupOptions { in_flight, events, durability })?;
            print(&format!("{name}{in_flight}"), &found);
        }
    }
    Ok(())
}
