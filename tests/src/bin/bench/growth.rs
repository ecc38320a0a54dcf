//! How cost grows with one size.

use anyhow::Result;

use crate::{
    arguments::{Axis, Growth, Layout, Load},
    load,
    report::percentile,
};

/// Measures each size and prints a row of it.
pub async fn run(growth: &Growth) -> Result<()> {
    let sizes = if growth.sizes.is_empty() { growth.axis.sizes() } else { &growth.sizes };
    println!(
        "\n| {:>12} | deliveries/s | publish p50, ms | Outrider | PostgreSQL |  Redis |",
        format!("{:?}", growth.axis).to_lowercase()
    );
    println!("|-------------:|-------------:|----------------:|---------:|-----------:|-------:|");
    for size in sizes {
        let outcome = load::run(&growth.axis.load(*size, growth.seconds)).await?;
        println!(
            "| {size:>12} | {:>12.0} | {:>15.2} | {:>8.4} | {:>10.4} | {:>6.4} |",
            outcome.rate(),
            percentile(&outcome.published.latencies, 500),
            outcome.own_cpu(),
            outcome.postgres_cpu(),
            outcome.redis_cpu()
        );
    }
    println!("\nThe last three: CPU seconds per 1,000 deliveries.");
    Ok(())
}

impl Axis {
    fn sizes(self) -> &'static [u64] {
        match self {
            Self::Stored => &[0, 100_000, 1_000_000, 10_000_000],
            Self::Endpoints => &[1, 100, 1_000, 10_000],
            Self::Subscriptions => &[10, 100, 1_000, 10_000, 100_000],
            Self::Payload => &[100, 1_024, 10_240, 102_400],
            Self::FanOut => &[1, 10, 100, 1_000, 10_000],
            Self::Workers => &[1, 2, 4],
        }
    }

    fn load(self, size: u64, seconds: u64) -> Load {
        let load = Load::seconds(seconds);
        let count = usize::try_from(size).unwrap_or(usize::MAX);
        match self {
            Self::Stored => Load { old_deliveries: size, ..load },
            Self::Endpoints => Load { idle_endpoints: count.saturating_sub(1), ..load },
            Self::Subscriptions => Load { idle_subscriptions: count.saturating_sub(1), ..load },
            Self::Payload => Load { payload: count, ..load },
            // As many callers as keep the deliveries under way about equal.
            Self::FanOut => Load { fan_out: count, callers: (64 / count).max(1), ..load },
            Self::Workers => Load { workers: count, layout: Layout::Six, ..load },
        }
    }
}
