//! Items that are used in turn.

use std::sync::atomic::{AtomicUsize, Ordering};

/// At least one item.
pub struct Turns<T> {
    all: Vec<T>,
    taken: AtomicUsize,
}

impl<T> Turns<T> {
    pub fn of(all: Vec<T>) -> Self {
        Self { all, taken: AtomicUsize::new(0) }
    }

    /// Returns the next item.
    pub fn next(&self) -> &T {
        &self.all[self.taken.fetch_add(1, Ordering::Relaxed) % self.all.len()]
    }
}
