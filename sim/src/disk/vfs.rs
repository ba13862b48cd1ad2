//! The VFS as SQLite calls it.
#![expect(unsafe_code, reason = "SQLite calls a VFS through C functions and raw pointers")]

use std::ffi::{CStr, c_char, c_int};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use rusqlite::ffi;

use super::bytes::Bytes;
use super::code::{Code, Result, answer};
use super::file::{File, Open, Opening, Role, delete, exists};
use super::io;
use super::process;

const NAME: &CStr = c"simdisk";
const PATH_BYTES_MAX: c_int = 1024;

static REGISTERED: Once = Once::new();
static ALONE: Mutex<()> = Mutex::new(());

/// The right to draw from SQLite's one source of randomness, which belongs to the process: another [`install`] waits
/// until this is dropped. Connections are to be closed before it is.
#[derive(Debug)]
#[must_use = "without it another world of this process draws from the same randomness"]
pub struct Installed {
    _alone: MutexGuard<'static, ()>,
}

/// Makes the simulated disks SQLite's default VFS, once for the process and for good, and seeds what SQLite draws:
/// salts, nonces, names of temporary files, `random()`. To be called before the first connection is opened, and again
/// for each world of its own; waits until the world before it has ended.
///
/// # Panics
///
/// SQLite cannot be initialized or refuses the VFS.
pub fn install(seed: u64) -> Installed {
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    process::seed_randomness(seed);
    REGISTERED.call_once(register);
    // SAFETY: no bytes are asked for, so the buffer may be null; SQLite then forgets the state of its generator,
    // which takes a new one from `xRandomness` of the default VFS.
    unsafe { ffi::sqlite3_randomness(0, std::ptr::null_mut()) };
    Installed { _alone: alone }
}

fn register() {
    let vfs = Box::leak(Box::new(ffi::sqlite3_vfs {
        iVersion: 2,
        szOsFile: c_int::try_from(io::FILE_BYTES).expect("a file is small"),
        mxPathname: PATH_BYTES_MAX,
        pNext: std::ptr::null_mut(),
        zName: NAME.as_ptr(),
        pAppData: std::ptr::null_mut(),
        xOpen: Some(open),
        xDelete: Some(delete_file),
        xAccess: Some(access),
        xFullPathname: Some(full_pathname),
        // Extensions are not loaded in a simulation.
        xDlOpen: None,
        xDlError: None,
        xDlSym: None,
        xDlClose: None,
        xRandomness: Some(randomness),
        xSleep: Some(sleep),
        xCurrentTime: Some(current_time),
        xGetLastError: Some(last_error),
        xCurrentTimeInt64: Some(current_time_ms),
        xSetSystemCall: None,
        xGetSystemCall: None,
        xNextSystemCall: None,
    }));
    // SAFETY: the VFS is leaked and so lives as long as the process, as do its name and its functions.
    let registered = unsafe { ffi::sqlite3_vfs_register(vfs, 1) };
    assert_eq!(registered, ffi::SQLITE_OK, "SQLite takes the VFS");
}

unsafe extern "C" fn open(
    _vfs: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    flags_out: *mut c_int,
) -> c_int {
    // SAFETY: SQLite passes null for a temporary file, and else a string that ends in a null and outlives the call.
    let name = (!name.is_null()).then(|| unsafe { CStr::from_ptr(name) });
    let opened = open_named(name, flags);
    let code = answer(opened.as_ref().map(|_open| ()).map_err(|&code| code));
    // SAFETY: SQLite passes `szOsFile` writable bytes, aligned for any type, and calls no method of a file whose
    // opening failed, which has none.
    unsafe { io::place(file, opened.ok()) };
    if !flags_out.is_null() {
        // SAFETY: it is not null, and then SQLite passes a place for the flags.
        unsafe { *flags_out = flags };
    }
    code
}

