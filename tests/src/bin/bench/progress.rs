//! Reports progress on stderr while something takes long.

use std::time::{Duration, Instant};

/// How often progress is reported. Faster steps report nothing.
const PERIOD: Duration = Duration::from_secs(10);

/// A step that may take long.
pub struct Progress {
    what: &'static str,
    begin: Instant,
    told: Instant,
}

impl Progress {
    pub fn new(what: &'static str) -> Self {
        let now = Instant::now();
        Self { what, begin: now, told: now }
    }

    pub fn tell(&mut self, done: usize, of: usize) {
        if self.told.elapsed() >= PERIOD {
            eprintln!("  {done} of {of} {} after {} s", self.what, self.begin.elapsed().as_secs());
            self.told = Instant::now();
        }
    }
}
