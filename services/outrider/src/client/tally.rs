//! Counts the outcomes of many events, and shows the progress.

use std::{
    io::IsTerminal as _,
    time::{Duration, Instant},
};

use anyhow::Result;
use outrider_proto::ingest::StreamAck;
use serde_json::json;

use crate::{
    printable::printable,
    stderr::{self, note},
    stdout,
};

/// Maximum number of refusals that are printed one by one.
const TOLD: u64 = 20;
/// Time between two updates of the progress.
const PERIOD: Duration = Duration::from_millis(100);

/// Counts outcomes, and prints them on standard error.
pub struct Tally {
    accepted: u64,
    duplicates: u64,
    deliveries: u64,
    /// Accepted with warnings.
    warned: u64,
    pub refused: u64,
    json: bool,
    /// Whether progress is shown, which is only the case on a terminal.
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

    /// Returns the number of lines with a known outcome.
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
            let (accepted, refused) = (self.accepted, self.refused);
            stderr::write(format_args!("\r\u{1b}[K{accepted} accepted, {refused} refused"));
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

    /// Prints a message now.
    pub fn say(&self, text: &str) {
        self.clear();
        note!("{}", printable(text));
    }

    fn clear(&self) {
        if self.live {
            stderr::write(format_args!("\r\u{1b}[K"));
        }
    }

    pub fn summary(&self) -> Result<()> {
        self.clear();
        let Self { accepted, duplicates, refused, deliveries, warned, .. } = self;
        if self.json {
            let tally = json!({
                "accepted": accepted, "duplicates": duplicates, "refused": refused,
                    "deliveries": deliveries, "warned": warned,
            });
            stdout::line(tally)
        } else {
            stdout::line(format_args!(
                "{accepted} accepted ({duplicates} of them duplicates, {warned} with warnings), \
                    {refused} refused, {deliveries} deliveries"
            ))
        }
    }
}
