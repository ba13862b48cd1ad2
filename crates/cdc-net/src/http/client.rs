use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use cdc_model::{Answer, ObjectId};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE};
use hyper::{Response, StatusCode};
use tokio::sync::oneshot;

use super::over_env::{Io, Spawner, Ticker};
use super::{HttpError, Reach};
use crate::wire::{self, Failure, Kind, WireError};
use crate::{Call, Env, Request, Transport, TransportError};

/// Texts larger than this are written and packed off the asynchronous workers.
const INLINE_BYTES_MAX: usize = 1 << 20;

/// The settings of an [`Http`] client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpOptions {
    /// How long a call may take, with connecting, before it counts as failed.
    pub call_timeout: Duration,
    /// While calls are under way, how often a quiet connection is asked whether it is alive.
    pub ping_interval: Duration,
    /// How long it may take to say so before it is given up, and its calls with it.
    pub ping_timeout: Duration,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            call_timeout: Duration::from_secs(30),
            ping_interval: Duration::from_secs(5),
            ping_timeout: Duration::from_secs(5),
        }
    }
}

/// The transport to objects of other processes. Clones share the table and the connections.
///
/// One connection for each endpoint, opened by the first call and again after it broke; calls share it and do not wait
/// for each other. A call that is dropped or late is taken back, and the connection stays.
#[derive(Clone)]
pub struct Http<E: Env>(Arc<Client<E>>);

struct Client<E: Env> {
    env: E,
    reach: Reach,
    options: HttpOptions,
    ticker: Ticker<E>,
    table: Mutex<Table>,
    opened: AtomicU64,
}

#[derive(Default)]
struct Table {
    objects: BTreeMap<ObjectId, SocketAddr>,
    endpoints: BTreeMap<SocketAddr, Arc<Endpoint>>,
}

type Requests = http2::SendRequest<Full<Bytes>>;

/// The connection to one address. The lock is held while it is opened, so that calls at the same time open one.
struct Endpoint {
    address: SocketAddr,
    requests: tokio::sync::Mutex<Option<Requests>>,
}

/// A request as it crosses.
struct Message {
    path: &'static str,
    bytes: Bytes,
    is_packed: bool,
}

impl<E: Env> Http<E> {
    /// A client that knows no object yet.
    #[must_use]
    pub fn new(env: E, reach: Reach, options: HttpOptions) -> Self {
        let ticker = Ticker::new(env.clone());
        let (table, opened) = (Mutex::default(), AtomicU64::new(0));
        Self(Arc::new(Client { env, reach, options, ticker, table, opened }))
    }

    /// From now on, calls to `object` go to `address`.
    ///
    /// # Errors
    ///
    /// [`HttpError::NotLoopback`] when the client must not go there.
    pub fn set_endpoint(&self, object: ObjectId, address: SocketAddr) -> Result<(), HttpError> {
        self.0.reach.check(address)?;
        let mut table = self.0.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.objects.insert(object, address);
        let fresh = || Arc::new(Endpoint { address, requests: tokio::sync::Mutex::new(None) });
        table.endpoints.entry(address).or_insert_with(fresh);
        table.drop_unused();
        Ok(())
    }

    /// Forgets where an object is. The connection ends with the last object behind it.
    pub fn remove_endpoint(&self, object: &ObjectId) {
        let mut table = self.0.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.objects.remove(object);
        table.drop_unused();
    }

    /// Connections opened since the client was made.
    #[must_use]
    pub fn connections_opened(&self) -> u64 {
        self.0.opened.load(Ordering::Relaxed)
    }
}

impl Table {
    fn endpoint(&self, object: &ObjectId) -> Option<Arc<Endpoint>> {
        self.objects.get(object).and_then(|address| self.endpoints.get(address)).cloned()
    }

    fn drop_unused(&mut self) {
        let Self { objects, endpoints } = self;
        endpoints.retain(|address, _| objects.values().any(|used| used == address));
    }
}

impl<E: Env> fmt::Debug for Http<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = self.0.table.lock().unwrap_or_else(PoisonError::into_inner);
        f.debug_struct("Http").field("objects", &table.objects).finish_non_exhaustive()
    }
}

impl<E: Env> Transport for Http<E> {
    fn call(&self, to: &ObjectId, request: Request) -> Call {
        let (client, to) = (Arc::clone(&self.0), to.clone());
        Box::pin(async move {
            let call = client.call(&to, request);
            tokio::select! {
                biased;
                answered = call => answered,
                () = client.env.sleep(client.options.call_timeout) => {
                    Err(TransportError::NoAnswer { object: to.clone() })
                }
            }
        })
    }
}

impl<E: Env> Client<E> {
    async fn call(&self, to: &ObjectId, request: Request) -> Result<Answer, TransportError> {
        let endpoint = self.table.lock().unwrap_or_else(PoisonError::into_inner).endpoint(to);
        let endpoint = endpoint.ok_or_else(|| unreachable(to, "its address is not known".to_owned()))?;
        let refused = |error| TransportError::Refused { object: to.clone(), reason: chain(&error) };
        let message = self.message(to, request).await.map_err(refused)?;
        let response = self.exchange(to, &endpoint, message).await?;
        read(to, endpoint.address, response).await
    }

