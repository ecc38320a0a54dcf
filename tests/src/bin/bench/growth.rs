//! Measures how cost grows with one size.

use anyhow::{Result, ensure};

use crate::{
    arguments::{Axis, Growth, Layout, Load},
    load,
    report::{percentile, tell},
};

/// Measures each size and prints its row. Fails at the end if a size failed, or if anything was
/// lost or duplicated.
pub async fn run(growth: &Growth) -> Result<()> {
    let sizes = if growth.sizes.is_empty() { growth.axis.sizes() } else { &growth.sizes };
    println!(
        "\n| {:>13} | deliveries/s | publish p50, ms | Outrider | PostgreSQL |  Redis | \
        memory, MiB |",
        format!("{:?}", growth.axis).to_lowercase()
    );
    println!(
        "|--------------:|-------------:|----------------:|---------:|-----------:|-------:|\
        ------------:|"
    );
    let mut bad = 0;
    for size in sizes {
        let measured =
            load::run(&Load { verify: growth.verify, ..growth.axis.load(*size, growth.seconds) })
                .await;
        let outcome = match measured {
            Ok(outcome) => outcome,
            Err(error) => {
                bad += 1;
                println!("| {size:>13} | failed: {}", error.root_cause());
                tell(&size.to_string(), &error);
                continue;
            }
        };
        println!(
            "| {size:>13} | {:>12.0} | {:>15.2} | {:>8.4} | {:>10.4} | {:>6.4} | {:>11} |",
            outcome.rate(),
            percentile(&outcome.published.latencies, 500),
            outcome.own_cpu(),
            outcome.postgres_cpu(),
            outcome.redis_cpu(),
            outcome.memory >> 20
        );
        if !outcome.harm.none() {
            bad += 1;
            println!("| {size:>13} | {}", outcome.harm);
        }
    }
    println!(
        "\nOutrider, PostgreSQL and Redis: CPU seconds per 1,000 deliveries. Memory: the highest \
            of Outrider's processes together."
    );
    ensure!(bad == 0, "{bad} of {} sizes failed, lost something or got it twice", sizes.len());
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
            Self::Processes | Self::Workers => &[1, 2, 4],
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
            // The number of callers keeps the deliveries in flight about equal.
            Self::FanOut => Load { fan_out: count, callers: (64 / count.max(1)).max(1), ..load },
            Self::Processes => Load { processes: count, ..load },
            Self::Workers => Load { processes: count, layout: Layout::Six, ..load },
        }
    }
}
