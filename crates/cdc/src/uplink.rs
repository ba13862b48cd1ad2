//! Drives the link to the parent: does what the [`Sender`] machine says and tells it what happened.

use std::sync::Arc;
use std::time::Duration;

use cdc_model::{Answer, ObjectId, Remedy, Sequence, fault_point, mutant, reached};
use cdc_net::{Call, Env, Request, Transport, TransportError};
use cdc_relay::{Action, LinkOptions, RequestId, Sender, Setup, Stop};
use tokio::sync::watch;

use crate::shared::{Shared, raise, stopped};
use crate::{Error, Result};

/// What the parent has acknowledged is stored this long after, and when the link stops: a parent that comes back with
/// less is found out then. Stored at once it would cost every batch a second sync.
const SAVE_AFTER: Duration = Duration::from_secs(1);

/// Up to where the acknowledged position is stored.
struct Saved {
    acked: Sequence,
    unsaved_since: Option<Duration>,
}

impl Saved {
    /// When to store again.
    fn due(&mut self, acked: Sequence, now: Duration) -> Option<Duration> {
        (acked > self.acked).then(|| *self.unsaved_since.get_or_insert(now) + SAVE_AFTER)
    }
}

/// Pause after the object's own log could not be read.
const BEGIN_AGAIN: Duration = Duration::from_secs(1);

/// A request on its way to the parent.
struct Flight {
    request: RequestId,
    /// When the sender takes it for lost.
    deadline: Duration,
    answer: Call,
}

pub(crate) struct Uplink<E: Env> {
    pub(crate) object: Arc<Shared<E>>,
    pub(crate) parent: ObjectId,
    /// What the parent has settled, where it lives in this process: news to ask for.
    pub(crate) parent_settled: Option<watch::Receiver<Sequence>>,
    /// Whether another process serves the parent.
    pub(crate) is_elsewhere: bool,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) options: LinkOptions,
}

impl<E: Env> Uplink<E> {
    pub(crate) async fn drive(mut self) {
        let Some(sender) = self.begin().await else { return };
        self.object.clear_trouble("link");
        if let Some(stop) = self.drive_to_end(sender).await
            && !mutant!("stopped-link-not-told")
        {
            self.object.set_trouble("link", chain(&stop), stop.remedy());
        }
    }

    /// Makes the sender from what the log says, as soon as the log can be read.
    async fn begin(&self) -> Option<Sender> {
        let mut stop = self.object.stop.subscribe();
        loop {
            match self.sender().await {
                Ok(sender) if !fault_point!("link.begun-in-vain") => return Some(sender),
                Ok(_) => {}
                Err(error) => {
                    self.object.set_failed("link", &error);
                    if error.remedy() != Remedy::Retry {
                        return None;
                    }
                }
            }
            reached!("link.begun-later");
            tokio::select! {
                biased;
                () = stopped(&mut stop) => return None,
                () = self.object.env.sleep(BEGIN_AGAIN) => {}
            }
        }
    }

    async fn drive_to_end(&mut self, mut sender: Sender) -> Option<Stop> {
        let mut parent_settled = self.parent_settled.take();
        let mut stop = self.object.stop.subscribe();
        let mut tail = self.object.sendable.subscribe();
        let mut saved = Saved { acked: sender.acked().sequence, unsaved_since: None };
        let mut flush = self.object.flush.subscribe();
        let mut flight: Option<Flight> = None;
        if *flush.borrow_and_update() > 0 {
            sender.flush();
        }
        loop {
            let now = self.object.env.now();
            if flight.take_if(|flight| flight.deadline <= now).is_some() {
                self.tell_waiting(&TransportError::NoAnswer { object: self.parent.clone() });
            }
            sender.handle_tail(now, *tail.borrow_and_update());
            let until = match sender.poll(now) {
                Action::Handshake { request, hello } => {
                    flight = Some(self.call(now, request, Request::Hello(hello)));
                    continue;
                }
                Action::Send { request, batch } => {
                    flight = Some(self.call(now, request, Request::Batch(batch)));
                    continue;
                }
                Action::Stopped(why) => {
                    self.save(&sender, &mut saved).await;
                    return Some(why);
                }
                Action::Wait(until) => Some(until),
                Action::Idle => None,
                local @ (Action::Save { .. } | Action::Cut { .. } | Action::Compare { .. }) => {
                    self.do_locally(&mut sender, local).await;
                    continue;
                }
            };
            self.publish(&sender);
            let due = saved.due(sender.acked().sequence, now);
            if due.is_some_and(|due| due <= now) {
                self.save(&sender, &mut saved).await;
                continue;
            }
            let until = due.into_iter().chain(until).min();
            let answered = async {
                match &mut flight {
                    Some(flight) => (flight.request, (&mut flight.answer).await),
                    None => std::future::pending().await,
                }
            };
            let due = self.sleep_until(until);
            let news = changed(&mut parent_settled);
            tokio::select! {
                biased;
                () = stopped(&mut stop) => {
                    self.save(&sender, &mut saved).await;
                    return None;
                }
                (request, answer) = answered => {
                    flight = None;
                    self.take(&mut sender, request, answer);
                }
                _ = tail.changed() => {}
                _ = flush.changed() => self.flush(&mut sender),
                () = news => sender.probe(),
                () = due => {}
            }
        }
    }

