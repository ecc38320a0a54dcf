//! What the process allocates memory with: on Linux jemalloc, which returns to the system what a
//! burst took. SQLite is written in C and would allocate with the C library, in an arena for each
//! of its threads; [`install`] has it allocate with jemalloc, too.
//!
//! It must never be linked by anything but a program, and never do anything but allocate: no other
//! crate of the product may have unsafe code.

#[cfg(target_os = "linux")]
mod sqlite;
mod too_late;

pub use too_late::TooLate;

/// Memory that a burst took goes back to the system within seconds, also while nothing happens.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Has SQLite allocate with jemalloc, and not count what it allocates, for which its threads would
/// wait for each other. Call this first in `main`. Only on Linux does it do anything.
pub fn install() -> Result<(), TooLate> {
    #[cfg(target_os = "linux")]
    sqlite::install()?;
    Ok(())
}
