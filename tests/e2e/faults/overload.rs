//! Callers far beyond what is taken: refused with the time to come again, while memory stays bounded and what was accepted is delivered.

use std::time::Duration;

use anyhow::{Result, ensure};
use outrider_tests::usage;
use serde_json::json;

use super::{
    cases,
    ledger::Pace,
    trial::{Setting, Trial, length, single},
};

/// What the process may grow by under overload, in bytes: far less than what the callers hold out.
const GROWTH: u64 = 200 << 20;
const CALLERS: usize = 100;

cases! {
    postgres_overloaded: overloaded(), async |trial| overload(trial).await;
}

/// Few requests wait for one small commit at a time.
fn overloaded() -> Setting {
    let few = json!({"dispatch": {"accept_lanes": 1, "accept_batch": 2, "accept_queue": 8, "accept_queue_bytes": 4 << 20}});
    Setting { pace: Pace { callers: CALLERS, pause: Duration::from_millis(1), filler: 16_000 }, ..single().with(few) }
}

async fn overload(trial: &mut Trial<'_>) -> Result<()> {
    let process = trial.world.outrider.process_id("all")?;
    let before = usage::of_one(process).memory;
    let mut peak = before;
    for _ in 0..length().as_millis() / 100 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        peak = peak.max(usage::of_one(process).memory);
    }
    trial.note(format!("memory from {} to {} MiB", before >> 20, peak >> 20));
    eprintln!("memory under overload: from {} to {} MiB", before >> 20, peak >> 20);
    ensure!(trial.book.answered("REST 429") > 0, "nothing was refused by REST: {:?}", trial.book.answers());
    ensure!(trial.book.answered("gRPC ResourceExhausted") > 0, "nothing was refused by gRPC: {:?}", trial.book.answers());
    ensure!(peak < before + GROWTH, "memory grew from {} to {} MiB", before >> 20, peak >> 20);
    Ok(())
}
