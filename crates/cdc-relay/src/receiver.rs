use std::collections::BTreeMap;
use std::sync::Arc;

use cdc_model::{Answer, Batch, Epoch, Mark, ObjectId, Origin, Received, Record, Refusal, Sequence, mutant};

use crate::{DEPTH_MAX, Hello, Inbound};

/// The receiving side of an object's child links: pure decisions over what the caller has stored.
///
/// Requests may be lost, repeated, late and reordered. Whatever arrives, applying exactly what the decisions say,
/// each in one durable transaction, takes every event once and in its origin's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receiver {
    /// The receiving object.
    pub id: ObjectId,
    /// Its ancestors, nearest first, as its own uplink knows them; empty at a root.
    pub ancestors: Vec<ObjectId>,
}

/// What a receiver knows of one origin and epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OriginMark {
    /// The newest sequence taken, by whichever way it came.
    pub taken: Sequence,
    /// Declared holes below it: abandoned ranges and ranges left out by a filter.
    pub holes: Vec<Hole>,
}

/// A range `(after, through]` of an origin's sequences that was declared missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hole {
    /// The last sequence before it.
    pub after: Sequence,
    /// Its last sequence.
    pub through: Sequence,
}

impl OriginMark {
    fn is_hole(&self, sequence: Sequence) -> bool {
        let holds = |hole: &Hole| hole.after < sequence && sequence <= hole.through;
        self.holes.iter().any(holds)
    }
}

/// What becomes of one record of an admitted batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Intake {
    /// Append it, with this origin: its route is longer by the sender.
    Store(Arc<Origin>),
    /// Its origin's mark is at or beyond it. Only count it.
    Duplicate,
    /// It has been here before, or happened here. Only count it.
    Looped,
    /// It lies in a declared hole below its origin's mark. Keep it as a dead letter, once per origin and sequence.
    Late,
}

/// Everything that one durable transaction writes for an admitted batch.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a plan does nothing until it is committed"]
pub struct Plan {
    /// One per record of the batch, in order.
    pub intake: Vec<Intake>,
    /// The origin marks that moved.
    pub origin_marks: BTreeMap<(ObjectId, Epoch), Sequence>,
    /// The link with its mark moved.
    pub link: Inbound,
    /// What to add to the hop's counters.
    pub received: Received,
}

/// A batch that begins at its link's mark and agrees with it. [`Admitted::plan`] says what to write.
#[derive(Clone, Copy, Debug)]
#[must_use = "an admitted batch is not stored yet"]
pub struct Admitted<'a> {
    receiver: &'a Receiver,
    link: Inbound,
    batch: &'a Batch,
}

impl Receiver {
    /// Answers a handshake: the link to store durably before answering, or why there is none.
    ///
    /// A repeat of a granted handshake gives the same link again; one that comes late, after a newer generation,
    /// is refused and harms nobody.
    ///
    /// # Errors
    ///
    /// [`Refusal::Cycle`], [`Refusal::TooDeep`], [`Refusal::Superseded`], [`Refusal::ParentLostState`], or a refusal
    /// of the epoch. Nothing may be stored then.
    pub fn greet(&self, link: Option<&Inbound>, hello: &Hello) -> Result<Inbound, Refusal> {
        self.check_chain(&hello.sender)?;
        let fresh = Inbound { generation: 0, session: hello.session, mark: None };
        let known = link.copied().unwrap_or(fresh);
        let repeated = hello.generation == known.generation && hello.session == known.session;
        if hello.generation == 0 || (hello.generation <= known.generation && !repeated) {
            return Err(Refusal::Superseded { generation: hello.generation, current: known.generation });
        }
        let mark = match known.mark {
            Some(mark) => {
                check_claim(&mark, hello)?;
                Some(mark)
            }
            None if hello.acked > Sequence::ZERO && mutant!("empty-parent-believes-child") => {
                Some(Mark::at(hello.epoch, hello.tail))
            }
            None if hello.acked > Sequence::ZERO => {
                return Err(Refusal::ParentLostState { after: hello.acked });
            }
            None => None,
        };
        Ok(Inbound { generation: hello.generation, session: hello.session, mark })
    }

    /// Decides whether a batch may be applied to a link. Nothing is written before [`Admitted::plan`].
    ///
    /// # Errors
    ///
    /// The [`Refusal`] to answer with. The link stays as it is; count the batch with [`refused`].
    pub fn admit<'a>(&'a self, link: Option<&Inbound>, batch: &'a Batch) -> Result<Admitted<'a>, Refusal> {
        self.check_chain(&batch.sender)?;
        let after = batch.after.sequence;
        let link = *link.ok_or(Refusal::ParentLostState { after })?;
        if batch.generation < link.generation {
            return Err(Refusal::Superseded { generation: batch.generation, current: link.generation });
        }
        if batch.generation > link.generation {
            return Err(Refusal::ParentLostState { after });
        }
        cdc_model::admit(batch, link.mark.as_ref())?;
        // The route will name every object below this one that the event has passed.
        if batch.records.iter().any(|record| record.origin.route().len() + 2 > DEPTH_MAX) {
            return Err(too_deep());
        }
        Ok(Admitted { receiver: self, link, batch })
    }

