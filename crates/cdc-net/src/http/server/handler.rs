use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use cdc_model::{Answer, ObjectId};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::ServeOptions;
use crate::http::client::chain;
use crate::wire::{self, Failure, Kind, WireError};
use crate::{Env, Transport, TransportError};

/// Texts larger than this are unpacked and read off the asynchronous workers.
const INLINE_BYTES_MAX: usize = 1 << 20;

/// Memory is shared out in pieces of this many bytes.
const PIECE_BYTES: usize = 1 << 10;

/// A request holds its text, and as much again once it is decoded.
const COPIES: usize = 2;

/// The longest reason that is told to a client, in bytes.
const REASON_BYTES_MAX: usize = 500;

/// Answers requests, whichever connection they come by.
#[derive(Debug)]
pub(super) struct Handler<E> {
    env: E,
    objects: Box<dyn Transport>,
    options: ServeOptions,
    requests: Semaphore,
    memory: Arc<Semaphore>,
}

/// A body as it arrived, and the memory it is counted for.
struct Arrived {
    bytes: Bytes,
    is_packed: bool,
    memory: Memory,
}

impl<E: Env> Handler<E> {
    pub(super) fn new(env: E, objects: Box<dyn Transport>, options: ServeOptions) -> Self {
        let requests = Semaphore::new(usize::try_from(options.requests_max).unwrap_or(1));
        let pieces = (options.memory_bytes_max / PIECE_BYTES).min(Semaphore::MAX_PERMITS);
        Self { env, objects, options, requests, memory: Arc::new(Semaphore::new(pieces)) }
    }

    pub(super) const fn options(&self) -> &ServeOptions {
        &self.options
    }

    pub(super) async fn handle(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (status, text) = match self.answer(request).await {
            Ok(answer) => (StatusCode::OK, wire::encode_answer(answer)),
            Err(failure) => (status(&failure), wire::encode_failure(failure)),
        };
        let mut response = Response::new(Full::new(text.into()));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(wire::CONTENT_TYPE));
        response
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Answer, Failure> {
        let (parts, body) = request.into_parts();
        let kind = Kind::at(parts.uri.path()).ok_or_else(|| bad("there is no such path"))?;
        if parts.method != Method::POST {
            return Err(bad("requests are posted"));
        }
        let is_packed = is_packed(&parts.headers)?;
        let Ok(_place) = self.requests.try_acquire() else { return Err(Failure::Busy) };
        let (bytes, memory) = tokio::select! {
            biased;
            read = self.read(body) => read?,
            () = self.env.sleep(self.options.read_timeout) => return Err(Failure::TooSlow),
        };
        let (to, request, _memory) = self.decode(kind, Arrived { bytes, is_packed, memory }).await?;
        tokio::select! {
            biased;
            answered = self.objects.call(&to, request) => answered.map_err(failure),
            () = self.env.sleep(self.options.answer_timeout) => Err(Failure::NoAnswer),
        }
    }

    /// Reads a body as it arrives; what is too long for the limits is not waited for.
    async fn read(&self, mut body: Incoming) -> Result<(Bytes, Memory), Failure> {
        let mut memory = Memory::new(&self.memory);
        let mut bytes = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.ok().ok_or_else(|| bad("the request was cut off"))?;
            let Ok(data) = frame.into_data() else { continue };
            if bytes.len() + data.len() > self.options.text_bytes_max {
                return Err(self.too_large());
            }
            memory.grow(bytes.len() + data.len())?;
            bytes.extend_from_slice(&data);
        }
        Ok((bytes.freeze(), memory))
    }

    async fn decode(
        &self,
        kind: Kind,
        arrived: Arrived,
    ) -> Result<(ObjectId, crate::Request, Memory), Failure> {
        let Arrived { bytes, is_packed, mut memory } = arrived;
        let max = self.options.text_bytes_max;
        let text_bytes = match is_packed {
            true => wire::unpacked_size(&bytes).unwrap_or(max),
            false => bytes.len(),
        };
        if text_bytes > max {
            return Err(self.too_large());
        }
        memory.grow(bytes.len() + COPIES * text_bytes)?;
        let decode = move || decode(kind, &bytes, is_packed, text_bytes);
        let decoded = if text_bytes <= INLINE_BYTES_MAX {
            decode()
        } else {
            let (done, decoded) = oneshot::channel();
            // Nobody waits any more when the connection has ended.
            self.env.blocking(move || drop(done.send(decode())));
            decoded.await.ok().ok_or(Failure::NoAnswer)?
        };
        match decoded {
            Ok((to, request)) => Ok((to, request, memory)),
            Err(error @ WireError::TooMuch { .. }) => Err(Failure::TooLarge { reason: reason(&error) }),
            Err(error) => Err(Failure::BadRequest { reason: reason(&error) }),
        }
    }

    fn too_large(&self) -> Failure {
        let max = self.options.text_bytes_max;
        Failure::TooLarge { reason: reason(&WireError::TooMuch { what: "bytes of text", max }) }
    }
}

