//! Measures the memory of processes under load.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use outrider_tests::usage;

/// One measurement reads a file of /proc for each process, which takes some hundred microseconds.
const PERIOD: Duration = Duration::from_millis(200);

/// Measures the memory of processes on a separate thread, until the highest value is read.
pub struct Watch {
    end: mpsc::Sender<()>,
    thread: JoinHandle<()>,
    highest: Arc<AtomicU64>,
}

impl Watch {
    /// Starts to measure these processes together.
    pub fn start(processes: Vec<u32>) -> Self {
        let (end, ended) = mpsc::channel();
        let highest = Arc::<AtomicU64>::default();
        let seen = Arc::clone(&highest);
        let thread = thread::spawn(move || {
            loop {
                seen.fetch_max(
                    processes.iter().map(|process| usage::memory(*process)).sum(),
                    Ordering::Relaxed,
                );
                if ended.recv_timeout(PERIOD) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        });
        Self { end, thread, highest }
    }

    /// Stops, and returns the highest value in bytes.
    pub fn highest(self) -> u64 {
        drop(self.end);
        // The thread does not fail.
        self.thread.join().ok();
        self.highest.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_freed_again_is_seen() {
        let me = std::process::id();
        let before = usage::memory(me);
        let watch = Watch::start(vec![me]);
        let block = vec![1_u8; 64 << 20];
        let most = before + (60 << 20);
        let seen = async || (watch.highest.load(Ordering::Relaxed) >= most).then_some(());
        outrider_tests::wait_until("the block is seen", Duration::from_secs(20), seen)
            .await
            .unwrap();
        drop(block);
        assert!(watch.highest() >= most);
    }
}
