//! Runs a target under libFuzzer, and measures its memory. `OUTRIDER_FUZZ_TARGET` names the target.
#![no_main]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use libfuzzer_sys::fuzz_target;
use outrider_fuzz::{TARGETS, Target, target};

/// Maximum memory that one input may take at once, in bytes. A request may be decoded into 24 MiB.
const MOST: usize = 40 << 20;
/// An input that leaves memory behind this many times in a row is a leak.
const LEAKS: usize = 8;

/// Counts allocated memory.
struct Counted;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn more(bytes: usize) {
    PEAK.fetch_max(LIVE.fetch_add(bytes, Relaxed).wrapping_add(bytes), Relaxed);
}

// SAFETY: the system's allocator does everything, and counting does not touch the memory.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        more(layout.size());
        // SAFETY: the caller upholds the contract of `GlobalAlloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        more(layout.size());
        // SAFETY: the caller upholds the contract of `GlobalAlloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller upholds the contract of `GlobalAlloc`.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LIVE.fetch_sub(layout.size(), Relaxed);
        more(size);
        // SAFETY: the caller upholds the contract of `GlobalAlloc`.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counted = Counted;

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    let name = std::env::var("OUTRIDER_FUZZ_TARGET").unwrap_or_default();
    let names = || TARGETS.iter().map(|target| target.name).collect::<Vec<_>>().join(", ");
    target(&name).unwrap_or_else(|| panic!("OUTRIDER_FUZZ_TARGET must be one of {}", names()))
});

/// Runs the target, and returns the number of bytes that it left behind.
fn measured(data: &[u8]) -> usize {
    let before = LIVE.load(Relaxed);
    PEAK.store(before, Relaxed);
    (TARGET.run)(data);
    let taken = PEAK.load(Relaxed).saturating_sub(before);
    assert!(taken <= MOST, "{} bytes of input took {taken} bytes of memory", data.len());
    LIVE.load(Relaxed).saturating_sub(before)
}

fuzz_target!(|data: &[u8]| {
    let mut left = measured(data);
    // Memory that is allocated once, or that doubles, is left behind once or twice.
    let mut times = 1;
    while left > 0 && times < LEAKS {
        left = measured(data);
        times += 1;
    }
    assert!(left == 0, "each run leaves {left} bytes behind");
});
