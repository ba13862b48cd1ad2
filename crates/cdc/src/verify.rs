//! Recounts what a project promises: order, gaps, digests and chains in every log; hops between them; archives
//! against logs; live tables against the fold.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cdc_iceberg::{Archive, Components};
use cdc_log::{CompareRows, Limit, Log};
use cdc_model::{Clock, Digest, ObjectId, Received, Record, Sequence};
use cdc_net::Env;
use futures_util::TryStreamExt as _;

use crate::engine::blocking;
use crate::node::outbound;
use crate::registry::ObjectSpec;
use crate::{Error, Project, Result};

/// What was recounted of one object.
#[derive(Clone, Debug, Default)]
pub struct Verified {
    /// Records in the log.
    pub records: u64,
    /// Of these, the object's own.
    pub own: u64,
    /// Documents that the log adds up to.
    pub documents: u64,
    /// Records in the archive, each compared with the log where the log still has it.
    pub archived: Option<u64>,
    /// Own events that the parent does not hold yet; for one in another process, that it has not acknowledged.
    pub under_way: u64,
    /// Live rows were compared.
    pub rows_compared: bool,
    /// The first difference, in words; `None` when all is well.
    pub difference: Option<String>,
}

/// The object's own events as every ancestor must hold them, as far as the log still has them.
#[derive(Default)]
struct Own {
    /// Nothing can be said of events before it.
    floor: Sequence,
    /// Their place and a digest of what they say.
    events: Vec<(Sequence, Digest)>,
}

/// How often live rows are looked at until nothing waits to be drained, and how long in between.
const REST_TRIES: u32 = 250;
const REST_PAUSE: Duration = Duration::from_millis(20);

/// What was recounted of one log at one moment.
#[derive(Default)]
struct Recount {
    done: Verified,
    own: Arc<Own>,
    tail: Sequence,
    /// Whether stages kept events from going on.
    is_staged: bool,
    is_readable: bool,
}

/// A log that is damaged or contradicts itself is a difference, not an error.
fn readable(recounted: Result<Recount>) -> Result<Recount> {
    match recounted {
        Err(Error::Log(error)) if error.is_damage() => {
            let done = Verified { difference: Some(error.to_string()), ..Verified::default() };
            Ok(Recount { done, ..Recount::default() })
        }
        other => other,
    }
}

fn recount(log: &Log, dense: bool, compare: Option<&CompareRows<'_>>) -> Result<Recount> {
    let (found, fold) = log.verify()?;
    let broken = found
        .first_broken
        .as_ref()
        .filter(|_| dense)
        .map(|(at, document)| format!("the event at {at} does not continue the history of {document}"));
    let mut difference = broken.or(conservation(log, found.records - found.own)?);
    if let Some(compare) = compare {
        let live = compare(&fold)?;
        difference = difference.or(live.map(|row| row.to_string()));
    }
    let mut kept_back = 0;
    for name in ["filtered", "absorbed", "dead-lettered"] {
        kept_back += log.counter(name)?;
    }
    let done = Verified {
        records: found.records,
        own: found.own,
        documents: found.documents,
        rows_compared: compare.is_some(),
        difference,
        ..Verified::default()
    };
    let own = Arc::new(own_events(log)?);
    Ok(Recount { done, own, tail: log.tail().sequence, is_staged: kept_back > 0, is_readable: true })
}

