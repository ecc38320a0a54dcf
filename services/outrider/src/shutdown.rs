//! Ending in order: first what takes work in, then what works, then what the others need.

use anyhow::{Context, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};
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

/// SIGHUP, which from now on does not end this process any more, whether anybody listens or not.
pub fn reload_requests() -> Result<Signal> {
    signal(SignalKind::hangup()).context("SIGHUP cannot be awaited")
}

/// Returns at SIGTERM, SIGINT, or SIGHUP: the terminal was closed in which this process runs.
pub async fn requested_on_terminal() -> Result<()> {
    let mut closed = reload_requests()?;
    tokio::select! {
        outcome = requested() => outcome,
        _ = closed.recv() => Ok(()),
    }
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
