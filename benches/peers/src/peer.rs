//! What every system does here, and how it is measured.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use benches::{Cost, Result, Rng, Shape, bodies, timed};
use cdc_model::Body;
use rusqlite::types::Value;

/// Events in one page of a read.
pub(crate) const PAGE: u64 = 1000;

/// Events in one batch.
const BATCH: usize = 100;

/// One event, in every form that somebody takes it in.
#[derive(Debug)]
pub(crate) struct Event {
    /// Counts from 1.
    pub(crate) number: u32,
    /// About 300 bytes of JSON: what is appended and read.
    pub(crate) body: Body,
    /// A row and a document whose change comes to about as much.
    pub(crate) row: Vec<Value>,
    pub(crate) document: serde_json::Value,
}

/// A system that keeps events in order.
pub(crate) trait Peer {
    /// Appends a batch and waits until it is acknowledged.
    fn append(&mut self, batch: &[Event]) -> Result<()>;

    /// Hands over what was appended since the last read; gives how many events. `None` for those that are read as
    /// another one is.
    fn read(&mut self, _visit: &mut dyn FnMut(&[u8])) -> Result<Option<u64>> {
        Ok(None)
    }

    /// What has to be done between rounds and is not measured.
    fn rest(&mut self) -> Result<()> {
        Ok(())
    }

    /// Processor time that its servers have taken.
    fn server_cpu(&self) -> Duration {
        Duration::ZERO
    }

    /// Bytes on disk.
    fn bytes(&mut self) -> Result<u64>;
}

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    pub(crate) rounds: usize,
    /// Events of a round that come in batches of 100.
    pub(crate) batched: u32,
    /// Events of a round that come alone.
    pub(crate) single: u32,
}

/// Each the least of all rounds, µs per event.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Best {
    pub(crate) cpu: f64,
    pub(crate) wall: f64,
}

/// What was found of one peer.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) name: &'static str,
    pub(crate) batched: Best,
    pub(crate) single: Best,
    pub(crate) read: Option<Best>,
    pub(crate) bytes: f64,
}

#[derive(Debug, Default)]
struct Rounds {
    batched: Vec<(f64, f64)>,
    single: Vec<(f64, f64)>,
    read: Vec<(f64, f64)>,
}

/// Lets all peers take turns in an order that rotates. A first round warms up and does not count.
pub(crate) fn measure(options: Options, peers: &mut [(&'static str, Box<dyn Peer>)]) -> Result<Vec<Found>> {
    let mut rng = Rng::new(23);
    let mut rounds: Vec<Rounds> = peers.iter().map(|_| Rounds::default()).collect();
    let (mut number, count) = (0, peers.len());
    for round in 0..=options.rounds {
        let events = events(&mut rng, &mut number, options.batched + options.single)?;
        let (batched, single) = events.split_at(usize::try_from(options.batched)?);
        for turn in 0..count {
            let at = (turn + round) % count;
            let (Some((name, peer)), Some(found)) = (peers.get_mut(at), rounds.get_mut(at)) else { continue };
            let once =
                measure_one(peer.as_mut(), batched, single).map_err(|error| format!("{name}: {error}"))?;
            if round > 0 {
                found.batched.push(per_event(once.0, batched.len()));
                found.single.push(per_event(once.1, single.len()));
                found.read.extend(once.2.map(|cost| per_event(cost, events.len())));
            }
        }
    }
    let of = |(one, rounds): (&mut (&'static str, Box<dyn Peer>), Rounds)| -> Result<Found> {
        let (name, peer) = one;
        Ok(Found {
            name,
            batched: best(&rounds.batched),
            single: best(&rounds.single),
            read: (!rounds.read.is_empty()).then(|| best(&rounds.read)),
            bytes: to_float(peer.bytes()?) / f64::from(number),
        })
    };
    peers.iter_mut().zip(rounds).map(of).collect()
}

fn events(rng: &mut Rng, number: &mut u32, count: u32) -> Result<Vec<Event>> {
    let shape = Shape::medium();
    let bodies = bodies(rng, count)?;
    let event = |body| {
        *number += 1;
        let row = shape.row(rng, *number);
        let document = shape.document(&row);
        Event { number: *number, body, row, document }
    };
    Ok(bodies.into_iter().map(event).collect())
}

/// The costs of appending in batches, of appending one by one, and of reading all of it.
fn measure_one(
    peer: &mut dyn Peer,
    batched: &[Event],
    single: &[Event],
) -> Result<(Cost, Cost, Option<Cost>)> {
    peer.rest()?;
    let (first, ()) = append(peer, batched, BATCH)?;
    let (second, ()) = append(peer, single, 1)?;
    let mut bytes = 0;
    let (cost, read) = with_servers(peer, |peer| peer.read(&mut |body| bytes += body.len()))?;
    let Some(read) = read else { return Ok((first, second, None)) };
    let (count, expected) = (batched.len() + single.len(), batched.iter().chain(single));
    if read != u64::try_from(count)? {
        return Err(format!("{count} events went in and {read} came out").into());
    }
    let least: usize = expected.map(|event| event.body.as_str().len()).sum();
    if bytes < least {
        return Err(format!("{least} bytes went in and {bytes} came out").into());
    }
    Ok((first, second, Some(cost)))
}

fn append(peer: &mut dyn Peer, events: &[Event], batch: usize) -> Result<(Cost, ())> {
    with_servers(peer, |peer| events.chunks(batch).try_for_each(|batch| peer.append(batch)))
}

fn with_servers<R>(peer: &mut dyn Peer, work: impl FnOnce(&mut dyn Peer) -> Result<R>) -> Result<(Cost, R)> {
    let before = peer.server_cpu();
    let (cost, done) = timed(|| work(&mut *peer))?;
    let servers = peer.server_cpu().saturating_sub(before);
    Ok((Cost { cpu: cost.cpu + servers, ..cost }, done))
}

fn per_event(cost: Cost, events: usize) -> (f64, f64) {
    let events = to_float(u64::try_from(events.max(1)).unwrap_or(u64::MAX));
    (cost.cpu.as_secs_f64() * 1e6 / events, cost.wall.as_secs_f64() * 1e6 / events)
}

fn best(rounds: &[(f64, f64)]) -> Best {
    let least = |values: &mut dyn Iterator<Item = f64>| values.fold(f64::INFINITY, f64::min);
    Best {
        cpu: least(&mut rounds.iter().map(|round| round.0)),
        wall: least(&mut rounds.iter().map(|round| round.1)),
    }
}

/// Counts of a benchmark lie far below 2^32.
fn to_float(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

/// Bytes that the files of a folder take on disk; what is set aside and not written yet does not count.
pub(crate) fn folder_bytes(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { folder_bytes(&entry.path())? } else { metadata.blocks() * 512 };
    }
    Ok(bytes)
}