impl Project {
    /// Verifies one object, or all. With `rows`, live tables too: what waits is drained first, unless an
    /// engine is at work on the project, which does so itself. Where an application writes faster than it is drained,
    /// [`Verified::rows_compared`] stays false.
    ///
    /// # Errors
    ///
    /// Only what keeps it from looking, as a description of an object that cannot be read where all are to be verified; what
    /// it finds is in [`Verified::difference`].
    pub async fn verify<E: Env>(
        &self,
        env: &E,
        only: Option<&ObjectId>,
        rows: bool,
    ) -> Result<Vec<(ObjectId, Verified)>> {
        let (objects, mut unreadable) = self.registry.list()?;
        match only {
            Some(id) => drop(self.object(id)?),
            None => unreadable.pop().map_or(Ok(()), Err)?,
        }
        // Parents first: what a parent holds of a child is compared with what the child had later.
        let mut order: Vec<_> = objects.values().collect();
        let depth = |spec: &&ObjectSpec| self.registry.ancestors(spec).map_or(0, |above| above.len());
        order.sort_by_cached_key(depth);
        let mut recounted = BTreeMap::new();
        for spec in &order {
            let rows = rows && only.is_none_or(|only| *only == spec.id);
            recounted.insert(spec.id.clone(), self.recount(env, spec, rows).await?);
        }
        let mut verified: BTreeMap<_, _> =
            recounted.iter().map(|(id, recount)| (id.clone(), recount.done.clone())).collect();
        // What cannot be read has its difference already, and nothing can be compared with it.
        recounted.retain(|_, recount| recount.is_readable);
        let dense =
            self.settings.link.filter().is_all() && !recounted.values().any(|recount| recount.is_staged);
        let owns =
            Arc::new(recounted.iter().map(|(id, recount)| (id.clone(), Arc::clone(&recount.own))).collect());
        for (id, recount) in &recounted {
            let Some(spec) = objects.get(id) else { continue };
            let (project, ours, clock, tail) = (self.clone(), spec.clone(), env.clock(), recount.tail);
            let owns: Arc<BTreeMap<ObjectId, Arc<Own>>> = Arc::clone(&owns);
            let looked = blocking(env, move || {
                project.open_log(&ours, &clock)?.at_one_moment(|log| {
                    let difference = hops(log, tail, &owns, dense)?;
                    Ok((difference, marks(log)?, project.acked_elsewhere(log, &ours)?))
                })
            });
            let (difference, marks, acked) = looked.await?;
            note(&mut verified, id, difference);
            if let (Some(acked), Some(done)) = (acked, verified.get_mut(id)) {
                done.under_way = recount.own.after(acked);
            }
            for (child, child_spec) in &objects {
                if child_spec.context.as_ref() == Some(id)
                    && self.registry.is_here(id)?
                    && let (Some(child), Some(done)) = (recounted.get(child), verified.get_mut(child))
                {
                    done.under_way = child.own.after(marks.get(&child_spec.id).copied().unwrap_or_default());
                }
            }
            let archived = self.verify_archive(env, spec).await?;
            if let (Some((count, difference)), Some(done)) = (archived, verified.get_mut(id)) {
                done.archived = Some(count);
                note(&mut verified, id, difference);
            }
        }
        Ok(verified.into_iter().filter(|(id, _)| only.is_none_or(|only| only == id)).collect())
    }

    /// What an object's parent has acknowledged, as last stored; `None` unless another process serves it.
    fn acked_elsewhere(&self, log: &Log, spec: &ObjectSpec) -> Result<Option<Sequence>> {
        match &spec.context {
            Some(parent) if !self.registry.is_here(parent)? => {
                Ok(Some(outbound(log, parent)?.acked.sequence))
            }
            _ => Ok(None),
        }
    }

    /// Recounts one log; with live rows once everything captured is drained, which an engine at work does.
    async fn recount<E: Env>(&self, env: &E, spec: &ObjectSpec, rows: bool) -> Result<Recount> {
        let rows = rows && spec.attached.as_ref().is_none_or(|attached| !attached.detached);
        for _ in 0..if rows { REST_TRIES } else { 0 } {
            let (project, spec, clock) = (self.clone(), spec.clone(), env.clock());
            if let Some(recount) = blocking(env, move || project.recount_at_rest(&spec, &clock)).await? {
                return Ok(recount);
            }
            env.sleep(REST_PAUSE).await;
        }
        let (project, spec, clock) = (self.clone(), spec.clone(), env.clock());
        blocking(env, move || {
            let (dense, log) = (project.settings.link.filter().is_all(), project.open_log(&spec, &clock));
            readable(log.and_then(|mut log| log.at_one_moment(|log| recount(log, dense, None))))
        })
        .await
    }

