//! What holds the files and the archive against what the world knows.

mod end;
pub(crate) use end::{check_end, check_fold, not_consumed, parted_from_parent, what_is_missing};
mod look;
pub(crate) use look::Looks;
mod rot;
pub(crate) use rot::{Rot, check_rotten, check_sound};
mod settled;
pub(crate) use settled::{Above, Claim, check_settled};
mod tables;
pub(crate) use tables::Tables;
mod transactions;
