//! How much memory processes take while they are under load.

use std::{
    sync::mpsc::{self, RecvTimeoutError},
    thread::{self, JoinHandle},
    time::Duration,
};

use outrider_tests::usage;

/// A look is a file of /proc for each process, some hundred microseconds.
const PERIOD: Duration = Duration::from_millis(200);

/// Looks at the memory of processes, on a thread of its own, until it is asked what the most was.
pub struct Watch {
    end: mpsc::Sender<()>,
    thread: JoinHandle<u64>,
}

impl Watch {
    /// Of these processes together.
    pub fn start(processes: Vec<u32>) -> Self {
        let (end, ended) = mpsc::channel();
        let thread = thread::spawn(move || {
            let mut highest = 0;
            loop {
                highest = highest.max(processes.iter().map(|process| usage::memory(*process)).sum());
                if ended.recv_timeout(PERIOD) != Err(RecvTimeoutError::Timeout) {
                    return highest;
                }
            }
        });
        Self { end, thread }
    }

    /// The most that they had at once, in bytes.
    pub fn highest(self) -> u64 {
        drop(self.end);
        self.thread.join().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_freed_again_is_seen() {
        let me = std::process::id();
        let before = usage::memory(me);
        let watch = Watch::start(vec![me]);
        let block = vec![1_u8; 64 << 20];
        thread::sleep(PERIOD * 3);
        drop(block);
        assert!(watch.highest() >= before + (60 << 20));
    }
}
