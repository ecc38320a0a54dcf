//! What became of many events, while they go and in the end.

use std::{
    io::{IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

use outrider_proto::ingest::StreamAck;
use serde_json::json;

use crate::printable::printable;

/// Refusals that are told one by one.
const TOLD: u64 = 20;
/// How often progress is shown.
const PERIOD: Duration = Duration::from_millis(100);

/// Counts, and tells on standard error.
pub struct Tally {
    accepted: u64,
    duplicates: u64,
    deliveries: u64,
    /// Accepted with warnings.
    warned: u64,
    pub refused: u64,
    json: bool,
    /// Whether progress is shown: on a terminal only.
    live: bool,
    shown: Instant,
}

impl Tally {
    pub fn new(json: bool) -> Self {
        let live = std::io::stderr().is_terminal();
        Self {
            accepted: 0,
            duplicates: 0,
            deliveries: 0,
            warned: 0,
            refused: 0,
            json,
            live,
            shown: Instant::now(),
        }
    }

    /// Lines of which it is known what became of them.
    pub fn lines(&self) -> u64 {
        self.accepted + self.refused
    }

    pub fn accept(&mut self, ack: &StreamAck) {
        self.accepted += u64::from(ack.accepted_count);
        self.duplicates += u64::from(ack.duplicate_count);
        self.deliveries += ack.delivery_count;
        self.warned += u64::from(ack.warned_count);
        if self.live && self.shown.elapsed() >= PERIOD {
            self.shown = Instant::now();
            eprint!("\r\u{1b}[K{} accepted, {} refused", self.accepted, self.refused);
            let _ = std::io::stderr().flush();
        }
    }

    pub fn refuse(&mut self, line: u64, why: &str) {
        self.refused += 1;
        match self.refused {
            told if told <= TOLD => self.say(&format!("line {line}: {why}")),
            told if told == TOLD + 1 => self.say("further refusals are counted only"),
            _ => {}
        }
    }

    /// Something that people should know now.
    pub fn say(&self, text: &str) {
        self.clear();
        eprintln!("{}", printable(text));
    }

    fn clear(&self) {
        if self.live {
            eprint!("\r\u{1b}[K");
        }
    }

    pub fn summary(&self) {
        self.clear();
        let Self { accepted, duplicates, refused, deliveries, warned, .. } = self;
        if self.json {
            let tally = json!({
                "accepted": accepted, "duplicates": duplicates, "refused": refused,
                    "deliveries": deliveries, "warned": warned,
            });
            println!("{tally}");
        } else {
            println!(
                "{accepted} accepted ({duplicates} of them duplicates, {warned} with warnings), \
                    {refused} refused, {deliveries} deliveries"
            );
        }
    }
}
