//! A worker freezes for longer than its leases and then continues. Another has sent its jobs, and
//! its late reports change nothing.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use outrider_tests::process::Signal;
use tokio::task::block_in_place;

use super::{
    cases,
    trial::{LEASE, Trial, mesh},
};

cases! {
    mesh_frozen_worker: mesh(), async |trial| frozen(trial).await;
    mesh_frozen_dispatch: mesh(), async |trial| frozen_dispatch(trial).await;
}

async fn frozen(trial: &mut Trial<'_>) -> Result<()> {
    trial.harm("start worker-2", |world| world.outrider.start_another("worker").map(drop))?;
    for _ in 0..2 {
        trial.may_double();
        let wait = trial.between(500, 1_500);
        tokio::time::sleep(wait).await;
        trial.signal("worker", Signal::Stop)?;
        // The other worker takes over its jobs at one of its checks after the lease.
        tokio::time::sleep(2 * LEASE + Duration::from_secs(1)).await;
        trial.signal("worker", Signal::Continue)?;
    }
    let taken = block_in_place(|| reclaimed(trial)).context("the second worker")?;
    ensure!(taken, "nothing was taken over from the frozen worker");
    Ok(())
}

/// Dispatch freezes for longer than leases last. Workers keep their leases and their reports.
async fn frozen_dispatch(trial: &mut Trial<'_>) -> Result<()> {
    trial.signal("dispatch", Signal::Stop)?;
    tokio::time::sleep(2 * LEASE + Duration::from_secs(1)).await;
    trial.signal("dispatch", Signal::Continue)
}

/// Whether an event arrived twice or an attempt was made by a second job, so that the freeze had an
/// effect.
fn reclaimed(trial: &Trial<'_>) -> Result<bool> {
    let receiver = &trial.scenario.receiver;
    Ok(receiver.counts("/steady").values().any(|count| *count > 1)
        || receiver.counts("/flaky").values().any(|count| *count > 2))
}
