//! Capture: triggers that copy every changed row into `_cdc_capture`, in the user's own transaction.

mod assemble;
pub(crate) use assemble::{Assembler, FIRST_VALUE, Found, emitted, values};
mod index_terms;
mod install;
pub(crate) use install::{
    CapturedTable, KnownTables, Plan, barrier, by_id, count_rows, current, is_prepared, know, known, prepare,
    remove_all, write_barrier, write_row,
};
pub use install::{Installed, Tables};
mod places;
pub(crate) use places::{MarkState, first_row_after, has_rows, has_rows_after, mark_state, oldest_row};
mod rows;
pub(crate) use rows::{integer, nonce_of, time_of};
mod shape;
pub(crate) use shape::{in_main, quoted, tables as existing};
mod triggers;
