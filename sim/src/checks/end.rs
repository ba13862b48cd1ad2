//! What must be true some time after everything has healed.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::checks::Looks;
use crate::documents::Documents;
use crate::failure::{Broken, ensure};
use crate::host::{FoldedDocument, SUBSCRIBER};
use crate::known::{Class, KeptBack, Row, number, row_hash};
use crate::oracle::Oracle;
use crate::rows;
use crate::workload::COUNTS;

/// Why the world is not quiet so far; `None` when everything that was written has arrived.
pub(crate) fn what_is_missing(oracle: &Oracle) -> Option<String> {
    for (at, known) in oracle.objects.iter().enumerate() {
        let is_short = known.own_seen < known.written.len() && !oracle.is_loose(at);
        if is_short || oracle.doubtful(at).is_some() {
            return Some(format!("object {at}: its log shows {} of {}", known.own_seen, known.written.len()));
        }
        let Some(parent) = oracle.place(at).parent.filter(|_| oracle.is_sound(at)) else { continue };
        let through = oracle.objects.get(parent).and_then(|above| above.taken.get(&at));
        let decided = known.decided(through.map_or(0, |taken| taken.through));
        if decided < known.rows.len() {
            return Some(format!("object {parent} holds {decided} of {} rows of {at}", known.rows.len()));
        }
        let mark = oracle.objects.get(parent).and_then(|above| above.marks.get(&at)).copied();
        if mark.unwrap_or_default() < number(known.rows.len()) {
            return Some(format!(
                "object {parent} has decided about {mark:?} of {} rows of {at}",
                known.rows.len()
            ));
        }
    }
    None
}

/// Tables, effects and counts of every object, from its file.
pub(crate) fn check_end(oracle: &mut Oracle, looks: &mut Looks) -> Result<(), Broken> {
    for at in 0..oracle.places.len() {
        looks.check_tables(oracle, at)?;
        check_effects(oracle, looks, at)?;
        check_counts(oracle, at)?;
        check_kept_back(oracle, looks, at)?;
        check_believed(oracle, looks, at)?;
    }
    Ok(())
}

/// Whether the consumer of an object takes a row of its log: not what it caused itself.
fn is_consumed_by(at: usize, row: &Row) -> bool {
    row.class != Class::Schema && (row.class != Class::Echo || row.origin != at)
}

/// Rows that a consumer has not taken. What it writes because of them has not arrived anywhere.
pub(crate) fn not_consumed(oracle: &Oracle, looks: &mut Looks, at: usize) -> Result<Option<String>, Broken> {
    let Some(known) = oracle.objects.get(at).filter(|_| oracle.is_consumed(at)) else { return Ok(None) };
    let file = looks.file(at)?;
    let (checkpoint, floor) = (rows::checkpoint(file, SUBSCRIBER)?, rows::floor(file)?);
    if checkpoint + 1 < floor {
        // It came when rows were gone already, and is told so: nobody holds them for who has taken none.
        return Ok(None);
    }
    let behind = known.rows.iter().skip(usize::try_from(checkpoint).unwrap_or(usize::MAX));
    let left = behind.filter(|row| is_consumed_by(at, row)).count();
    Ok((left > 0).then(|| format!("the consumer of object {at} has {left} rows behind {checkpoint} to take")))
}

/// Exactly once: each record up to the checkpoint has had its effect, and no other.
fn check_effects(oracle: &Oracle, looks: &mut Looks, at: usize) -> Result<(), Broken> {
    let Some(known) = oracle.objects.get(at).filter(|_| oracle.is_consumed(at)) else { return Ok(()) };
    let file = looks.file(at)?;
    let (effects, distinct, most) = rows::effects(file)?;
    let checkpoint = rows::checkpoint(file, SUBSCRIBER)?;
    let passed = known.rows.iter().zip(1..).take_while(|(_, own)| *own <= checkpoint);
    let events = number(passed.filter(|(row, _)| is_consumed_by(at, row)).count());
    let exact = effects == distinct && effects == events && most <= checkpoint;
    ensure(exact, "effect and checkpoint commit together", || {
        format!(
            "object {at}: {effects} effects of {distinct} records up to {most} for {events} events up to the checkpoint \
             {checkpoint}"
        )
    })
}

/// A count counts every event of a child that it was to count, once.
fn check_counts(oracle: &Oracle, at: usize) -> Result<(), Broken> {
    let Some(known) = oracle.objects.get(at).filter(|_| oracle.place(at).counts && !oracle.is_rewound(at))
    else {
        return Ok(());
    };
    let counts = known.counted.ids(COUNTS);
    let count = |id: &String| known.counted.get(COUNTS, id)?.get("count")?.as_u64();
    let counted: u64 = counts.iter().filter_map(count).sum();
    let is_counted = |row: &&Row| {
        row.origin != at && row.class != Class::Schema && row.kept_back != Some(KeptBack::DeadLettered)
    };
    let came = known.rows.iter().filter(is_counted).count();
    ensure(counted == number(came), "a count is exact", || {
        format!("object {at} counted {counted} of {came} events")
    })
}