    /// The answer to a batch or handshake. `link` and `settled` are what is durable now.
    #[must_use]
    pub fn answer(&self, link: Option<&Inbound>, settled: Sequence, refusal: Option<Refusal>) -> Answer {
        let mark = link.and_then(|link| link.mark);
        Answer {
            mark,
            settled: settled.min(mark.map_or(Sequence::ZERO, |mark| mark.sequence)),
            generation: link.map_or(0, |link| link.generation),
            ancestors: self.ancestors.clone(),
            refusal,
        }
    }

    pub(crate) fn check_chain(&self, sender: &ObjectId) -> Result<(), Refusal> {
        if *sender == self.id || self.ancestors.contains(sender) {
            let above = self.ancestors.iter().take_while(|ancestor| *ancestor != sender);
            let mut circle: Vec<_> = std::iter::once(&self.id).chain(above).cloned().collect();
            if *sender != self.id {
                circle.push(sender.clone());
            }
            circle.push(self.id.clone());
            return Err(Refusal::Cycle { circle });
        }
        if self.ancestors.len() + 2 > DEPTH_MAX {
            return Err(too_deep());
        }
        Ok(())
    }
}

impl Admitted<'_> {
    /// Decides about every record. `look_up` gives what is stored of an origin and epoch, the default for a new
    /// one; it is asked once for each that occurs.
    ///
    /// # Errors
    ///
    /// The error of `look_up`. Nothing may be written then; the sender tries again.
    pub fn plan<E>(
        self,
        mut look_up: impl FnMut(&ObjectId, Epoch) -> Result<OriginMark, E>,
    ) -> Result<Plan, E> {
        let mut origins = BTreeMap::new();
        let mut intake = Vec::with_capacity(self.batch.records.len());
        let mut received = Received::default();
        for record in &self.batch.records {
            let key = (record.origin.source().clone(), record.origin.epoch());
            let seen = match origins.entry(key) {
                std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::btree_map::Entry::Vacant(entry) => {
                    let mark = look_up(record.origin.source(), record.origin.epoch())?;
                    entry.insert(SeenOrigin { mark, moved: false, routes: Vec::new() })
                }
            };
            let verdict = self.decide(record, seen);
            received.received += 1;
            match verdict {
                Intake::Store(_) => received.stored += u64::from(!mutant!("stored-not-counted")),
                Intake::Duplicate => received.duplicate += 1,
                Intake::Looped => received.looped += 1,
                Intake::Late => received.late += 1,
            }
            intake.push(verdict);
        }
        let moved = origins.into_iter().filter(|(_, seen)| seen.moved);
        Ok(Plan {
            intake,
            origin_marks: moved.map(|(origin, seen)| (origin, seen.mark.taken)).collect(),
            link: Inbound { mark: Some(self.batch.mark()), ..self.link },
            received,
        })
    }

    fn decide(&self, record: &Record, seen: &mut SeenOrigin) -> Intake {
        let me = &self.receiver.id;
        if record.origin.source() == me || record.origin.route().contains(me) {
            return Intake::Looped;
        }
        if record.origin_sequence <= seen.mark.taken {
            return if seen.mark.is_hole(record.origin_sequence) { Intake::Late } else { Intake::Duplicate };
        }
        seen.mark.taken = record.origin_sequence;
        seen.moved = true;
        Intake::Store(seen.via(&record.origin, &self.batch.sender))
    }
}

/// The counters of a batch that was refused.
#[must_use]
pub fn refused(batch: &Batch) -> Received {
    let refused = u64::try_from(batch.records.len()).unwrap_or(u64::MAX);
    Received { received: refused, refused, ..Received::default() }
}

/// One origin while a batch is planned; nearly always it has come one way.
struct SeenOrigin {
    mark: OriginMark,
    moved: bool,
    routes: Vec<(Arc<Origin>, Arc<Origin>)>,
}

impl SeenOrigin {
    fn via(&mut self, origin: &Arc<Origin>, sender: &ObjectId) -> Arc<Origin> {
        let known = self.routes.iter().find(|(from, _)| Arc::ptr_eq(from, origin) || from == origin);
        if let Some((_, extended)) = known {
            return Arc::clone(extended);
        }
        let extended = if mutant!("route-not-extended") { Arc::clone(origin) } else { origin.via(sender) };
        self.routes.push((Arc::clone(origin), Arc::clone(&extended)));
        extended
    }
}

/// Checks what a handshake says against the mark: its epoch, and its tail where both know the digest.
fn check_claim(mark: &Mark, hello: &Hello) -> Result<(), Refusal> {
    let here = Batch {
        sender: hello.sender.clone(),
        generation: hello.generation,
        epoch: hello.epoch,
        after: mark.position(),
        through: mark.position(),
        records: Vec::new(),
        kept_back: 0,
    };
    cdc_model::admit(&here, Some(mark))?;
    if hello.tail.sequence == mark.sequence && hello.tail.digest != mark.digest {
        return Err(Refusal::Diverged { at: mark.sequence });
    }
    Ok(())
}

const fn too_deep() -> Refusal {
    Refusal::TooDeep { depth_max: DEPTH_MAX }
}
