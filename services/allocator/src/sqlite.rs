//! SQLite's memory methods, by jemalloc's functions:
//! <https://www.sqlite.org/c3ref/mem_methods.html>.

use std::{
    ffi::{c_int, c_void},
    sync::OnceLock,
};

use libsqlite3_sys::{
    SQLITE_CONFIG_MALLOC, SQLITE_CONFIG_MEMSTATUS, SQLITE_OK, sqlite3_config, sqlite3_mem_methods,
};
use tikv_jemalloc_sys as jemalloc;

use crate::too_late::TooLate;

const METHODS: sqlite3_mem_methods = sqlite3_mem_methods {
    xMalloc: Some(allocate),
    xFree: Some(free),
    xRealloc: Some(reallocate),
    xSize: Some(size),
    xRoundup: Some(round_up),
    xInit: Some(begin),
    xShutdown: Some(end),
    pAppData: std::ptr::null_mut(),
};

pub(crate) fn install() -> Result<(), TooLate> {
    static DONE: OnceLock<Result<(), TooLate>> = OnceLock::new();
    *DONE.get_or_init(|| {
        let (methods, no) = (METHODS, 0 as c_int);
        // SAFETY: the arguments are what these options take, and SQLite copies the methods. It
        // refuses them once it is in use; the lock keeps two threads from being here at once.
        let told = unsafe {
            [
                sqlite3_config(SQLITE_CONFIG_MALLOC, &raw const methods),
                sqlite3_config(SQLITE_CONFIG_MEMSTATUS, no),
            ]
        };
        if told == [SQLITE_OK; 2] { Ok(()) } else { Err(TooLate) }
    })
}

/// SQLite asks for 1 byte to 2 GiB; a negative number would be its own error.
fn bytes(wanted: c_int) -> usize {
    usize::try_from(wanted).unwrap_or(0).max(1)
}

unsafe extern "C" fn allocate(wanted: c_int) -> *mut c_void {
    // SAFETY: any number of bytes may be asked for.
    unsafe { jemalloc::malloc(bytes(wanted)) }
}

unsafe extern "C" fn free(memory: *mut c_void) {
    // SAFETY: SQLite gives back what these functions gave it, once, or nothing.
    unsafe { jemalloc::free(memory) }
}

unsafe extern "C" fn reallocate(memory: *mut c_void, wanted: c_int) -> *mut c_void {
    // SAFETY: as for `free`; the number of bytes is not 0.
    unsafe { jemalloc::realloc(memory, bytes(wanted)) }
}

unsafe extern "C" fn size(memory: *mut c_void) -> c_int {
    if memory.is_null() {
        return 0;
    }
    // SAFETY: as for `free`.
    let usable = unsafe { jemalloc::malloc_usable_size(memory) };
    c_int::try_from(usable).unwrap_or(c_int::MAX)
}

unsafe extern "C" fn round_up(wanted: c_int) -> c_int {
    // SAFETY: the number of bytes is not 0.
    let usable = unsafe { jemalloc::nallocx(bytes(wanted), 0) };
    c_int::try_from(usable).unwrap_or(c_int::MAX)
}

unsafe extern "C" fn begin(_: *mut c_void) -> c_int {
    SQLITE_OK
}

unsafe extern "C" fn end(_: *mut c_void) {}

#[cfg(test)]
mod tests {
    use libsqlite3_sys::{sqlite3_free, sqlite3_initialize, sqlite3_malloc, sqlite3_msize};

    use super::*;

    #[test]
    fn sqlite_allocates_with_it_and_says_when_it_is_too_late() {
        assert_eq!(install(), Ok(()));
        let methods = METHODS;
        // SAFETY: what is allocated is given back once; the rest is as in `install`.
        unsafe {
            assert_eq!(sqlite3_initialize(), SQLITE_OK);
            let memory = sqlite3_malloc(100);
            assert_eq!(sqlite3_msize(memory), jemalloc::nallocx(100, 0) as u64);
            sqlite3_free(memory);
            assert_ne!(sqlite3_config(SQLITE_CONFIG_MALLOC, &raw const methods), SQLITE_OK);
        }
        assert_eq!(install(), Ok(()), "it was told in time");
    }

    #[test]
    fn sizes_are_those_of_the_allocator() {
        // SAFETY: what is allocated is given back once.
        unsafe {
            assert_eq!(size(std::ptr::null_mut()), 0);
            for wanted in [1, 8, 100, 4_096, 4_360, 1 << 20] {
                let memory = allocate(wanted);
                assert_eq!((size(memory), memory.align_offset(8)), (round_up(wanted), 0));
                let larger = reallocate(memory, 2 * wanted);
                assert!(size(larger) >= 2 * wanted);
                free(larger);
            }
        }
    }
}
