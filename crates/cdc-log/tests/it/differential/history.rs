//! What led to a difference: told as SQL, after everything was taken out that it does not need.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::world::{Event, Kind, World, show};
use super::writer::Writer;
use super::{Difference, Failed, OWNED_EVERY, caught, start};

/// A history is made shorter for so long.
const SHRINK_FOR: Duration = Duration::from_secs(120);

/// The seed, the difference, and the shortest history that was found to lead to it.
pub(crate) fn explain(seed: u64, failed: Failed, programs: &[(String, PathBuf)]) -> String {
    let Failed { difference, events } = failed;
    let whole = events.len();
    let owned = seed.is_multiple_of(OWNED_EVERY);
    // What an object that we own did is not run again.
    let (events, difference) =
        if owned { (events, difference) } else { shrink(events, difference, programs) };
    let mut out = format!("seed {seed}: {:?}: {}\n", difference.kind, difference.what);
    writeln!(out, "{} of {whole} events lead to it:", events.len()).unwrap();
    for event in &events {
        match event {
            Event::Open { conn, writer, pragmas } => {
                writeln!(out, "-- connection {conn} of writer {}\n{conn}: {pragmas}", programs[*writer].0)
            }
            Event::Run(run) => {
                let text: String = show(run).chars().take(3000).collect();
                writeln!(out, "{}: {text};", run.conn)
            }
            Event::Attach => writeln!(out, "-- attach"),
            Event::Check { .. } => writeln!(out, "-- look and compare"),
            Event::Audit => writeln!(out, "-- audit"),
            Event::Trim => writeln!(out, "-- trim"),
        }
        .unwrap();
    }
    out
}

/// Takes events out in ever smaller pieces as long as the same kind of difference remains.
fn shrink(
    mut events: Vec<Event>,
    mut difference: Difference,
    programs: &[(String, PathBuf)],
) -> (Vec<Event>, Difference) {
    let begin = Instant::now();
    let mut writers = start(programs);
    let mut piece = events.len() / 2;
    while piece > 0 {
        let mut at = 0;
        let mut shorter = false;
        while at < events.len() {
            if begin.elapsed() > SHRINK_FOR {
                return (events, difference);
            }
            let gone = at..(at + piece).min(events.len());
            let kept = |index: &usize| {
                !gone.contains(index) || matches!(events[*index], Event::Open { .. } | Event::Attach)
            };
            let fewer: Vec<Event> =
                (0..events.len()).filter(kept).map(|index| events[index].clone()).collect();
            match again(&fewer, &difference, &mut writers, programs) {
                Some((upto, found)) if fewer.len() < events.len() => {
                    (events, difference, shorter) = (fewer, found, true);
                    events.truncate(upto);
                }
                _ => at += piece,
            }
        }
        if !shorter || piece > 1 {
            piece /= 2;
        }
    }
    (events, difference)
}

/// Runs a history. Gives how many of its events led to such a difference, if they did.
fn again(
    events: &[Event],
    like: &Difference,
    writers: &mut Vec<Writer>,
    programs: &[(String, PathBuf)],
) -> Option<(usize, Difference)> {
    let mut world = World::new(writers);
    let mut upto = 0;
    let result = caught(|| {
        for event in events {
            upto += 1;
            world.run(std::slice::from_ref(event))?;
        }
        world.verify()
    });
    drop(world);
    let found = result.err()?;
    if found.kind == Kind::Writer {
        *writers = start(programs);
    }
    let first_words = |text: &str| text.split(" (").next().unwrap_or_default().to_owned();
    let same = found.kind == like.kind
        && (found.kind != Kind::Refused || first_words(&found.what) == first_words(&like.what));
    same.then_some((upto, found))
}
