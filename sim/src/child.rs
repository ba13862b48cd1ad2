//! Drives the child's [`Sender`] as the engine does: does what the machine says and tells it what happened.

use std::time::Duration;

use cdc_log::{Limit, Log};
use cdc_model::ObjectId;
use cdc_relay::{Action, Cut, Cutter, LinkOptions, Outbound, Sender, Setup, Slice, Stop};

use crate::Mutant;
use crate::failure::Broken;
use crate::object::{Ended, Object};
use crate::random::Random;

/// The name under which the link lies in the log's file.
const UPLINK: &str = "@uplink";

/// The child and its end of the link. All but the object's files is lost in a crash.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) object: Object,
    pub(crate) sender: Option<Sender>,
    parent: ObjectId,
    options: LinkOptions,
    sessions: Random,
    mutant: Option<Mutant>,
    pub(crate) stop: Option<Stop>,
}

impl Child {
    pub(crate) fn new(
        object: Object,
        parent: ObjectId,
        options: LinkOptions,
        seed: u64,
        mutant: Option<Mutant>,
    ) -> Self {
        let sessions = Random::stream(seed, "sessions");
        Self { object, sender: None, parent, options, sessions, mutant, stop: None }
    }

    /// Makes the sender from what the files say of the link.
    pub(crate) fn link(&mut self) -> Result<(), Broken> {
        let log = self.object.log().expect("the object is open");
        let stored = log.stage_state(UPLINK, self.parent.as_str())?;
        let mut link: Outbound = stored.map_or(Ok(Outbound::NEW), |text| serde_json::from_str(&text))?;
        if self.mutant == Some(Mutant::AckedFromTheFuture) && self.object.life() > 0 {
            link.acked = log.tail();
        }
        self.stop = None;
        self.sender = Some(Sender::new(Setup {
            id: self.object.id().clone(),
            receiver: self.parent.clone(),
            epoch: log.epoch(),
            options: self.options.clone(),
            link,
            tail: log.tail(),
            floor: log.floor()?,
            session: self.sessions.next(),
        })?);
        Ok(())
    }

    /// Does what the machine asked of the child's own log.
    pub(crate) fn work(&mut self, now: Duration, action: Action) -> Result<(), Broken> {
        let (Some(sender), Some(log)) = (self.sender.as_mut(), self.object.log()) else { return Ok(()) };
        match action {
            Action::Save { request, link } => {
                if self.save(&link)? {
                    let sender = self.sender.as_mut().expect("a living child has its sender");
                    sender.handle_saved(request);
                }
            }
            Action::Cut { request, cut } => sender.handle_batch_cut(now, request, read(log, cut)?),
            Action::Compare { request, at } => {
                sender.handle_digest(now, request, Some(log.position_at(at)?.digest));
            }
            Action::Handshake { .. }
            | Action::Send { .. }
            | Action::Wait(_)
            | Action::Idle
            | Action::Stopped(_) => {}
        }
        Ok(())
    }

    /// Stores the link; gives whether the child has lived through it.
    fn save(&mut self, link: &Outbound) -> Result<bool, Broken> {
        if self.mutant == Some(Mutant::GenerationNotSaved) {
            return Ok(true);
        }
        let text = serde_json::to_string(link)?;
        let parent = self.parent.clone();
        let saved = self.object.commit(|log, gate| {
            log.transact(|log| {
                log.set_stage_state(UPLINK, parent.as_str(), Some(&text))?;
                gate()
            })
        })?;
        Ok(matches!(saved, Ended::Committed(())))
    }
}

fn read(log: &Log, cut: Cut) -> Result<Slice, Broken> {
    let mut cutter = Cutter::new(cut);
    loop {
        let records = log.read(cutter.position().sequence, Limit { records: 16, bytes: 1 << 20 })?;
        if records.is_empty() {
            return Ok(cutter.finish());
        }
        for record in records {
            if cutter.push(record)?.is_break() {
                return Ok(cutter.finish());
            }
        }
    }
}
