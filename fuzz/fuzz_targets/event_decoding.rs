//! Everything with a text form, decoded from hostile bytes.
#![no_main]

use cdc_model::{
    Answer, ChangeBody, ChangeEvent, Checkpoint, Cursor, Digest, Epoch, EventId, Filter, Mark, ObjectId,
    Refusal, Sequence, Timestamp,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    fuzz::json::<ChangeEvent>(text);
    fuzz::json::<Cursor>(text);
    fuzz::json::<Checkpoint>(text);
    fuzz::json::<Filter>(text);
    fuzz::json::<Mark>(text);
    fuzz::json::<Answer>(text);
    fuzz::json::<Refusal>(text);
    fuzz::words::<ObjectId>(text);
    fuzz::words::<Epoch>(text);
    fuzz::words::<EventId>(text);
    fuzz::words::<Digest>(text);
    fuzz::words::<Sequence>(text);
    fuzz::words::<Timestamp>(text);
    fuzz::words::<Cursor>(text);
    fuzz::value(text);
    fuzz::body(text);
    // Bytes that are nearly a body rarely are a canonical one; made canonical, they reach further.
    if let Ok(change) = serde_json::from_str::<ChangeBody<'_>>(text) {
        fuzz::body(change.to_body().as_str());
    }
});