fn decode(
    kind: Kind,
    bytes: &[u8],
    is_packed: bool,
    text_bytes_max: usize,
) -> Result<(ObjectId, crate::Request), WireError> {
    if is_packed {
        return wire::decode_request(kind, &wire::unpack(bytes, text_bytes_max)?);
    }
    wire::decode_request(kind, bytes)
}

/// The share of the server's memory that a request holds.
struct Memory {
    all: Arc<Semaphore>,
    held: Option<OwnedSemaphorePermit>,
}

impl Memory {
    fn new(all: &Arc<Semaphore>) -> Self {
        Self { all: Arc::clone(all), held: None }
    }

    /// Takes what is missing to `bytes`. Never waits: two that wait for each other would wait for ever.
    fn grow(&mut self, bytes: usize) -> Result<(), Failure> {
        let held = self.held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let missing = bytes.div_ceil(PIECE_BYTES).saturating_sub(held);
        let missing = u32::try_from(missing).ok().ok_or(Failure::Busy)?;
        let more = Arc::clone(&self.all).try_acquire_many_owned(missing).ok().ok_or(Failure::Busy)?;
        match &mut self.held {
            Some(held) => held.merge(more),
            None => self.held = Some(more),
        }
        Ok(())
    }
}

/// Whether the body is packed, once its headers say that it is one of ours.
fn is_packed(headers: &HeaderMap) -> Result<bool, Failure> {
    let is = |name: HeaderName, value: &str| headers.get(name).is_some_and(|found| found == value);
    if !is(CONTENT_TYPE, wire::CONTENT_TYPE) {
        return Err(bad("its content type is not application/vnd.cdc+json"));
    }
    match headers.contains_key(CONTENT_ENCODING) {
        true if is(CONTENT_ENCODING, "zstd") => Ok(true),
        true => Err(bad("its content encoding is not zstd")),
        false => Ok(false),
    }
}

fn bad(reason: &str) -> Failure {
    Failure::BadRequest { reason: reason.to_owned() }
}

fn reason(error: &WireError) -> String {
    let mut reason = chain(error);
    reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
    reason
}

fn failure(error: TransportError) -> Failure {
    match error {
        TransportError::Unreachable { object, .. } => Failure::UnknownObject { object },
        TransportError::NoAnswer { .. } | TransportError::BadAnswer { .. } => Failure::NoAnswer,
        TransportError::Refused { reason, .. } => Failure::BadRequest { reason },
    }
}

const fn status(failure: &Failure) -> StatusCode {
    match failure {
        Failure::UnknownObject { .. } => StatusCode::NOT_FOUND,
        Failure::Busy => StatusCode::SERVICE_UNAVAILABLE,
        Failure::NoAnswer => StatusCode::GATEWAY_TIMEOUT,
        Failure::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        Failure::BadRequest { .. } => StatusCode::BAD_REQUEST,
        Failure::TooSlow => StatusCode::REQUEST_TIMEOUT,
    }
}
