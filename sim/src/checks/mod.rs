//! What holds the files and the archive against what the world knows.

mod end;
pub(crate) use end::check_end;
mod look;
pub(crate) use look::Looks;
