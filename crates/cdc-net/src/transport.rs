use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use cdc_model::{Answer, Batch, ObjectId};
use cdc_relay::{GrantRequest, Hello};
use tokio::sync::{mpsc, oneshot};

/// Requests an object's inbox holds at most; a sender waits behind that.
const INBOX_REQUESTS_MAX: usize = 4096;

/// What a child asks its parent.
#[derive(Clone, Debug)]
pub enum Request {
    /// Begin or resume a link.
    Hello(Hello),
    /// Take this batch.
    Batch(Batch),
    /// Grant a new epoch. The mark of the answer says which, and where it begins.
    Grant(GrantRequest),
}

impl Request {
    /// Who asks.
    #[must_use]
    pub const fn sender(&self) -> &ObjectId {
        match self {
            Self::Hello(hello) => &hello.sender,
            Self::Batch(batch) => &batch.sender,
            Self::Grant(grant) => &grant.sender,
        }
    }
}

/// Why no answer came. Whether the request arrived is unknown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// Nobody serves this object where the transport can reach.
    #[error("{object} is not reachable: {reason}")]
    Unreachable {
        /// The object asked for.
        object: ObjectId,
        /// Who was asked for it, and what came of that.
        reason: String,
    },
    /// The receiver went away before it answered, or could not store the request.
    #[error("{object} gave no answer")]
    NoAnswer {
        /// The object asked for.
        object: ObjectId,
    },
    /// What came back is not an answer.
    #[error("{object} gave an answer that is not one: {reason}")]
    BadAnswer {
        /// The object asked for.
        object: ObjectId,
        /// What is wrong with it.
        reason: String,
    },
    /// The request was not taken as one: it is beyond a limit, or the other side speaks another version.
    #[error("the request to {object} was not taken: {reason}")]
    Refused {
        /// The object asked for.
        object: ObjectId,
        /// What is wrong with it, as the other side says.
        reason: String,
    },
}

/// A request under way.
pub type Call = Pin<Box<dyn Future<Output = Result<Answer, TransportError>> + Send>>;

/// Carries a child's requests to its parent and the answers back. It may lose, repeat and reorder both.
pub trait Transport: fmt::Debug + Send + Sync + 'static {
    /// Asks `to` and waits for its answer. A call that is dropped may have arrived.
    fn call(&self, to: &ObjectId, request: Request) -> Call;
}

/// A request with the way back for its answer. Dropping it tells the sender that no answer comes.
#[derive(Debug)]
pub struct Delivery {
    /// What is asked.
    pub request: Request,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Answer>,
}

/// The transport inside one process: every object serves an inbox, found by its id.
#[derive(Clone, Debug, Default)]
pub struct Loopback {
    inboxes: Arc<Mutex<BTreeMap<ObjectId, mpsc::Sender<Delivery>>>>,
}

impl Loopback {
    /// No object is served yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Serves an object: its requests come out of the receiver given. An earlier inbox of the same object ends.
    #[must_use]
    pub fn serve(&self, object: ObjectId) -> mpsc::Receiver<Delivery> {
        let (sender, receiver) = mpsc::channel(INBOX_REQUESTS_MAX);
        self.inboxes.lock().unwrap_or_else(PoisonError::into_inner).insert(object, sender);
        receiver
    }

    /// Ends serving an object.
    pub fn withdraw(&self, object: &ObjectId) {
        self.inboxes.lock().unwrap_or_else(PoisonError::into_inner).remove(object);
    }

    fn inbox(&self, object: &ObjectId) -> Option<mpsc::Sender<Delivery>> {
        self.inboxes.lock().unwrap_or_else(PoisonError::into_inner).get(object).cloned()
    }
}

impl Transport for Loopback {
    fn call(&self, to: &ObjectId, request: Request) -> Call {
        let (inbox, to) = (self.inbox(to), to.clone());
        Box::pin(async move {
            let inbox = inbox.ok_or_else(|| TransportError::Unreachable {
                object: to.clone(),
                reason: "it is not served here".to_owned(),
            })?;
            let (answer, answered) = oneshot::channel();
            let no_answer = || TransportError::NoAnswer { object: to.clone() };
            inbox.send(Delivery { request, answer }).await.ok().ok_or_else(no_answer)?;
            answered.await.ok().ok_or_else(no_answer)
        })
    }
}

#[cfg(test)]
mod tests {
    use cdc_model::{Epoch, Position, Sequence};

    use super::*;

    fn hello() -> Request {
        Request::Hello(Hello {
            sender: "https://a.b/c".parse().unwrap(),
            generation: 1,
            session: 1,
            epoch: Epoch { number: 1, nonce: 1 },
            acked: Sequence::ZERO,
            tail: Position::START,
            floor: Sequence::new(1),
        })
    }

    #[tokio::test]
    async fn a_request_reaches_the_object_it_names_and_its_answer_comes_back() {
        let (parent, other): (ObjectId, ObjectId) =
            ("https://a.b".parse().unwrap(), "https://x.y".parse().unwrap());
        let net = Loopback::new();
        let mut inbox = net.serve(parent.clone());
        let answer = Answer {
            mark: None,
            settled: Sequence::ZERO,
            generation: 1,
            ancestors: vec![other.clone()],
            refusal: None,
        };
        let (called, ()) = tokio::join!(net.call(&parent, hello()), async {
            let delivery = inbox.recv().await.unwrap();
            assert_eq!(delivery.request.sender().as_str(), "https://a.b/c");
            delivery.answer.send(answer.clone()).unwrap();
        });
        assert_eq!(called, Ok(answer));
        let absent = net.call(&other, hello()).await.unwrap_err();
        assert_eq!(absent.to_string(), "https://x.y is not reachable: it is not served here");
    }

    #[tokio::test]
    async fn a_receiver_that_goes_away_is_no_answer() {
        let parent: ObjectId = "https://a.b".parse().unwrap();
        let net = Loopback::new();
        let mut inbox = net.serve(parent.clone());
        let (called, ()) = tokio::join!(net.call(&parent, hello()), async { drop(inbox.recv().await) });
        assert_eq!(called, Err(TransportError::NoAnswer { object: parent.clone() }));
        net.withdraw(&parent);
        assert!(matches!(net.call(&parent, hello()).await, Err(TransportError::Unreachable { .. })));
    }
}