/// stored = forwarded + filtered + dead-lettered: what goes no further is named, counted, and kept.
fn check_kept_back(oracle: &Oracle, looks: &mut Looks, at: usize) -> Result<(), Broken> {
    let Some(known) = oracle.objects.get(at) else { return Ok(()) };
    let file = looks.file(at)?;
    let filtered = known.rows.iter().filter(|row| row.kept_back == Some(KeptBack::Filtered)).count();
    let letters: Vec<(u64, u64)> = (1..)
        .zip(&known.rows)
        .filter(|(_, row)| row.kept_back == Some(KeptBack::DeadLettered))
        .map(|(own, row)| (own, row.hash))
        .collect();
    let meant = (number(filtered), number(letters.len()));
    let counted = (rows::counter(file, "filtered")?, rows::counter(file, "dead-lettered")?);
    ensure(counted == meant, "what is received is accounted for", || {
        format!("object {at} counts {counted:?} filtered and dead-lettered, it holds {meant:?}")
    })?;
    let kept: Vec<(u64, u64)> = rows::dead_letters(file)?
        .into_iter()
        .map(|(own, body, timestamp)| (own, row_hash(&body, timestamp)))
        .collect();
    ensure(kept == letters, "what a stage rejects waits for somebody", || {
        format!("object {at} holds the dead letters {kept:?}, rejected were {letters:?}")
    })
}

/// No child believes that more is stored above than is.
fn check_believed(oracle: &Oracle, looks: &mut Looks, at: usize) -> Result<(), Broken> {
    let Some(parent) = oracle.place(at).parent.filter(|_| oracle.is_sound(at)) else { return Ok(()) };
    let acked = rows::acked(looks.file(at)?)?;
    let child = oracle.place(at).id.as_str().to_owned();
    let marks: BTreeMap<_, _> = rows::marks(looks.file(parent)?)?.into_iter().collect();
    let mark = marks.get(&child).copied().unwrap_or_default();
    ensure(acked <= mark, "acknowledged means durable", || {
        format!("object {at} believes {acked} is stored at {parent}, whose mark is {mark}")
    })
}

/// Whether either of a child and its parent was put back to before what it has told the other, and they have met since:
/// a link with nothing to send does not ask its parent anything.
pub(crate) fn parted_from_parent(oracle: &Oracle, looks: &mut Looks, at: usize) -> Result<bool, Broken> {
    let Some(parent) = oracle.place(at).parent else { return Ok(false) };
    match (oracle.is_rewound(at), oracle.is_rewound(parent)) {
        (true, false) => {
            let taken = oracle.objects.get(parent).and_then(|above| above.taken.get(&at));
            Ok(taken.is_some_and(|taken| taken.old == Some(true)))
        }
        (false, true) => {
            let acked = rows::acked(looks.file(at)?)?;
            let has_sent = acked < rows::tail(looks.file(at)?)?;
            Ok(has_sent && acked > rows::mark(looks.file(parent)?, oracle.place(at).id.as_str())?)
        }
        (true, true) | (false, false) => Ok(false),
    }
}

/// A replay of an object's whole history adds up to the documents of everything below it.
pub(crate) fn check_fold(oracle: &Oracle, at: usize, folded: Vec<FoldedDocument>) -> Result<(), Broken> {
    let mut found: BTreeMap<(String, String, String), Value> = BTreeMap::new();
    for document in folded {
        let FoldedDocument { source, collection, document, after } = document;
        found.insert((source, collection, document), serde_json::from_str(&after)?);
    }
    let mut meant = BTreeMap::new();
    for origin in 0..oracle.places.len() {
        let seen = oracle.seen_of(at, origin);
        for (collection, document, after) in seen.iter() {
            let source = oracle.place(origin).id.to_string();
            meant.insert((source, collection.to_owned(), document.to_owned()), after.clone());
        }
    }
    let keys = found.keys().chain(meant.keys());
    let differs = keys.into_iter().find(|key| found.get(*key) != meant.get(*key));
    ensure(differs.is_none(), "a replay adds up to what was written", || {
        let differs = differs.cloned().unwrap_or_default();
        format!(
            "object {at}: {differs:?} is {:?}, written was {:?}",
            found.get(&differs),
            meant.get(&differs)
        )
    })
}

impl Oracle {
    /// What one origin's events that lie in an object's log add up to.
    fn seen_of(&self, at: usize, origin: usize) -> Documents {
        let (Some(known), Some(source)) = (self.objects.get(at), self.objects.get(origin)) else {
            return Documents::default();
        };
        let mut documents = Documents::default();
        let here = known.rows.iter().filter(|row| row.origin == origin);
        for row in here {
            let fact = source.fact_of(row.origin_sequence);
            fact.iter().for_each(|fact| documents.apply(fact));
        }
        documents
    }
}
