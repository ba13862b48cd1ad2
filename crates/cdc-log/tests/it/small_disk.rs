//! Disks that run full.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

/// A small disk of its own, in memory.
pub(crate) struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None` where mounting is not permitted.
    #[allow(clippy::print_stderr, reason = "a test that is skipped says why")]
    pub(crate) fn mount(bytes: usize) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let size = format!("size={bytes}");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "cdc-full-disk"]).arg(folder.path());
        match mount.output() {
            Ok(output) if output.status.success() => Some(Self(folder)),
            refused => {
                eprintln!("skipped: a small disk cannot be mounted here: {refused:?}");
                None
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes all the room but about `left` bytes.
    pub(crate) fn fill(&self, left: usize) {
        let mut filler = fs::File::create(self.path().join("filler")).unwrap();
        while filler.write_all(&[7; 4096]).is_ok() {}
        let taken = usize::try_from(filler.metadata().unwrap().len()).unwrap();
        filler.set_len(u64::try_from(taken.saturating_sub(left)).unwrap()).unwrap();
    }

    pub(crate) fn make_room(&self) {
        fs::remove_file(self.path().join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(self.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}