    /// Sends a message on the endpoint's connection, and once more on a new one if that was closed before it was sent.
    async fn exchange(
        &self,
        to: &ObjectId,
        endpoint: &Endpoint,
        message: Message,
    ) -> Result<Response<Incoming>, TransportError> {
        let no_answer = || TransportError::NoAnswer { object: to.clone() };
        let mut request = message.into_request(endpoint.address).ok_or_else(no_answer)?;
        for _ in 0..2 {
            let mut requests = self.connected(to, endpoint).await?;
            match requests.try_send_request(request).await {
                Ok(response) => return Ok(response),
                Err(mut failed) => match failed.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(no_answer()),
                },
            }
        }
        Err(no_answer())
    }

    /// The endpoint's connection, opened if there is none that works.
    async fn connected(&self, to: &ObjectId, endpoint: &Endpoint) -> Result<Requests, TransportError> {
        let mut held = endpoint.requests.lock().await;
        if let Some(requests) = held.as_ref().filter(|requests| !requests.is_closed()) {
            return Ok(requests.clone());
        }
        *held = None;
        let address = endpoint.address;
        let conn = self.env.connect(address).await;
        let conn = conn.map_err(|error| unreachable(to, format!("{address}: {error}")))?;
        let (requests, connection) = http2::Builder::new(Spawner::new(&self.env))
            .timer(self.ticker.clone())
            .keep_alive_interval(self.options.ping_interval)
            .keep_alive_timeout(self.options.ping_timeout)
            .handshake(Io(conn))
            .await
            .map_err(|error| unreachable(to, format!("{address}: {}", chain(&error))))?;
        self.opened.fetch_add(1, Ordering::Relaxed);
        // How it ends is told to the calls on it.
        self.env.spawn(async move { drop(connection.await) });
        *held = Some(requests.clone());
        Ok(requests)
    }

    async fn message(&self, to: &ObjectId, request: Request) -> Result<Message, WireError> {
        let is_large = match &request {
            Request::Hello(_) | Request::Grant(_) => false,
            Request::Batch(batch) => {
                let bytes = batch.records.iter().map(|record| record.body.as_str().len());
                bytes.sum::<usize>() > INLINE_BYTES_MAX
            }
        };
        if !is_large {
            return Message::of(to, &request);
        }
        let (done, message) = oneshot::channel();
        let to = to.clone();
        // Nobody waits any more when the call was dropped.
        self.env.blocking(move || drop(done.send(Message::of(&to, &request))));
        message.await.unwrap_or(Err(WireError::Contradiction { reason: "the runtime is ending" }))
    }
}

impl Message {
    fn of(to: &ObjectId, request: &Request) -> Result<Self, WireError> {
        let text = wire::encode_request(to, request)?;
        let packed = wire::pack(&text);
        let is_packed = packed.is_some();
        Ok(Self { path: Kind::of(request).path(), bytes: packed.unwrap_or(text).into(), is_packed })
    }

    fn into_request(self, address: SocketAddr) -> Option<hyper::Request<Full<Bytes>>> {
        let uri = format!("http://{address}{}", self.path);
        let mut request = hyper::Request::post(uri).header(CONTENT_TYPE, wire::CONTENT_TYPE);
        if self.is_packed {
            request = request.header(CONTENT_ENCODING, "zstd");
        }
        request.body(Full::new(self.bytes)).ok()
    }
}

fn unreachable(object: &ObjectId, reason: String) -> TransportError {
    TransportError::Unreachable { object: object.clone(), reason }
}

async fn read(
    to: &ObjectId,
    address: SocketAddr,
    response: Response<Incoming>,
) -> Result<Answer, TransportError> {
    let object = to.clone();
    let (parts, body) = response.into_parts();
    let text = match Limited::new(body, wire::ANSWER_BYTES_MAX).collect().await {
        Ok(collected) => collected.to_bytes(),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            return Err(TransportError::BadAnswer { object, reason: "it is too long".to_owned() });
        }
        Err(_) => return Err(TransportError::NoAnswer { object }),
    };
    if parts.status == StatusCode::OK {
        return wire::decode_answer(&text)
            .map_err(|error| TransportError::BadAnswer { object, reason: chain(&error) });
    }
    let Ok(failure) = wire::decode_failure(&text) else {
        return Err(TransportError::BadAnswer { object, reason: format!("status {}", parts.status) });
    };
    match failure {
        // The object never saw the request, so nothing but the refusal is said.
        Failure::Busy => Ok(Answer::busy()),
        Failure::UnknownObject { .. } => {
            Err(unreachable(to, format!("{address} does not serve it, or not yet")))
        }
        Failure::NoAnswer | Failure::TooSlow => Err(TransportError::NoAnswer { object }),
        Failure::TooLarge { reason } | Failure::BadRequest { reason } => {
            Err(TransportError::Refused { object, reason })
        }
    }
}

/// An error with its causes, in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
