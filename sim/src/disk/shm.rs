use std::ffi::c_void;

use rusqlite::ffi;

use super::code::{Code, Result};

/// Slots that can be locked, `SQLITE_SHM_NLOCK` as a length.
const SLOTS: usize = 8;

/// What one connection holds of the shared memory of a database.
#[derive(Debug, Default)]
pub(super) struct ShmHold {
    attached: bool,
    shared: u8,
    exclusive: u8,
}

/// The wal-index of one database, shared by all connections of the process; a real system keeps it in the `-shm`
/// file. It is gone with its last connection and so never outlives a crash.
#[derive(Debug, Default)]
pub(super) struct Shm {
    /// SQLite writes to these through pointers that it keeps until it unmaps. They are never resized.
    regions: Vec<Vec<u64>>,
    connections: u32,
    /// For each slot how many share it, or -1 for one that holds it alone.
    slots: [i32; SLOTS],
}

/// The slots that one call locks or releases.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slots {
    pub(super) first: usize,
    pub(super) count: usize,
}

impl Slots {
    fn mask(self) -> u8 {
        (self.first..self.first + self.count).fold(0, |mask, slot| mask | 1 << slot)
    }
}

impl Shm {
    /// Bytes that the region would add, none if it is there.
    pub(super) fn missing(&self, region: usize, size: usize) -> usize {
        (region + 1).saturating_sub(self.regions.len()) * size
    }

    pub(super) fn bytes(&self) -> usize {
        self.regions.iter().map(|region| region.len() * size_of::<u64>()).sum()
    }

    /// Where the region lies, or null if it does not exist and is not to.
    pub(super) fn map(
        &mut self,
        hold: &mut ShmHold,
        (region, size): (usize, usize),
        extend: bool,
    ) -> *mut c_void {
        if !hold.attached {
            hold.attached = true;
            self.connections += 1;
        }
        while extend && self.regions.len() <= region {
            self.regions.push(vec![0; size / size_of::<u64>()]);
        }
        self.regions.get_mut(region).map_or(std::ptr::null_mut(), |words| words.as_mut_ptr().cast())
    }

    /// Lets a connection go, with all that it still has locked.
    pub(super) fn unmap(&mut self, hold: &mut ShmHold) {
        if !hold.attached {
            return;
        }
        for slot in 0..SLOTS {
            self.unlock(hold, Slots { first: slot, count: 1 });
        }
        hold.attached = false;
        self.connections -= 1;
        if self.connections == 0 {
            *self = Self::default();
        }
    }

    /// `unixShmLock` with `SQLITE_SHM_SHARED`.
    pub(super) fn lock_shared(&mut self, hold: &mut ShmHold, slots: Slots) -> Result<()> {
        let mask = slots.mask();
        if hold.shared & mask == mask {
            return Ok(());
        }
        if self.range(slots).iter().any(|&held| held < 0) {
            return Err(Code(ffi::SQLITE_BUSY));
        }
        self.range(slots).iter_mut().for_each(|held| *held += 1);
        hold.shared |= mask;
        Ok(())
    }

    /// `unixShmLock` with `SQLITE_SHM_EXCLUSIVE`.
    pub(super) fn lock_exclusive(&mut self, hold: &mut ShmHold, slots: Slots) -> Result<()> {
        if self.range(slots).iter().any(|&held| held != 0) {
            return Err(Code(ffi::SQLITE_BUSY));
        }
        self.range(slots).fill(-1);
        hold.exclusive |= slots.mask();
        Ok(())
    }

    /// Releases what the connection holds of these slots, shared or alone.
    pub(super) fn unlock(&mut self, hold: &mut ShmHold, slots: Slots) {
        for slot in slots.first..slots.first + slots.count {
            let one = Slots { first: slot, count: 1 };
            if hold.exclusive & one.mask() != 0 {
                self.range(one).fill(0);
            } else if hold.shared & one.mask() != 0 {
                self.range(one).iter_mut().for_each(|held| *held -= 1);
            }
        }
        hold.shared &= !slots.mask();
        hold.exclusive &= !slots.mask();
    }

    fn range(&mut self, slots: Slots) -> &mut [i32] {
        self.slots.get_mut(slots.first..slots.first + slots.count).expect("SQLite locks slots that exist")
    }
}

#[cfg(test)]
mod tests {
    use super::{Shm, ShmHold, Slots};

    #[test]
    fn a_slot_is_shared_by_many_or_held_by_one() {
        let slot = Slots { first: 3, count: 1 };
        let mut shm = Shm::default();
        let (mut one, mut two) = (ShmHold::default(), ShmHold::default());
        shm.lock_shared(&mut one, slot).expect("free");
        shm.lock_shared(&mut two, slot).expect("shared");
        shm.unlock(&mut one, slot);
        assert!(shm.lock_exclusive(&mut one, Slots { first: 2, count: 3 }).is_err(), "the other reads");
        shm.unlock(&mut two, slot);
        shm.lock_exclusive(&mut one, Slots { first: 2, count: 3 }).expect("free again");
        assert!(shm.lock_shared(&mut two, slot).is_err(), "held alone");
    }

    #[test]
    fn the_memory_goes_with_its_last_connection() {
        let mut shm = Shm::default();
        let (mut one, mut two) = (ShmHold::default(), ShmHold::default());
        assert!(shm.map(&mut one, (0, 32_768), false).is_null());
        let place = shm.map(&mut one, (0, 32_768), true);
        assert_eq!(shm.map(&mut two, (0, 32_768), false), place);
        shm.unmap(&mut one);
        assert_eq!(shm.bytes(), 32_768);
        shm.unmap(&mut two);
        assert_eq!(shm.bytes(), 0);
    }
}
