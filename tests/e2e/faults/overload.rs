//! Far more callers than are accepted, with large bodies, while PostgreSQL is frozen for a time.
//! They are refused with a time to try again, memory stays bounded, and accepted events are
//! delivered.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use outrider_tests::{process::Signal, usage};
use serde_json::json;

use super::{
    cases,
    ledger::Pace,
    trial::{Own, Setting, Trial, length, single},
};

/// How much the process may grow under overload, in bytes: less than the callers offer at any time,
/// of which a process without bounds would have several copies. It is the same for 25 and for 250
/// callers.
const GROWTH: u64 = 96 << 20;
const CALLERS: usize = 250;
/// The longest body. The mean is half of it.
const BODY: usize = 1_000_000;

cases! {
    postgres_overloaded: overloaded(), async |trial| overload(trial).await;
}

/// Few requests and few bytes may wait for one small commit at a time. All callers have one API
/// key, whose share is a quarter of each.
fn overloaded() -> Setting {
    let few = json!({
        "gateway": {"max_buffered_bytes": 32 << 20},
        "dispatch": {"accept_lanes": 1, "accept_batch": 2, "accept_queue": 32,
            "accept_queue_bytes": 16 << 20},
    });
    let pace =
        Pace { callers: CALLERS, pause: Duration::from_millis(1), filler: BODY, keyed: true };
    Setting { pace, ..single().own(Own::Postgres).with(few) }
}

async fn overload(trial: &mut Trial<'_>) -> Result<()> {
    let before = trial.memory_before;
    trial.postgres("SIGSTOP", |postgres| postgres.signal_all(Signal::Stop))?;
    // Less than the timeout of a request, so that it does not end for that reason.
    let mut peak = highest(trial, (length() / 2).min(Duration::from_secs(10))).await?;
    trial.postgres("SIGCONT", |postgres| postgres.signal_all(Signal::Continue))?;
    peak = peak.max(highest(trial, length() / 2).await?);
    let told = format!("memory from {} to {} MiB", before >> 20, peak >> 20);
    eprintln!("under overload: {told}");
    ensure!(
        trial.book.answered("REST 429") > 0,
        "nothing was refused by REST: {:?}",
        trial.book.answers()
    );
    ensure!(
        trial.book.answered("gRPC ResourceExhausted") > 0,
        "nothing was refused by gRPC: {:?}",
        trial.book.answers()
    );
    ensure!(before > 0 && peak < before + GROWTH, "{told}");
    Ok(())
}

/// Returns the highest memory of the process in this time.
async fn highest(trial: &mut Trial<'_>, time: Duration) -> Result<u64> {
    let process = trial.world.outrider.process_id("all")?;
    let (until, mut peak) = (Instant::now() + time, 0);
    while Instant::now() < until {
        peak = peak.max(usage::of_one(process).memory);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(peak)
}
