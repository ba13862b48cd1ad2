//! The methods of an open file as SQLite calls them.
#![expect(unsafe_code, reason = "SQLite calls the methods of a file through C functions and raw pointers")]

use std::ffi::{c_int, c_void};
use std::mem::ManuallyDrop;

use rusqlite::ffi;

use super::code::{Code, answer};
use super::file::{File, Open, read_temporary};
use super::locks::Level;
use super::shm::Slots;

/// What SQLite allocates for a file of ours.
pub(super) const FILE_BYTES: usize = size_of::<Opened>();

/// SQLite knows the first field of it.
#[repr(C)]
struct Opened {
    base: ffi::sqlite3_file,
    open: ManuallyDrop<Open>,
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

/// Puts an opened file where SQLite wants it; a file without methods if the opening failed.
///
/// # Safety
///
/// `file` points to [`FILE_BYTES`] writable bytes, aligned for any type, that hold no open file.
pub(super) unsafe fn place(file: *mut ffi::sqlite3_file, open: Option<Open>) {
    let Some(open) = open else {
        // SAFETY: the caller passes room for more than the base.
        unsafe { (*file).pMethods = std::ptr::null() };
        return;
    };
    let base = ffi::sqlite3_file { pMethods: &raw const METHODS };
    // SAFETY: the caller passes room for it, and nothing is there that had to be dropped.
    unsafe { file.cast::<Opened>().write(Opened { base, open: ManuallyDrop::new(open) }) };
}

/// # Safety
///
/// `file` is an open file of ours and SQLite uses it from one thread at a time, as it does in its threading modes.
unsafe fn opened<'a>(file: *mut ffi::sqlite3_file) -> &'a mut Open {
    // SAFETY: `place` wrote an `Opened` there, and the caller promises that nobody else refers to it now.
    unsafe { &mut (*file.cast::<Opened>()).open }
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: SQLite closes a file that `place` opened, once, and uses it no more.
    unsafe { ManuallyDrop::drop(&mut (*file.cast::<Opened>()).open) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn read(file: *mut ffi::sqlite3_file, into: *mut c_void, len: c_int, offset: i64) -> c_int {
    // SAFETY: SQLite passes `len` bytes of its own to be filled.
    let into = unsafe { std::slice::from_raw_parts_mut(into.cast::<u8>(), size(len.into())) };
    // SAFETY: an open file, see `opened`.
    answer(match unsafe { opened(file) } {
        Open::OnDisk(file) => file.read(size(offset), into),
        Open::Temporary(bytes) => read_temporary(bytes, size(offset), into),
    })
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    data: *const c_void,
    len: c_int,
    offset: i64,
) -> c_int {
    // SAFETY: SQLite passes `len` bytes that do not change during the call.
    let data = unsafe { std::slice::from_raw_parts(data.cast::<u8>(), size(len.into())) };
    // SAFETY: an open file, see `opened`.
    match unsafe { opened(file) } {
        Open::OnDisk(file) => answer(file.write(size(offset), data)),
        Open::Temporary(bytes) => {
            bytes.write(size(offset), data);
            ffi::SQLITE_OK
        }
    }
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, len: i64) -> c_int {
    // SAFETY: an open file, see `opened`.
    match unsafe { opened(file) } {
        Open::OnDisk(file) => answer(file.truncate(size(len))),
        Open::Temporary(bytes) => {
            bytes.resize(size(len));
            ffi::SQLITE_OK
        }
    }
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _flags: c_int) -> c_int {
    // SAFETY: an open file, see `opened`.
    match unsafe { opened(file) } {
        Open::OnDisk(file) => answer(file.sync()),
        Open::Temporary(_) => ffi::SQLITE_OK,
    }
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, out: *mut i64) -> c_int {
    // SAFETY: an open file, see `opened`.
    let len = match unsafe { opened(file) } {
        Open::OnDisk(file) => file.len(),
        Open::Temporary(bytes) => Ok(bytes.len()),
    };
    answer(len.map(|len| {
        // SAFETY: SQLite passes a place for the size.
        unsafe { *out = i64::try_from(len).unwrap_or(i64::MAX) };
    }))
}

unsafe extern "C" fn lock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    // SAFETY: an open file, see `opened`.
    match unsafe { opened(file) } {
        Open::OnDisk(file) => answer(file.lock(Level::from_sqlite(level))),
        Open::Temporary(_) => ffi::SQLITE_OK,
    }
}

unsafe extern "C" fn unlock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    // SAFETY: an open file, see `opened`.
    if let Open::OnDisk(file) = unsafe { opened(file) } {
        file.unlock(Level::from_sqlite(level));
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn check_reserved_lock(file: *mut ffi::sqlite3_file, out: *mut c_int) -> c_int {
    // SAFETY: an open file, see `opened`.
    let reserved = match unsafe { opened(file) } {
        Open::OnDisk(file) => file.is_reserved(),
        Open::Temporary(_) => Ok(false),
    };
    answer(reserved.map(|reserved| {
        // SAFETY: SQLite passes a place for the answer.
        unsafe { *out = c_int::from(reserved) };
    }))
}

unsafe extern "C" fn file_control(file: *mut ffi::sqlite3_file, control: c_int, value: *mut c_void) -> c_int {
    // SAFETY: an open file, see `opened`.
    let Open::OnDisk(file) = (unsafe { opened(file) }) else { return ffi::SQLITE_NOTFOUND };
    match control {
        ffi::SQLITE_FCNTL_SIZE_HINT => return ffi::SQLITE_OK,
        ffi::SQLITE_FCNTL_COMMIT_PHASETWO => {
            file.note_commit();
            return ffi::SQLITE_NOTFOUND;
        }
        ffi::SQLITE_FCNTL_LOCKSTATE
        | ffi::SQLITE_FCNTL_PERSIST_WAL
        | ffi::SQLITE_FCNTL_POWERSAFE_OVERWRITE
        | ffi::SQLITE_FCNTL_HAS_MOVED
        | ffi::SQLITE_FCNTL_EXTERNAL_READER => {}
        _ => return ffi::SQLITE_NOTFOUND,
    }
    // SAFETY: each of these controls passes an int to be read and written.
    control_int(file, control, unsafe { &mut *value.cast::<c_int>() });
    ffi::SQLITE_OK
}

fn control_int(file: &mut File, control: c_int, value: &mut c_int) {
    match control {
        ffi::SQLITE_FCNTL_LOCKSTATE => *value = file.level().to_sqlite(),
        ffi::SQLITE_FCNTL_PERSIST_WAL => mode_bit(&mut file.persists_wal, value),
        ffi::SQLITE_FCNTL_POWERSAFE_OVERWRITE => mode_bit(&mut file.is_powersafe, value),
        ffi::SQLITE_FCNTL_HAS_MOVED => *value = c_int::from(file.has_moved()),
        // There is no other process.
        _ => *value = 0,
    }
}

/// `unixModeBit`: a negative value asks, another sets.
fn mode_bit(bit: &mut bool, value: &mut c_int) {
    match *value {
        asked if asked < 0 => *value = c_int::from(*bit),
        set => *bit = set != 0,
    }
}

/// The default of `os_unix.c`.
const unsafe extern "C" fn sector_size(_file: *mut ffi::sqlite3_file) -> c_int {
    4096
}

unsafe extern "C" fn device_characteristics(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: an open file, see `opened`.
    match unsafe { opened(file) } {
        Open::OnDisk(file) if !file.is_powersafe => ffi::SQLITE_IOCAP_SUBPAGE_READ,
        Open::OnDisk(_) | Open::Temporary(_) => {
            ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE | ffi::SQLITE_IOCAP_SUBPAGE_READ
        }
    }
}

unsafe extern "C" fn shm_map(
    file: *mut ffi::sqlite3_file,
    region: c_int,
    region_bytes: c_int,
    extend: c_int,
    out: *mut *mut c_void,
) -> c_int {
    // SAFETY: an open file, see `opened`.
    let mapped = match unsafe { opened(file) } {
        Open::OnDisk(file) => file.shm_map(size(region.into()), size(region_bytes.into()), extend != 0),
        Open::Temporary(_) => Err(Code(ffi::SQLITE_IOERR_SHMMAP)),
    };
    // SAFETY: SQLite passes a place for the pointer.
    unsafe { *out = mapped.unwrap_or(std::ptr::null_mut()) };
    answer(mapped.map(drop_pointer))
}

const fn drop_pointer(_mapped: *mut c_void) {}

unsafe extern "C" fn shm_lock(
    file: *mut ffi::sqlite3_file,
    first: c_int,
    count: c_int,
    flags: c_int,
) -> c_int {
    let slots = Slots { first: size(first.into()), count: size(count.into()) };
    // SAFETY: an open file, see `opened`.
    match unsafe { opened(file) } {
        Open::OnDisk(file) => answer(file.shm_lock(slots, flags)),
        Open::Temporary(_) => ffi::SQLITE_IOERR_SHMLOCK,
    }
}

unsafe extern "C" fn shm_barrier(_file: *mut ffi::sqlite3_file) {
    std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
}

unsafe extern "C" fn shm_unmap(file: *mut ffi::sqlite3_file, _delete: c_int) -> c_int {
    // SAFETY: an open file, see `opened`.
    if let Open::OnDisk(file) = unsafe { opened(file) } {
        file.shm_unmap();
    }
    ffi::SQLITE_OK
}

/// A length or an offset that SQLite never makes negative.
fn size(number: i64) -> usize {
    usize::try_from(number).expect("SQLite passes no negative lengths and offsets")
}
