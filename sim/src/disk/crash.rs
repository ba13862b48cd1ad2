use std::path::PathBuf;

use crate::random::Random;

/// How an object's machine goes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashMode {
    /// The process dies. What it wrote is still there; what it had not synced is not durable yet, and a later loss
    /// of power may take it.
    Kill,
    /// Power is lost, and each unsynced operation shares a fate drawn by these weights.
    Power(Fates),
}

/// Weights by which the fate of an unsynced operation is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fates {
    /// It never happened.
    pub lost: u32,
    /// It is there whole.
    pub kept: u32,
    /// Each of its sectors of 512 bytes is there or not. What has no sectors is there or not.
    pub torn: u32,
}

impl CrashMode {
    /// Power is lost and every fate is as likely.
    pub const POWER: Self = Self::Power(Fates { lost: 1, kept: 1, torn: 1 });

    /// A quarter are deaths of the process; among losses of power some take nearly all, some nearly nothing.
    pub fn draw(random: &mut Random) -> Self {
        let modes = [
            Self::Kill,
            Self::Kill,
            Self::POWER,
            Self::POWER,
            Self::Power(Fates { lost: 1, kept: 0, torn: 0 }),
            Self::Power(Fates { lost: 20, kept: 1, torn: 1 }),
            Self::Power(Fates { lost: 1, kept: 20, torn: 1 }),
            Self::Power(Fates { lost: 1, kept: 1, torn: 20 }),
        ];
        *random.pick(&modes)
    }
}

/// What a crash did to what was not synced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CrashReport {
    /// Operations on bytes and on folders that never happened.
    pub lost: u64,
    /// Operations that are there whole.
    pub kept: u64,
    /// Writes of which only some sectors may be there.
    pub torn: u64,
    /// Bits that flipped, each with its file.
    pub flipped: Vec<(PathBuf, u64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Lost,
    Kept,
    Torn,
}

impl CrashReport {
    pub(super) const fn count(&mut self, fate: Fate) {
        match fate {
            Fate::Lost => self.lost += 1,
            Fate::Kept => self.kept += 1,
            Fate::Torn => self.torn += 1,
        }
    }
}

/// Draws fates.
#[derive(Debug)]
pub(super) struct Dice<'a> {
    pub(super) random: &'a mut Random,
    pub(super) fates: Fates,
}

impl Dice<'_> {
    pub(super) fn fate(&mut self) -> Fate {
        let Fates { lost, kept, torn } = self.fates;
        let drawn = self.random.between(1, u64::from(lost) + u64::from(kept) + u64::from(torn));
        if drawn <= u64::from(lost) {
            Fate::Lost
        } else if drawn <= u64::from(lost) + u64::from(kept) {
            Fate::Kept
        } else {
            Fate::Torn
        }
    }

    /// The fate of what cannot be torn.
    pub(super) fn whole(&mut self) -> Fate {
        match self.fate() {
            Fate::Torn if self.coin() => Fate::Kept,
            Fate::Torn => Fate::Lost,
            fate @ (Fate::Lost | Fate::Kept) => fate,
        }
    }

    pub(super) const fn coin(&mut self) -> bool {
        self.random.next().is_multiple_of(2)
    }
}