    async fn sender(&self) -> Result<Sender> {
        let (object, parent) = (&self.object, self.parent.clone());
        let (link, epoch, tail, floor) = object
            .run(move |node| {
                let log = node.log();
                Ok((node.outbound(&parent)?, log.epoch(), node.sendable(), log.floor()?))
            })
            .await?;
        raise(&object.acked, link.acked.sequence);
        Ok(Sender::new(Setup {
            id: object.id().clone(),
            receiver: self.parent.clone(),
            epoch,
            options: self.options.clone(),
            link,
            tail,
            floor,
            session: object.env.entropy().u64(),
        })?)
    }

    fn call(&self, now: Duration, id: RequestId, request: Request) -> Flight {
        let deadline = now + Duration::from_millis(self.options.answer_timeout_ms);
        Flight { request: id, deadline, answer: self.transport.call(&self.parent, request) }
    }

    fn take(&self, sender: &mut Sender, request: RequestId, answer: Result<Answer, TransportError>) {
        let now = self.object.env.now();
        match answer {
            Ok(_) if fault_point!("link.answer-lost") => sender.handle_failure(now, request),
            Ok(answer) => {
                self.object.clear_trouble("link");
                sender.handle_answer(now, request, answer);
            }
            Err(error) => {
                self.tell_waiting(&error);
                sender.handle_failure(now, request);
            }
        }
    }

    /// A request that fails is tried again; until one is answered, whoever looks is told why.
    fn tell_waiting(&self, error: &TransportError) {
        self.object.set_trouble("link", chain(error), Remedy::Retry);
    }

    /// Somebody waits: a parent that did not answer is tried at once, and one in another process asked for news.
    fn flush(&self, sender: &mut Sender) {
        if self.object.has_trouble("link") {
            sender.retry_now();
        }
        if self.is_elsewhere {
            sender.probe();
        }
        sender.flush();
    }

    /// What the machine asks of the object's own log.
    async fn do_locally(&self, sender: &mut Sender, action: Action) {
        let object = &self.object;
        let (request, done) = match action {
            Action::Save { request, .. } | Action::Cut { request, .. } | Action::Compare { request, .. }
                if fault_point!("link.log-not-read") =>
            {
                return sender.handle_failure(object.env.now(), request);
            }
            Action::Save { request, link } => {
                let parent = self.parent.clone();
                let saved = object.run(move |node| node.save_outbound(&parent, &link)).await;
                (request, saved.map(|()| sender.handle_saved(request)))
            }
            Action::Cut { request, cut } => {
                let slice = object.run(move |node| node.cut(cut)).await;
                let now = object.env.now();
                (request, slice.map(|slice| sender.handle_batch_cut(now, request, slice)))
            }
            Action::Compare { request, at } => {
                let own = object.run(move |node| Ok((node.position_at(at)?, node.log().floor()?))).await;
                let now = object.env.now();
                let told = own.map(|(own, floor)| {
                    sender.handle_floor(floor);
                    sender.handle_digest(now, request, own.map(|own| own.digest));
                });
                (request, told)
            }
            Action::Handshake { .. }
            | Action::Send { .. }
            | Action::Wait(_)
            | Action::Idle
            | Action::Stopped(_) => return,
        };
        if let Err(Error::Log(cdc_log::Error::BelowFloor { floor, .. })) = done {
            // An explicit act has dropped what the parent does not hold.
            sender.stop(Stop::BelowFloor { mark: sender.acked().sequence, floor });
        } else if let Err(error) = done {
            tracing::warn!(object = %object.id(), %error, "the log could not be read for the link");
            sender.handle_failure(object.env.now(), request);
        }
    }

    fn publish(&self, sender: &Sender) {
        let object = &self.object;
        raise(&object.acked, sender.acked().sequence);
        raise(&object.uplink_settled, sender.settled());
        object.update_settled();
        object.ancestors.send_if_modified(|known| {
            let news = known != sender.ancestors();
            if news {
                sender.ancestors().clone_into(known);
            }
            news
        });
    }

    /// Stores what is acknowledged. When that fails it is stored later: until then the parent is asked again.
    async fn save(&self, sender: &Sender, saved: &mut Saved) {
        if fault_point!("link.saved-later") {
            saved.unsaved_since = None;
            return;
        }
        let (parent, link) = (self.parent.clone(), sender.outbound());
        let stored = self.object.run(move |node| node.save_outbound(&parent, &link)).await;
        saved.unsaved_since = None;
        match stored {
            Ok(()) => saved.acked = sender.acked().sequence,
            Err(error) => {
                reached!("link.not-saved");
                tracing::warn!(object = %self.object.id(), %error, "the acknowledged position could not be stored");
            }
        }
    }

    async fn sleep_until(&self, until: Option<Duration>) {
        match until {
            Some(until) => self.object.env.sleep(until.saturating_sub(self.object.env.now())).await,
            None => std::future::pending().await,
        }
    }
}

async fn changed(watched: &mut Option<watch::Receiver<Sequence>>) {
    let changed = match watched {
        Some(watched) => watched.changed().await.is_ok(),
        None => false,
    };
    if !changed {
        std::future::pending().await
    }
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
