//! The promised figures by row: what must hold, the aim, and the measurement.

use std::time::Duration;

use anyhow::{Result, bail, ensure};

use crate::{
    arguments::{Layout, Load, Mode, Table},
    fresh,
    harm::Harm,
    lines::{self, Line, less, more, told, wrong},
    load::{self, Outcome},
    pace::{self, Pace},
    report::{percentile, tell},
};

/// A load whose figures are lines of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Row {
    Rest,
    Grpc,
    Stream,
    FanOut,
    Latency,
    New,
    Hanging,
    Away,
    Old,
    Sqlite,
}

const ROWS: [(&str, Row); 10] = [
    ("rest", Row::Rest),
    ("grpc", Row::Grpc),
    ("stream", Row::Stream),
    ("fan-out", Row::FanOut),
    ("latency", Row::Latency),
    ("new", Row::New),
    ("hanging", Row::Hanging),
    ("away", Row::Away),
    ("old", Row::Old),
    ("sqlite", Row::Sqlite),
];

const OLD_DELIVERIES: u64 = 10_000_000;
/// The number of pairs of runs with and without an endpoint that hangs. The median counts.
const PAIRS: usize = 5;
/// The default timeout of an endpoint.
const ENDPOINT_TIMEOUT: Duration = Duration::from_secs(15);

/// Measures the requested rows and prints each when it is done. A row that fails says so, and the
/// others continue. Fails at the end if a row failed or a line misses its bound.
pub async fn run(table: &Table) -> Result<()> {
    for row in &table.rows {
        if !ROWS.iter().any(|(name, _)| name.contains(row.as_str())) {
            bail!("no row is called {row}; there are {}", ROWS.map(|(name, _)| name).join(", "));
        }
    }
    lines::head();
    let (mut missed, mut failed) = (0, 0);
    for (name, row) in ROWS {
        if !table.rows.is_empty() && !table.rows.iter().any(|wanted| name.contains(wanted.as_str()))
        {
            continue;
        }
        match row.measure(table).await {
            Ok(lines) => {
                missed += lines.iter().filter(|line| line.misses()).count();
                lines.iter().for_each(Line::print);
            }
            Err(error) => {
                failed += 1;
                lines::failed(name, &error);
                tell(name, &error);
            }
        }
    }
    ensure!(missed + failed == 0, "{missed} lines miss what must hold, {failed} rows failed");
    Ok(())
}

impl Row {
    async fn measure(self, table: &Table) -> Result<Vec<Line>> {
        let load = Load { verify: table.verify, ..Load::seconds(table.seconds) };
        match self {
            Self::Rest => load::run(&load).await.map(|outcome| first(&outcome)),
            Self::Grpc => {
                let outcome = load::run(&Load { mode: Mode::Grpc, ..load }).await?;
                let line = told("end to end, gRPC unary publish, 64 callers, 1/s", outcome.rate());
                Ok(with(outcome.harm, [line]))
            }
            Self::Stream => {
                let outcome = load::run(&Load { mode: Mode::Stream, ..load }).await?;
                Ok(throughput("end to end, gRPC stream publish, 1/s", 5_000.0, 8_000.0, &outcome))
            }
            Self::FanOut => {
                let outcome = load::run(&Load { fan_out: 10, ..load }).await?;
                Ok(throughput("fan-out 10: deliveries/s", 6_000.0, 10_000.0, &outcome))
            }
            Self::Sqlite => {
                let outcome = load::run(&Load { layout: Layout::Sqlite, ..load }).await?;
                Ok(throughput(
                    "embedded (SQLite), REST publish, 64 callers, 1/s",
                    1_500.0,
                    4_000.0,
                    &outcome,
                ))
            }
            Self::Latency => latency(table).await,
            Self::New => {
                let name = "first 1,000 deliveries to a new endpoint, times those to a known one";
                Ok(vec![less(name, 1.1, 1.05, fresh::first_deliveries().await?)])
            }
            Self::Hanging => hanging(table).await,
            Self::Away => away(table.verify).await,
            Self::Old => old(load).await,
        }
    }
}

