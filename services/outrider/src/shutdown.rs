//! Shuts down in order: first the parts that accept work, then the parts that do it, then the parts
//! that both need.

use anyhow::{Context, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The stages of a shutdown. Each is cancelled when the previous one has ended.
#[derive(Debug, Clone, Default)]
pub struct Stages {
    /// The public listener, and the listeners of ingest and admin.
    pub intake: CancellationToken,
    /// Workers.
    pub work: CancellationToken,
    /// Dispatch, egress, and the tasks that keep caches fresh.
    pub foundation: CancellationToken,
}

/// Listens for SIGHUP. From now on, the signal does not end this process, even if nothing awaits
/// it.
pub fn reload_requests() -> Result<Signal> {
    signal(SignalKind::hangup()).context("SIGHUP cannot be awaited")
}

/// Returns at SIGTERM, SIGINT or SIGHUP, which is sent when the terminal of this process is closed.
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
