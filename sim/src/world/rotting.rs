//! Bits that rot, in copies of what objects have in their files at the end.

use std::path::Path;

use crate::checks::{Rot, check_rotten, check_sound};
use crate::disk::Disk;
use crate::failure::Broken;
use crate::machine::true_clock;
use crate::random::Random;
use crate::world::{Runner, World, lock};

/// Bits that rot in one file at most.
const BITS_MAX: u64 = 3;

/// Where the copies lie, below the folder of a process.
const FOLDER: &str = "rotten";

impl<R: Runner> World<'_, R> {
    /// Lets bits rot in copies of some owned objects' files.
    pub(super) fn check_rot(&mut self) -> Result<(), Broken> {
        let mut random = Random::stream(self.plan.seed, "rot");
        let owned: Vec<usize> = {
            let oracle = lock(&self.oracle);
            (0..self.paths.len()).filter(|at| !oracle.is_attached(*at)).collect()
        };
        let rotten = if owned.is_empty() { 0 } else { self.plan.options.rotten };
        for _ in 0..rotten {
            let object = *random.pick(&owned);
            self.rot(object, &mut random)?;
        }
        Ok(())
    }

    fn rot(&mut self, object: usize, random: &mut Random) -> Result<(), Broken> {
        let (host, id) = {
            let oracle = lock(&self.oracle);
            let place = oracle.place(object);
            (place.host, place.id.clone())
        };
        let source = self.paths.get(object).expect("an object of this world").clone();
        let process = self.process(host);
        let (disk, folder) = (process.disk.clone(), process.folder.join(FOLDER));
        std::fs::create_dir_all(&folder)?;
        let path = folder.join("object.db");
        let now = self.runner.now();
        let clock = true_clock(move || now);
        let as_found = disk.copy(&source);
        disk.put_back(&path, &as_found)?;
        let sound = check_sound(&path, &id, &clock)?;
        // The last connection has moved the WAL into the file.
        if random.chance(50) {
            disk.put_back(&path, &as_found)?;
        }
        let rot = flip(&disk, &path, random);
        for _ in &rot.bits {
            self.count("bits flipped");
        }
        let found = check_rotten(&path, &id, &clock, &rot, &sound)?;
        self.count(found);
        Ok(disk.remove(&path)?)
    }
}

/// Flips a few bits of a database and its WAL, each anywhere.
fn flip(disk: &Disk, path: &Path, random: &mut Random) -> Rot {
    let wal = path.with_extension("db-wal");
    let bits = |path: &Path| disk.bytes(path).map_or(0, |bytes| u64::try_from(bytes.len()).unwrap_or(0) * 8);
    let (in_file, in_wal) = (bits(path), bits(&wal));
    let mut rot = Rot::default();
    for _ in 0..random.between(1, BITS_MAX) {
        let bit = random.between(0, (in_file + in_wal).max(1) - 1);
        let is_in_wal = bit >= in_file;
        let (name, path, bit) = if is_in_wal { ("WAL", &*wal, bit - in_file) } else { ("file", path, bit) };
        if disk.flip(path, bit) {
            rot.bits.push((name, bit));
            rot.is_in_wal |= is_in_wal;
        }
    }
    rot
}