fn first(outcome: &Outcome) -> Vec<Line> {
    let mut lines =
        throughput("end to end, REST publish, 64 callers, 1/s", 4_000.0, 6_500.0, outcome);
    let memory = f64::from(u32::try_from(outcome.memory >> 20).unwrap_or(u32::MAX));
    lines.extend([
        less("own CPU per 1,000 deliveries, s", 0.25, 0.14, outcome.own_cpu()),
        less("PostgreSQL CPU per 1,000 deliveries, s", 0.12, 0.06, outcome.postgres_cpu()),
        less("Redis CPU per 1,000 deliveries, s", 0.03, 0.015, outcome.redis_cpu()),
        less(
            "PostgreSQL statements per delivery",
            0.15,
            0.08,
            outcome.each(|cost| cost.statements),
        ),
        less("Redis round trips per delivery", 0.2, 0.1, outcome.each(|cost| cost.round_trips)),
        less(
            "resident memory of the process, the highest during the load, MiB",
            150.0,
            60.0,
            memory,
        ),
    ]);
    lines
}

fn throughput(name: &'static str, must: f64, aim: f64, outcome: &Outcome) -> Vec<Line> {
    with(outcome.harm, [more(name, must, aim, outcome.rate())])
}

/// Returns lines, followed by losses and duplicates.
fn with(harm: Harm, lines: impl IntoIterator<Item = Line>) -> Vec<Line> {
    lines.into_iter().chain(wrong(harm)).collect()
}

async fn latency(table: &Table) -> Result<Vec<Line>> {
    let time = Duration::from_secs(table.seconds);
    let paced = Pace { rate: 200, time, fan_out: 1, hanging: false, verify: table.verify }
        .measure()
        .await?;
    let lines = [
        less("publish p50 at 200/s, ms", 2.5, 1.2, percentile(&paced.publish, 500)),
        less("publish p99 at 200/s, ms", 15.0, 6.0, percentile(&paced.publish, 990)),
        less("publish to receipt p50 at 200/s, ms", 3.0, 1.8, percentile(&paced.receipt, 500)),
        less("publish to receipt p99 at 200/s, ms", 17.0, 8.0, percentile(&paced.receipt, 990)),
    ];
    Ok(with(paced.harm, lines))
}

/// Every event goes to all ten endpoints, for three times as long as the timeout of one, so that
/// its retries are included. The figure is a median of ratios, because other load on the machine
/// affects both runs of a pair.
async fn hanging(table: &Table) -> Result<Vec<Line>> {
    let time = Duration::from_secs(table.seconds).max(ENDPOINT_TIMEOUT * 3);
    let mut ratios = Vec::new();
    let mut harm = Harm::default();
    for _ in 0..PAIRS {
        let mut p99 = async |hanging| {
            let paced = Pace { rate: 100, time, fan_out: 10, hanging, verify: table.verify }
                .measure()
                .await?;
            harm += paced.harm;
            anyhow::Ok(percentile(&paced.receipt, 990))
        };
        let (without, with) = (p99(false).await?, p99(true).await?);
        eprintln!(
            "  p99 of the healthy: {without:.2} ms without, {with:.2} ms with one that hangs"
        );
        ratios.push(with / without);
    }
    ratios.sort_by(f64::total_cmp);
    Ok(with(
        harm,
        [less("one of ten endpoints hangs: p99 of the others, times", 1.5, 1.1, ratios[PAIRS / 2])],
    ))
}

async fn away(verify: bool) -> Result<Vec<Line>> {
    let (last, harm) = pace::away(Duration::from_secs(10), verify).await?;
    let name = "receiver away for 10 s at 200/s: all delivered after its return, s";
    Ok(with(harm, [less(name, 30.0, 10.0, last.as_secs_f64())]))
}

/// Returns the CPU time of Outrider and its servers per delivery, compared with the same load on an
/// empty store.
async fn old(load: Load) -> Result<Vec<Line>> {
    let cost = |outcome: &Outcome| outcome.own_cpu() + outcome.postgres_cpu() + outcome.redis_cpu();
    let empty = load::run(&load).await?;
    let full = load::run(&Load { old_deliveries: OLD_DELIVERIES, ..load }).await?;
    eprintln!(
        "  PostgreSQL CPU: {:.4} s empty, {:.4} s full",
        empty.postgres_cpu(),
        full.postgres_cpu()
    );
    let mut harm = empty.harm;
    harm += full.harm;
    Ok(with(
        harm,
        [less(
            "CPU per delivery with 10 million old deliveries, times",
            1.2,
            1.05,
            cost(&full) / cost(&empty),
        )],
    ))
}