    /// Recounts one log and compares live rows; `None` when captured rows wait to be drained.
    fn recount_at_rest(&self, spec: &ObjectSpec, clock: &Clock) -> Result<Option<Recount>> {
        let dense = self.settings.link.filter().is_all();
        let recounted = if spec.attached.is_some() {
            self.open_attached(spec, clock).and_then(|mut attached| {
                self.unless_in_use(|| {
                    while attached.look()?.drained.more {}
                    Ok(())
                })?;
                attached.at_rest(|log, compare| recount(log, dense, Some(compare)))
            })
        } else {
            self.open_log(spec, clock).and_then(|mut log| {
                let recounted = log.at_rest(|log, compare| recount(log, dense, Some(compare)))?;
                if recounted.is_none() {
                    self.unless_in_use(|| {
                        log.heal()?;
                        Ok(log.sync()?)
                    })?;
                }
                Ok(recounted)
            })
        };
        recounted.map_or_else(|error| readable(Err(error)).map(Some), Ok)
    }

    /// Does what whoever holds the project does as well, unless somebody holds it.
    fn unless_in_use(&self, work: impl FnOnce() -> Result<()>) -> Result<()> {
        match self.registry.lock() {
            Ok(_lock) => work(),
            Err(Error::InUse { .. } | Error::Copied { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Compares an object's archive with its log, record by record.
    async fn verify_archive<E: Env>(
        &self,
        env: &E,
        spec: &ObjectSpec,
    ) -> Result<Option<(u64, Option<String>)>> {
        // Before the archive is looked at, which only grows: rows go once it has them.
        let (project, ours, clock) = (self.clone(), spec.clone(), env.clock());
        let floor = blocking(env, move || Ok(project.open_log(&ours, &clock)?.floor()?)).await?;
        let Some(archive) = self.archive(env, spec).await? else { return Ok(None) };
        let (project, spec, clock) = (self.clone(), spec.clone(), env.clock());
        let mut pages = Box::pin(archive.scan().stream());
        let (mut count, mut last) = (0_u64, Sequence::ZERO);
        while let Some(page) = pages.try_next().await? {
            for record in &page {
                if record.sequence != last.next() {
                    let what = format!("the archive holds {} after {last}", record.sequence);
                    return Ok(Some((count, Some(what))));
                }
                last = record.sequence;
                count += 1;
            }
            let (project, spec, clock) = (project.clone(), spec.clone(), clock.clone());
            let differs = blocking(env, move || differs(&project.open_log(&spec, &clock)?, &page)).await?;
            if let Some(at) = differs {
                return Ok(Some((count, Some(format!("archive and log differ at {at}")))));
            }
        }
        if last.next() < floor {
            let what = format!("the archive ends at {last}, the log is readable from {floor}");
            return Ok(Some((count, Some(what))));
        }
        let ends_elsewhere = archive.watermark().is_some_and(|mark| mark.sequence != last);
        let what = ends_elsewhere.then(|| format!("the archive says it holds more than up to {last}"));
        Ok(Some((count, what)))
    }

    /// An object's archive, if it has one.
    pub(crate) async fn archive<E: Env>(&self, env: &E, spec: &ObjectSpec) -> Result<Option<Archive>> {
        let Some(warehouse) = self.warehouse(spec)? else { return Ok(None) };
        let components = Components { clock: env.clock(), entropy: env.entropy() };
        let opened = match warehouse.existing() {
            Ok(storage) => {
                Archive::open_existing_in(&storage, &spec.id, components).await.map_err(Error::from)
            }
            Err(error) => Err(error),
        };
        match opened {
            Ok(archive) => Ok(Some(archive)),
            Err(Error::Archive(cdc_iceberg::Error::NotFound { .. })) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Own {
    /// How many events lie behind a position.
    fn after(&self, position: Sequence) -> u64 {
        let behind = self.events.iter().filter(|(place, _)| *place > position).count();
        u64::try_from(behind).unwrap_or(u64::MAX)
    }
}

fn note(verified: &mut BTreeMap<ObjectId, Verified>, id: &ObjectId, difference: Option<String>) {
    if let Some(done) = verified.get_mut(id) {
        done.difference = done.difference.take().or(difference);
    }
}

/// The first record of a page that the log holds otherwise.
fn differs(log: &Log, page: &[Record]) -> Result<Option<Sequence>> {
    let floor = log.floor()?;
    for record in page.iter().filter(|record| record.sequence >= floor) {
        let before = Sequence::new(record.sequence.get() - 1);
        let same = match log.read(before, Limit { records: 1, bytes: 0 }) {
            Ok(found) => found.first() == Some(record),
            Err(cdc_log::Error::BeyondTail { .. }) => false,
            // Pruned meanwhile.
            Err(cdc_log::Error::BelowFloor { .. }) => true,
            Err(error) => return Err(Error::Log(error)),
        };
        if !same {
            return Ok(Some(record.sequence));
        }
    }
    Ok(None)
}

/// Visits the records up to `tail`.
fn each(log: &Log, tail: Sequence, mut visit: impl FnMut(&Record)) -> Result<()> {
    let mut after = Sequence::new(log.floor()?.get() - 1);
    while after < tail {
        let records = log.read(after, Limit::default())?;
        records.iter().filter(|record| record.sequence <= tail).for_each(&mut visit);
        after = records.last().map_or(tail, |record| record.sequence);
    }
    Ok(())
}

fn own_events(log: &Log) -> Result<Own> {
    let mut own = Own { floor: log.floor()?, events: Vec::new() };
    each(log, log.tail().sequence, |record| {
        if record.is_own() {
            own.events.push((record.origin_sequence, Digest::of(record.body.as_str().as_bytes())));
        }
    })?;
    Ok(own)
}

/// Up to where a parent has decided about its children's logs.
fn marks(log: &Log) -> Result<BTreeMap<ObjectId, Sequence>> {
    let mut marks = BTreeMap::new();
    for child in log.children()? {
        let mark = log.link(&child)?.and_then(|link| link.mark);
        marks.insert(child, mark.map_or(Sequence::ZERO, |mark| mark.sequence));
    }
    Ok(marks)
}

/// Checks that a log holds each origin's events as the origin has them, in order and without a gap, as far as neither
/// has pruned them.
fn hops(
    log: &Log,
    tail: Sequence,
    owns: &BTreeMap<ObjectId, Arc<Own>>,
    dense: bool,
) -> Result<Option<String>> {
    let is_pruned = log.floor()? > Sequence::new(1);
    let mut held: BTreeMap<ObjectId, usize> = BTreeMap::new();
    let mut difference = None;
    each(log, tail, |record| {
        let source = record.origin.source();
        let Some(own) = owns.get(source).filter(|_| !record.is_own()) else { return };
        if record.origin_sequence < own.floor {
            return;
        }
        // Nothing tells what of an origin a pruned log held before.
        let begins_anywhere = is_pruned && !held.contains_key(source);
        let at = held.entry(source.clone()).or_default();
        let event = (record.origin_sequence, Digest::of(record.body.as_str().as_bytes()));
        let found = own.events.iter().skip(*at).position(|own| *own == event);
        match found {
            Some(skipped) if skipped == 0 || !dense || begins_anywhere => *at += skipped + 1,
            _ => {
                difference.get_or_insert_with(|| {
                    format!(
                        "{} is not the event that {source} has at {}",
                        record.sequence, record.origin_sequence
                    )
                });
            }
        }
    })?;
    Ok(difference)
}

/// Recounts what the intake counters say.
fn conservation(log: &Log, forwarded: u64) -> Result<Option<String>> {
    let received = Received {
        received: log.counter("received")?,
        stored: log.counter("stored")?,
        duplicate: log.counter("duplicate")?,
        looped: log.counter("looped")?,
        late: log.counter("late")?,
        refused: log.counter("refused")?,
    };
    if !received.is_conserved() {
        return Ok(Some(format!("the sums of what was received do not agree: {received:?}")));
    }
    let pruned = log.counter("pruned-forwarded")?;
    Ok((received.stored != forwarded + pruned).then(|| {
        let stored = received.stored;
        format!("{stored} events of children were stored, the log holds {forwarded} and {pruned} were pruned")
    }))
}
