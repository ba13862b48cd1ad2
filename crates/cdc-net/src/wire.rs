//! What crosses between processes, as bytes: `docs/formats/wire.md`. Encodes and decodes, and does no I/O.
//!
//! Whatever arrives gives a value or a [`WireError`]; memory is bounded by the length of what arrived, and what is
//! inside a packed document by the limit the caller gives.

mod answer;
pub use answer::{Failure, decode_answer, decode_failure, encode_answer, encode_failure};
mod batch;
mod bounded;
mod error;
pub use error::WireError;
mod grant;
mod hello;
mod pack;
pub use pack::{pack, unpack, unpacked_size};
mod random;

use cdc_model::ObjectId;
use serde::Deserialize;

use crate::Request;

/// The version of the format; every addition makes another.
pub const VERSION: u32 = 1;

/// The media type of every document.
pub const CONTENT_TYPE: &str = "application/vnd.cdc+json";

/// Most records in a batch, as in [`LinkOptions`](cdc_relay::LinkOptions).
pub const RECORDS_MAX: usize = 10_000;

/// Most bytes of a request's text. A batch holds 64 MiB of bodies, or one record of any size.
pub const TEXT_BYTES_MAX: usize = 256 << 20;

/// Most bytes of an answer or failure.
pub const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Texts from this size on are packed.
pub const PACK_BYTES_MIN: usize = 1 << 10;

/// The shape of a request; each has its own path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// [`Request::Hello`].
    Hello,
    /// [`Request::Batch`].
    Batch,
    /// [`Request::Grant`].
    Grant,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Hello, Self::Batch, Self::Grant];

    /// Of a request.
    #[must_use]
    pub const fn of(request: &Request) -> Self {
        match request {
            Request::Hello(_) => Self::Hello,
            Request::Batch(_) => Self::Batch,
            Request::Grant(_) => Self::Grant,
        }
    }

    /// Where requests of this kind are posted to.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::Hello => "/v1/hello",
            Self::Batch => "/v1/batch",
            Self::Grant => "/v1/grant",
        }
    }

    /// The kind that is posted to this path.
    #[must_use]
    pub fn at(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.path() == path)
    }
}

/// The text of a request to `to`.
///
/// # Errors
///
/// [`WireError::TooMuch`] when it is beyond a limit, [`WireError::Body`] or [`WireError::Contradiction`] when it holds
/// what could not be read back the same.
pub fn encode_request(to: &ObjectId, request: &Request) -> Result<Vec<u8>, WireError> {
    let text = match request {
        Request::Hello(hello) => hello::encode(to, hello),
        Request::Batch(batch) => batch::encode(to, batch)?,
        Request::Grant(grant) => grant::encode(to, grant),
    };
    match text.len() <= TEXT_BYTES_MAX {
        true => Ok(text),
        false => Err(WireError::TooMuch { what: "bytes of text", max: TEXT_BYTES_MAX }),
    }
}

/// A request, and the object it is for.
///
/// # Errors
///
/// Whatever is wrong with it. What a batch says about itself is checked by whoever admits it.
pub fn decode_request(kind: Kind, text: &[u8]) -> Result<(ObjectId, Request), WireError> {
    match kind {
        Kind::Hello => hello::decode(text).map(|(to, hello)| (to, Request::Hello(hello))),
        Kind::Batch => batch::decode(text).map(|(to, batch)| (to, Request::Batch(batch))),
        Kind::Grant => grant::decode(text).map(|(to, grant)| (to, Request::Grant(grant))),
    }
}

/// Decodes a document of this version. One of another version is told from one that is broken.
fn decode<'a, T: Deserialize<'a>>(
    what: &'static str,
    text: &'a [u8],
    version: fn(&T) -> u32,
) -> Result<T, WireError> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    match serde_json::from_slice::<T>(text) {
        Ok(document) if version(&document) == VERSION => Ok(document),
        Ok(document) => Err(WireError::Version { found: version(&document) }),
        Err(source) => Err(match serde_json::from_slice::<Versioned>(text) {
            Ok(Versioned { version }) if version != VERSION => WireError::Version { found: version },
            _ => WireError::Json { what, source },
        }),
    }
}

/// The JSON of a document, which has string keys only and therefore always serialises.
fn encode(document: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(document).expect("members with string keys serialise")
}
