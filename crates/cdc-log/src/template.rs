//! New files of logs are copies of a template, made once for the process: its tables are there, and nothing in it says
//! whose it is. Copying it takes a fraction of the time in which SQLite makes the tables.
//!
//! A copy becomes a log by the commit that gives it an object and an epoch. Before that its bytes are synced under
//! another name, then it takes its own, and the folder is synced. So a copy that a crash cut short has no name that
//! anybody opens, and a file with a log's name is a whole copy, which its header calls unused, or a log.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use cdc_model::mutant;
use rusqlite::Connection;

use crate::{Result, store};

/// The header of a copy that is no log yet has this in the place where an application may put its mark. No bit that flips
/// makes it of the zero that is there in a log.
const UNUSED: i32 = 0x6364_6374;

/// What the file is called, with a number, until all of it is there.
const DRAFT: &str = "draft";

/// Bytes of the header that say that the file has a write-ahead log.
const WRITE_AHEAD: std::ops::Range<usize> = 18..20;

static TEMPLATE: OnceLock<Vec<u8>> = OnceLock::new();

/// The template's bytes.
fn bytes() -> Result<&'static [u8]> {
    if let Some(bytes) = TEMPLATE.get() {
        return Ok(bytes);
    }
    let made = make()?;
    Ok(TEMPLATE.get_or_init(|| made))
}

fn make() -> Result<Vec<u8>> {
    let mut conn = Connection::open_in_memory()?;
    store::lay_out(&conn)?;
    conn.pragma_update(None, "application_id", UNUSED)?;
    if mutant!("template-has-an-epoch") {
        store::put_meta(&conn, "epoch", "1-0123456789abcdef")?;
    }
    let mut bytes = conn.serialize("main")?.to_vec();
    if let Some(version) = bytes.get_mut(WRITE_AHEAD) {
        version.fill(2);
    }
    Ok(bytes)
}

/// Puts a copy at `path`, where nothing is. When that fails nothing is there still, and SQLite makes the file itself or
/// says why it cannot.
pub(crate) fn place(path: &Path) -> Result<()> {
    // A write-ahead log without its file is not laid over a new one.
    let mut left = path.as_os_str().to_owned();
    left.push("-wal");
    if !path.exists() && !Path::new(&left).exists() {
        let bytes = bytes()?;
        let draft = draft_of(path);
        let placed = copy(bytes, &draft, path);
        // A draft that is left is in nobody's way.
        drop(fs::remove_file(&draft));
        drop(placed);
    }
    Ok(())
}

/// A name that no other copy takes, also not one of another process.
fn draft_of(path: &Path) -> PathBuf {
    static COPIES: AtomicU64 = AtomicU64::new(0);
    let number = COPIES.fetch_add(1, Ordering::Relaxed);
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{DRAFT}-{}-{number}", std::process::id()));
    draft.into()
}

fn copy(bytes: &[u8], draft: &Path, path: &Path) -> io::Result<()> {
    let mut file = File::create_new(draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    // Unlike renaming, this takes the place of nothing that another process has made meanwhile.
    fs::hard_link(draft, path)
}

/// Whether the file is a copy that is no log yet.
pub(crate) fn is_unused(conn: &Connection) -> Result<bool> {
    let mark: i32 = conn.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    Ok(mark == UNUSED)
}

/// Makes the name of an unused copy durable. What is committed to it afterwards is then not lost with its name.
pub(crate) fn make_name_durable(path: &Path) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| {
        let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR_DIR_FSYNC);
        rusqlite::Error::SqliteFailure(code, Some(format!("{}: {error}", folder.display()))).into()
    })
}

/// In the transaction that makes a log of a copy.
pub(crate) fn mark_used(conn: &Connection) -> Result<()> {
    Ok(conn.pragma_update(None, "application_id", 0)?)
}

#[cfg(test)]
mod tests {
    use cdc_model::{Clock, ObjectId};

    use super::*;
    use crate::{Error, Log};

    fn id(name: &str) -> ObjectId {
        format!("https://crm.headless.ly/{name}").parse().unwrap()
    }

    fn header(path: &Path) -> Connection {
        Connection::open(path).unwrap()
    }

    #[test]
    fn a_template_names_no_object_and_its_copies_have_an_epoch_each() {
        let folder = tempfile::tempdir().unwrap();
        let open = |name: &str| Log::open(folder.path().join(name), &id(name), &Clock::system()).unwrap();
        let (one, other) = (open("one"), open("other"));
        assert_ne!(one.epoch(), other.epoch());
        assert!(!is_unused(&header(one.path())).unwrap());
        let template = folder.path().join("template");
        fs::write(&template, bytes().unwrap()).unwrap();
        let rows: u32 = header(&template)
            .query_row(
                "SELECT (SELECT count(*) FROM _cdc_meta) + (SELECT count(*) FROM _cdc_log)",
                [],
                |row| row.get(0),
            )
            .unwrap();
        assert_eq!(rows, 0);
        let left: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.contains(DRAFT))
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }

    #[test]
    fn a_crash_while_a_copy_is_made_or_before_it_is_a_log_leaves_nothing_in_the_way() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = bytes().unwrap();
        for cut in [0, 1, 511, 4096, bytes.len() - 1, bytes.len()] {
            let path = folder.path().join(format!("cut-{cut}"));
            fs::write(draft_of(&path), &bytes[..cut]).unwrap();
            let log = Log::open(&path, &id("acme"), &Clock::system()).unwrap();
            log.verify().unwrap();
        }
        // The whole copy had its name, and the process ended before the commit that makes a log of it.
        let path = folder.path().join("unused");
        fs::write(&path, bytes).unwrap();
        assert!(is_unused(&header(&path)).unwrap());
        let log = Log::open(&path, &id("acme"), &Clock::system()).unwrap();
        let epoch = log.epoch();
        drop(log);
        assert_eq!(Log::open(&path, &id("acme"), &Clock::system()).unwrap().epoch(), epoch);
    }

    #[test]
    fn a_log_that_lost_its_identity_is_damaged_and_never_taken_for_a_fresh_copy() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        drop(Log::open(&path, &id("acme"), &Clock::system()).unwrap());
        header(&path).execute_batch("DELETE FROM _cdc_meta").unwrap();
        let refused = Log::open(&path, &id("acme"), &Clock::system()).unwrap_err();
        assert!(matches!(refused, Error::Damaged { .. }), "{refused}");
    }

    #[test]
    fn a_database_that_an_application_has_filled_already_keeps_what_is_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("object.db");
        header(&path)
            .execute_batch("PRAGMA application_id = 7; CREATE TABLE t(a); INSERT INTO t VALUES (1)")
            .unwrap();
        drop(Log::open(&path, &id("acme"), &Clock::system()).unwrap());
        let kept: (i32, i32) = header(&path)
            .query_row("SELECT a, (SELECT application_id FROM pragma_application_id) FROM t", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .unwrap();
        assert_eq!(kept, (1, 7));
    }
}
