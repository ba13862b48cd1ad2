use std::io::Read as _;

use super::{PACK_BYTES_MIN, WireError};

/// Fast, because the other end is near; it takes most of what a stronger level would.
const LEVEL: i32 = 1;

/// The largest window a packed text may ask memory for: 8 MiB, as RFC 9659 has it.
const WINDOW_LOG_MAX: u32 = 23;

/// Room made for a text before any of it has come out; what it says about its size may be a lie.
const ROOM_BYTES_MAX: usize = 1 << 20;

/// The text as zstd; `None` when that is not worth it.
#[must_use]
pub fn pack(text: &[u8]) -> Option<Vec<u8>> {
    if text.len() < PACK_BYTES_MIN {
        return None;
    }
    zstd::bulk::compress(text, LEVEL).ok().filter(|packed| packed.len() < text.len())
}

/// How many bytes a packed text says it has inside; `None` when it does not say.
#[must_use]
pub fn unpacked_size(packed: &[u8]) -> Option<usize> {
    let declared = zstd::zstd_safe::get_frame_content_size(packed).ok().flatten()?;
    usize::try_from(declared).ok()
}

/// The text in `packed`. Never takes more memory than `bytes_max` and a window.
///
/// # Errors
///
/// [`WireError::TooMuch`] when there is more inside, [`WireError::Packed`] when it is not zstd or ends too early.
pub fn unpack(packed: &[u8], bytes_max: usize) -> Result<Vec<u8>, WireError> {
    let failed = |source| WireError::Packed { source };
    let mut unpacker = zstd::stream::read::Decoder::with_buffer(packed).map_err(failed)?;
    unpacker.window_log_max(WINDOW_LOG_MAX).map_err(failed)?;
    let room = unpacked_size(packed).unwrap_or(0).min(bytes_max).min(ROOM_BYTES_MAX);
    let mut text = Vec::with_capacity(room);
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
    unpacker.take(limit).read_to_end(&mut text).map_err(failed)?;
    match text.len() <= bytes_max {
        true => Ok(text),
        false => Err(WireError::TooMuch { what: "bytes of text", max: bytes_max }),
    }
}