fn open_named(name: Option<&CStr>, flags: c_int) -> Result<Open> {
    let Some(name) = name.filter(|_| flags & ffi::SQLITE_OPEN_DELETEONCLOSE == 0) else {
        return Ok(Open::Temporary(Bytes::default()));
    };
    let journal = ffi::SQLITE_OPEN_MAIN_JOURNAL | ffi::SQLITE_OPEN_SUPER_JOURNAL | ffi::SQLITE_OPEN_WAL;
    let role = match flags {
        flags if flags & ffi::SQLITE_OPEN_MAIN_DB != 0 => Role::Database,
        flags if flags & journal != 0 => Role::Journal,
        _ => Role::Other,
    };
    let creates = flags & ffi::SQLITE_OPEN_CREATE != 0;
    let must_be_new = flags & ffi::SQLITE_OPEN_EXCLUSIVE != 0;
    let path = name.to_str().map_err(|_not_utf8| Code(ffi::SQLITE_CANTOPEN))?;
    let disk = process::disk_of(path).ok_or(Code(ffi::SQLITE_CANTOPEN))?;
    File::open(disk, path, Opening { creates, must_be_new, role }).map(Open::OnDisk)
}

unsafe extern "C" fn delete_file(
    _vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    sync_folder: c_int,
) -> c_int {
    // SAFETY: SQLite passes a string that ends in a null and outlives the call.
    let path = unsafe { CStr::from_ptr(name) }.to_str().unwrap_or_default();
    let Some(disk) = process::disk_of(path) else { return ffi::SQLITE_IOERR_DELETE_NOENT };
    answer(delete(&disk, path, sync_folder & 1 != 0))
}

unsafe extern "C" fn access(
    _vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    // SAFETY: SQLite passes a string that ends in a null and outlives the call.
    let path = unsafe { CStr::from_ptr(name) }.to_str().unwrap_or_default();
    let must_have_bytes = flags == ffi::SQLITE_ACCESS_EXISTS;
    let there = process::disk_of(path).map_or(Ok(false), |disk| exists(&disk, path, must_have_bytes));
    // SAFETY: SQLite passes a place for the answer.
    unsafe { *out = c_int::from(there.unwrap_or(false)) };
    answer(there.map(drop))
}

unsafe extern "C" fn full_pathname(
    _vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    out_len: c_int,
    out: *mut c_char,
) -> c_int {
    // SAFETY: SQLite passes a string that ends in a null and outlives the call.
    let path = unsafe { CStr::from_ptr(name) }.to_str().unwrap_or_default();
    let Some(full) = process::full_path(Path::new(path)) else { return ffi::SQLITE_CANTOPEN };
    if full.len() >= usize::try_from(out_len).unwrap_or_default() {
        return ffi::SQLITE_CANTOPEN;
    }
    // SAFETY: the path and the null that ends it fit into the `out_len` bytes that SQLite passes, just checked; its
    // buffer overlaps nothing of ours.
    unsafe {
        std::ptr::copy_nonoverlapping(full.as_ptr().cast::<c_char>(), out, full.len());
        *out.add(full.len()) = 0;
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn randomness(_vfs: *mut ffi::sqlite3_vfs, len: c_int, out: *mut c_char) -> c_int {
    let bytes = usize::try_from(len).unwrap_or_default();
    // SAFETY: SQLite passes `len` writable bytes that nobody else touches during the call.
    process::fill_randomness(unsafe { std::slice::from_raw_parts_mut(out.cast::<u8>(), bytes) });
    len
}

unsafe extern "C" fn sleep(_vfs: *mut ffi::sqlite3_vfs, microseconds: c_int) -> c_int {
    process::note_sleep();
    microseconds
}

unsafe extern "C" fn current_time(_vfs: *mut ffi::sqlite3_vfs, out: *mut f64) -> c_int {
    let seconds = i32::try_from(process::julian_ms() / 86_400_000).unwrap_or(i32::MAX);
    let rest = i32::try_from(process::julian_ms() % 86_400_000).unwrap_or_default();
    // SAFETY: SQLite passes a place for the time.
    unsafe { *out = f64::from(seconds) + f64::from(rest) / 86_400_000.0 };
    ffi::SQLITE_OK
}

unsafe extern "C" fn current_time_ms(_vfs: *mut ffi::sqlite3_vfs, out: *mut ffi::sqlite3_int64) -> c_int {
    // SAFETY: SQLite passes a place for the time.
    unsafe { *out = process::julian_ms() };
    ffi::SQLITE_OK
}

unsafe extern "C" fn last_error(_vfs: *mut ffi::sqlite3_vfs, _len: c_int, _out: *mut c_char) -> c_int {
    0
}
