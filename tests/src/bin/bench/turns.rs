//! Things that are taken in turn.

use std::sync::atomic::{AtomicUsize, Ordering};

/// One of each; at least one.
pub struct Turns<T> {
    all: Vec<T>,
    taken: AtomicUsize,
}

impl<T> Turns<T> {
    pub fn of(all: Vec<T>) -> Self {
        Self { all, taken: AtomicUsize::new(0) }
    }

    /// The one whose turn it is.
    pub fn next(&self) -> &T {
        &self.all[self.taken.fetch_add(1, Ordering::Relaxed) % self.all.len()]
    }
}
