//! Ending in order: first what takes work in, then what works, then what the others need.

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The stages of an orderly end, each cancelled when the one before is done.
#[derive(Debug, Clone, Default)]
pub struct Stages {
    /// The public listener and those of ingest and admin.
    pub intake: CancellationToken,
    /// Workers.
    pub work: CancellationToken,
    /// Dispatch, egress and what keeps caches fresh.
    pub foundation: CancellationToken,
}

/// Returns at SIGTERM or SIGINT.
pub async fn requested() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be awaited")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be awaited")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
