//! Recounts what a project promises: order, gaps, digests and chains in every log; hops between them; archives
//! against logs; live tables against the fold.

use std::collections::BTreeMap;

use cdc_iceberg::{Archive, Components};
use cdc_log::{Limit, Log};
use cdc_model::{Digest, ObjectId, Received, Record, Sequence};
use cdc_net::Env;
use futures_util::TryStreamExt as _;

use crate::engine::blocking;
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
    /// Own events that the parent does not hold yet.
    pub under_way: u64,
    /// Live rows were compared.
    pub rows_compared: bool,
    /// The first difference, in words; `None` when all is well.
    pub difference: Option<String>,
}

/// The object's own events as every ancestor must hold them: their place and a digest of what they say.
type Own = Vec<(Sequence, Digest)>;

impl Project {
    /// Verifies one object, or all. With `rows`, live tables too; an attached database is drained first unless an
    /// engine is at work on the project, which does so itself.
    ///
    /// # Errors
    ///
    /// Only what keeps it from looking; what it finds is in [`Verified::difference`].
    pub async fn verify<E: Env>(
        &self,
        env: &E,
        only: Option<&ObjectId>,
        rows: bool,
    ) -> Result<Vec<(ObjectId, Verified)>> {
        let objects = self.objects()?;
        if let Some(id) = only {
            self.object(id)?;
        }
        let mut verified = BTreeMap::new();
        let mut owns = BTreeMap::new();
        for (id, spec) in &objects {
            let (project, spec, clock) = (self.clone(), spec.clone(), env.clock());
            let rows = rows && only.is_none_or(|only| only == id);
            let (done, own) = blocking(env, move || project.verify_log(&spec, rows, &clock)).await?;
            owns.insert(id.clone(), own);
            verified.insert(id.clone(), done);
        }
        // What cannot be opened has its difference already, and nothing can be compared with it.
        let whole: Vec<_> = objects
            .iter()
            .filter(|(id, _)| {
                verified.get(*id).is_some_and(|done: &Verified| done.records > 0 || done.difference.is_none())
            })
            .collect();
        for (id, _) in objects.iter().filter(|(id, _)| !whole.iter().any(|(whole, _)| whole == id)) {
            owns.remove(id);
        }
        for (id, spec) in whole {
            let (project, ours, clock, all) = (self.clone(), spec.clone(), env.clock(), owns.clone());
            let held = blocking(env, move || {
                let log = project.open_log(&ours, &clock)?;
                hops(&log, &all, project.settings.link.filter().is_all())
            });
            let (held, difference) = held.await?;
            note(&mut verified, id, difference);
            for (child, child_spec) in &objects {
                if child_spec.context.as_ref() == Some(id)
                    && let (Some(own), Some(done)) = (owns.get(child), verified.get_mut(child))
                {
                    let held = held.get(child).copied().unwrap_or_default();
                    done.under_way = u64::try_from(own.len().saturating_sub(held)).unwrap_or(u64::MAX);
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

    fn verify_log(&self, spec: &ObjectSpec, rows: bool, clock: &cdc_model::Clock) -> Result<(Verified, Own)> {
        let mut difference = None;
        let mut attached = None;
        if rows && spec.attached.as_ref().is_some_and(|attached| !attached.detached) {
            let mut open = self.open_attached(spec, clock)?;
            if let Ok(_lock) = self.registry.lock() {
                while open.look()?.drained.more {}
            }
            attached = Some(open);
        }
        let log = match self.open_log(spec, clock) {
            Ok(log) => log,
            Err(Error::Log(error @ cdc_log::Error::Corrupt { .. })) => {
                let difference = Some(error.to_string());
                return Ok((Verified { difference, ..Verified::default() }, Own::new()));
            }
            Err(error) => return Err(error),
        };
        let (found, fold) = match log.verify() {
            Ok(verified) => verified,
            Err(error @ cdc_log::Error::Corrupt { .. }) => {
                let difference = Some(error.to_string());
                return Ok((Verified { difference, ..Verified::default() }, Own::new()));
            }
            Err(error) => return Err(Error::Log(error)),
        };
        if let (Some((at, document)), true) = (&found.first_broken, self.settings.link.filter().is_all()) {
            difference = Some(format!("the event at {at} does not continue the history of {document}"));
        }
        difference = difference.or(conservation(&log, found.records - found.own)?);
        let rows_compared = rows && spec.attached.as_ref().is_none_or(|attached| !attached.detached);
        if rows_compared {
            let live = match &attached {
                Some(attached) => attached.compare_rows(&fold)?,
                None => log.compare_rows(&fold)?,
            };
            difference = difference.or(live.map(|row| row.to_string()));
        }
        let own = own_events(&log)?;
        let (records, own_count, documents) = (found.records, found.own, found.documents);
        Ok((
            Verified { records, own: own_count, documents, rows_compared, difference, ..Verified::default() },
            own,
        ))
    }

    /// Compares an object's archive with its log, record by record.
    async fn verify_archive<E: Env>(
        &self,
        env: &E,
        spec: &ObjectSpec,
    ) -> Result<Option<(u64, Option<String>)>> {
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
        let ends_elsewhere = archive.watermark().is_some_and(|mark| mark.sequence != last);
        let what = ends_elsewhere.then(|| format!("the archive says it holds more than up to {last}"));
        Ok(Some((count, what)))
    }

    /// An object's archive, if it has one.
    pub(crate) async fn archive<E: Env>(&self, env: &E, spec: &ObjectSpec) -> Result<Option<Archive>> {
        let Some(location) = self.warehouse()?.filter(|_| spec.context.is_none()) else { return Ok(None) };
        let components = Components { clock: env.clock(), entropy: env.entropy() };
        match Archive::open_existing(&location, &spec.id, components).await {
            Ok(archive) => Ok(Some(archive)),
            Err(cdc_iceberg::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(Error::Archive(error)),
        }
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
            Err(error) => return Err(Error::Log(error)),
        };
        if !same {
            return Ok(Some(record.sequence));
        }
    }
    Ok(None)
}

fn each(log: &Log, mut visit: impl FnMut(&Record)) -> Result<()> {
    let mut after = Sequence::new(log.floor()?.get() - 1);
    while after < log.tail().sequence {
        let records = log.read(after, Limit::default())?;
        records.iter().for_each(&mut visit);
        after = records.last().map_or(log.tail().sequence, |record| record.sequence);
    }
    Ok(())
}

fn own_events(log: &Log) -> Result<Own> {
    let mut own = Own::new();
    each(log, |record| {
        if record.is_own() {
            own.push((record.origin_sequence, Digest::of(record.body.as_str().as_bytes())));
        }
    })?;
    Ok(own)
}

/// Checks that a log holds each origin's events as the origin has them, in order and without a gap. Gives how many
/// it holds of each.
fn hops(
    log: &Log,
    owns: &BTreeMap<ObjectId, Own>,
    dense: bool,
) -> Result<(BTreeMap<ObjectId, usize>, Option<String>)> {
    let mut held: BTreeMap<ObjectId, usize> = BTreeMap::new();
    let mut difference = None;
    each(log, |record| {
        let source = record.origin.source();
        let Some(own) = owns.get(source).filter(|_| !record.is_own()) else { return };
        let at = held.entry(source.clone()).or_default();
        let event = (record.origin_sequence, Digest::of(record.body.as_str().as_bytes()));
        let found = own.iter().skip(*at).position(|own| *own == event);
        match found {
            Some(skipped) if skipped == 0 || !dense => *at += skipped + 1,
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
    Ok((held, difference))
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
    let differs = received.stored != forwarded;
    Ok(differs
        .then(|| format!("{} events of children were stored, the log holds {forwarded}", received.stored)))
}
