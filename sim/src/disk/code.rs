use std::ffi::c_int;

use rusqlite::ffi;

/// A result code of SQLite that says no.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Code(pub(super) c_int);

pub(super) type Result<T> = std::result::Result<T, Code>;

/// What SQLite wants to hear of a call.
pub(super) fn answer(result: Result<()>) -> c_int {
    match result {
        Ok(()) => ffi::SQLITE_OK,
        Err(Code(code)) => code,
    }
}
