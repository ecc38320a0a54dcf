//! The memory and CPU time of each process, measured on a separate thread.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, RecvTimeoutError},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use outrider_tests::{
    Outrider,
    usage::{self, Usage},
};

use super::seen::Phase;

/// This process: attackers, their receivers, and the healthy tenant.
pub const ATTACKERS: &str = "attackers";
const PERIOD: Duration = Duration::from_millis(250);

/// One measurement of all processes.
struct Look {
    at: Instant,
    of: Vec<Usage>,
}

/// Measures the processes until it is dropped.
pub struct Watch {
    names: Vec<String>,
    looks: Arc<Mutex<Vec<Look>>>,
    end: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// The resources that one process used in a phase.
#[derive(Debug, Clone)]
pub struct Used {
    pub process: String,
    /// The highest memory and, in `last`, the latest, in bytes.
    pub highest: u64,
    pub last: u64,
    /// CPU time.
    pub cpu: Duration,
}

impl Watch {
    /// Starts to measure all processes of Outrider and, as the last, this one.
    pub fn start(outrider: &Outrider) -> Self {
        let of_outrider =
            outrider.processes().into_iter().map(|(name, process)| (name.to_owned(), process));
        let attackers = (ATTACKERS.to_owned(), std::process::id());
        let (names, processes): (Vec<String>, Vec<u32>) = of_outrider.chain([attackers]).unzip();
        let (end, ended) = mpsc::channel();
        let looks = Arc::<Mutex<Vec<Look>>>::default();
        let seen = Arc::clone(&looks);
        let thread = std::thread::spawn(move || {
            loop {
                let of = processes.iter().map(|process| usage::of_one(*process)).collect();
                seen.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(Look { at: Instant::now(), of });
                if ended.recv_timeout(PERIOD) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        });
        Self { names, looks, end: Some(end), thread: Some(thread) }
    }

    /// Returns what each process used in a phase.
    pub fn in_phase(&self, phase: &Phase) -> Vec<Used> {
        let looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        let within: Vec<&Look> = looks.iter().filter(|look| phase.contains(&look.at)).collect();
        let used = |(place, process): (usize, &String)| {
            let of = within.iter().map(|look| look.of[place]);
            let (first, last) =
                (of.clone().next().unwrap_or_default(), of.clone().next_back().unwrap_or_default());
            let highest = of.map(|usage| usage.memory).max().unwrap_or_default();
            let cpu = last.cpu.saturating_sub(first.cpu);
            Used { process: process.clone(), highest, last: last.memory, cpu }
        };
        self.names.iter().enumerate().map(used).collect()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // The thread does not fail.
            thread.join().ok();
        }
    }
}
