//! The table.

use std::time::Duration;

use outrider_tests::usage::Usage;

use crate::{Arguments, Mode, Published};

/// What everything has cost since it was started.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    pub outrider: Usage,
    pub postgres: Usage,
    pub redis: Usage,
    pub callers: Usage,
    /// PostgreSQL's transactions.
    pub commits: u64,
    /// Redis's commands, those in scripts too.
    pub commands: u64,
}

/// What was measured.
pub struct Outcome<'a> {
    pub arguments: &'a Arguments,
    /// Requests per second of the bare machine.
    pub machine: f64,
    pub published: Published,
    /// From the first publish to the last arrival.
    pub took: Duration,
    pub before: Cost,
    pub after: Cost,
    pub lost: usize,
    pub duplicates: usize,
}

/// So many per second.
#[allow(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
pub fn rate(count: usize, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

/// Prints the table.
pub fn print(outcome: &Outcome) {
    let Outcome { arguments, published, before, after, .. } = outcome;
    let delivered = published.accepted - outcome.lost;
    println!();
    row("measure", format!("{:?}", arguments.layout).to_lowercase());
    println!("|{:-<50}|{:->16}|", "", ":");
    row("bare machine, POST to receiver, 1/s", format!("{:.0}", outcome.machine));
    match arguments.mode {
        Mode::Rest => row("callers / payload, bytes", format!("{} / {}", arguments.callers, arguments.payload)),
        Mode::Stream => row("streams / payload, bytes", format!("{} / {}", arguments.connections, arguments.payload)),
    }
    row("published, 1/s", format!("{:.0}", rate(published.accepted, published.took)));
    row("delivered, 1/s (first publish to last arrival)", format!("{:.0}", rate(delivered, outcome.took)));
    for (name, part) in [("p50", 500), ("p99", 990), ("p99.9", 999)] {
        row(&format!("publish {name}, ms"), format!("{:.2}", percentile(&published.latencies, part)));
    }
    row("delivered", delivered.to_string());
    row("lost", outcome.lost.to_string());
    row("duplicates", outcome.duplicates.to_string());
    let each = |total: f64| format!("{:.4}", total / rate(delivered.max(1), Duration::from_secs(1)) * 1_000.0);
    for (name, before, after) in [
        ("outrider", before.outrider, after.outrider),
        ("PostgreSQL", before.postgres, after.postgres),
        ("Redis", before.redis, after.redis),
        ("callers and receiver", before.callers, after.callers),
    ] {
        if after.memory > 0 {
            row(&format!("{name}: CPU s per 1,000 deliveries"), each(after.cpu.saturating_sub(before.cpu).as_secs_f64()));
            row(&format!("{name}: memory, MiB"), (after.memory / 1_048_576).to_string());
        }
    }
    for (name, before, after) in
        [("PostgreSQL: transactions", before.commits, after.commits), ("Redis: commands", before.commands, after.commands)]
    {
        if after > 0 {
            let total = f64::from(u32::try_from(after.saturating_sub(before)).unwrap_or(u32::MAX));
            row(&format!("{name} per 1,000 deliveries"), each(total));
        }
    }
}

fn row(name: &str, value: String) {
    println!("| {name:<48} | {value:>14} |");
}

/// In milliseconds, of sorted microseconds; `part` in thousandths.
fn percentile(sorted: &[u32], part: usize) -> f64 {
    let index = (sorted.len() * part / 1_000).min(sorted.len().saturating_sub(1));
    f64::from(sorted.get(index).copied().unwrap_or(0)) / 1_000.0
}
