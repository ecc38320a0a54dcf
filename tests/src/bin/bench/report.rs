//! Prints tables.

use std::time::Duration;

use outrider_tests::usage::Usage;

use crate::{
    arguments::{Load, Mode},
    load::Outcome,
    servers::Cost,
};

/// Returns a count per second.
#[allow(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
pub fn rate(count: usize, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

/// Returns a percentile in milliseconds, of sorted microseconds. `part` is in thousandths.
pub fn percentile(sorted: &[u32], part: usize) -> f64 {
    let index = (sorted.len() * part / 1_000).min(sorted.len().saturating_sub(1));
    f64::from(sorted.get(index).copied().unwrap_or(0)) / 1_000.0
}

impl Outcome {
    /// Returns deliveries per second, from the first publish to the last arrival.
    pub fn rate(&self) -> f64 {
        rate(self.delivered, self.took)
    }

    fn thousands(&self) -> f64 {
        rate(self.delivered.max(1), Duration::from_secs(1_000))
    }

    fn cpu(&self, of: impl Fn(&Cost) -> Usage) -> f64 {
        of(&self.after).cpu.saturating_sub(of(&self.before).cpu).as_secs_f64() / self.thousands()
    }

    /// Returns the CPU seconds of all processes of Outrider per 1,000 deliveries.
    pub fn own_cpu(&self) -> f64 {
        self.cpu(Cost::outrider)
    }

    /// Returns the CPU seconds of PostgreSQL per 1,000 deliveries.
    pub fn postgres_cpu(&self) -> f64 {
        self.cpu(|cost| cost.postgres)
    }

    /// Returns the CPU seconds of Redis per 1,000 deliveries.
    pub fn redis_cpu(&self) -> f64 {
        self.cpu(|cost| cost.redis)
    }

    /// Returns a count of the servers per delivery.
    #[allow(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    pub fn each(&self, of: impl Fn(&Cost) -> u64) -> f64 {
        of(&self.after).saturating_sub(of(&self.before)) as f64 / self.thousands() / 1_000.0
    }
}

impl Cost {
    /// Returns the usage of all processes of Outrider.
    pub fn outrider(&self) -> Usage {
        self.roles.iter().fold(Usage::default(), |sum, (_, usage)| Usage {
            cpu: sum.cpu + usage.cpu,
            memory: sum.memory + usage.memory,
        })
    }
}

/// Prints everything about one load.
pub fn print(load: &Load, outcome: &Outcome) {
    let Outcome { published, before, after, .. } = outcome;
    println!();
    row("measure", format!("{:?}", load.layout).to_lowercase());
    println!("|{:-<50}|{:->16}|", "", ":");
    match load.mode {
        Mode::Rest | Mode::Grpc => {
            row("callers / payload, bytes", format!("{} / {}", load.callers, load.payload))
        }
        Mode::Stream => {
            row("streams / payload, bytes", format!("{} / {}", load.streams, load.payload))
        }
    }
    row("published, 1/s", format!("{:.0}", rate(published.accepted, published.took)));
    row("delivered, 1/s (first publish to last arrival)", format!("{:.0}", outcome.rate()));
    for (name, part) in [("p50", 500), ("p99", 990), ("p99.9", 999)] {
        row(
            &format!("publish {name}, ms"),
            format!("{:.2}", percentile(&published.latencies, part)),
        );
    }
    row("delivered", outcome.delivered.to_string());
    row("lost", outcome.harm.lost.to_string());
    row("duplicates", outcome.harm.duplicates.to_string());
    if load.verify {
        row("findings of verify-ledger", outcome.harm.findings.to_string());
    }
    let usage = |name: &str, before: Usage, after: Usage| {
        if after.memory > 0 {
            let cpu = after.cpu.saturating_sub(before.cpu).as_secs_f64() / outcome.thousands();
            row(&format!("{name}: CPU s per 1,000 deliveries"), format!("{cpu:.4}"));
            row(&format!("{name}: memory at the end, MiB"), (after.memory / 1_048_576).to_string());
        }
    };
    usage("outrider", before.outrider(), after.outrider());
    row("outrider: memory, highest, MiB", (outcome.memory >> 20).to_string());
    if after.roles.len() > 1 {
        for ((role, before), (_, after)) in before.roles.iter().zip(&after.roles) {
            usage(&format!("  {role}"), *before, *after);
        }
    }
    usage("PostgreSQL", before.postgres, after.postgres);
    usage("Redis", before.redis, after.redis);
    usage("callers and receiver", before.callers, after.callers);
    if after.statements > 0 {
        row(
            "PostgreSQL: statements per delivery",
            format!("{:.4}", outcome.each(|cost| cost.statements)),
        );
        row(
            "PostgreSQL: transactions per delivery",
            format!("{:.4}", outcome.each(|cost| cost.transactions)),
        );
        row(
            "Redis: round trips per delivery",
            format!("{:.4}", outcome.each(|cost| cost.round_trips)),
        );
        row("Redis: commands per delivery", format!("{:.4}", outcome.each(|cost| cost.commands)));
    }
}

/// Prints on stderr everything about a failure.
pub fn tell(what: &str, error: &anyhow::Error) {
    eprintln!("{what} failed:");
    error.chain().for_each(|cause| eprintln!("{cause}"));
}

fn row(name: &str, value: String) {
    println!("| {name:<48} | {value:>14} |");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_taken_from_what_is_there() {
        let hundred: Vec<u32> = (1..=100).map(|millis| millis * 1_000).collect();
        let close = |part: usize, millis: f64| (percentile(&hundred, part) - millis).abs() < 1e-9;
        assert!(
            close(0, 1.0)
                && close(500, 51.0)
                && close(990, 100.0)
                && close(999, 100.0)
                && close(1_000, 100.0)
        );
        assert!(percentile(&[7_500], 500) > 7.4 && percentile(&[], 990).abs() < 1e-9);
        assert!((rate(30, Duration::from_millis(1_500)) - 20.0).abs() < 1e-9);
    }
}
