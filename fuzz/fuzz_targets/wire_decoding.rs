//! What another process sends: requests, answers, failures and packed texts, from hostile bytes.
#![no_main]

use cdc_net::wire;
use libfuzzer_sys::fuzz_target;

/// What is inside a packed text may be this much longer than anything the fuzzer makes.
const TEXT_BYTES_MAX: usize = 1 << 20;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = wire::unpack(bytes, TEXT_BYTES_MAX) {
        assert!(text.len() <= TEXT_BYTES_MAX);
        fuzz::document(&text);
    }
    if let Some(packed) = wire::pack(bytes) {
        assert_eq!(wire::unpack(&packed, bytes.len()).expect("what was packed is unpacked"), bytes);
    }
    fuzz::document(bytes);
});
