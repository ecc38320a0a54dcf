//! TLS of a process: between roles, and on the public listener.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use outrider_rpc::{Acceptor, Tls, TlsFiles, tls::Protocol};
use outrider_telemetry::essential;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::MissedTickBehavior,
};
use tokio_util::sync::CancellationToken;

use crate::config::Internal;

/// TLS files, and how they are used.
#[derive(Debug, PartialEq, Eq)]
pub struct TlsOptions {
    files: TlsFiles,
    /// How often they are checked.
    reload_interval: Duration,
}

/// Returns the options of TLS between roles, if it is configured.
pub fn internal_options(config: &Internal) -> Option<TlsOptions> {
    let files = TlsFiles {
        certificate: (&config.tls_certificate_file).into(),
        private_key: (&config.tls_private_key_file).into(),
        authorities: Some((&config.tls_ca_file).into()),
    };
    let options = TlsOptions { files, reload_interval: config.tls_reload_interval };
    (!config.tls_certificate_file.is_empty()).then_some(options)
}

/// Returns the options of TLS on the public listener, if it is configured, and the handshake
/// timeout.
pub fn public_options(config: &outrider_gateway::Options) -> Option<(TlsOptions, Duration)> {
    let files = TlsFiles {
        certificate: (&config.tls_certificate_file).into(),
        private_key: (&config.tls_private_key_file).into(),
        authorities: None,
    };
    let options = TlsOptions { files, reload_interval: config.tls_reload_interval };
    (!config.tls_certificate_file.is_empty()).then_some((options, config.tls_handshake_timeout))
}

/// Returns mutual TLS between roles, if it is configured. It is kept fresh until `shutdown`.
pub fn between_roles(config: &Internal, shutdown: &CancellationToken) -> Result<Option<Arc<Tls>>> {
    let Some(options) = internal_options(config) else { return Ok(None) };
    let tls = Tls::load(options.files).context("internal.tls_certificate_file")?;
    keep_fresh(Arc::clone(&tls), options.reload_interval, shutdown)?;
    Ok(Some(tls))
}

/// Returns the acceptor of the public listener. Its certificate is kept fresh until `shutdown`.
pub fn public(
    config: &outrider_gateway::Options,
    shutdown: &CancellationToken,
) -> Result<Acceptor> {
    let Some((options, handshake_timeout)) = public_options(config) else {
        return Ok(Acceptor::plain());
    };
    let tls = Tls::load(options.files).context("gateway.tls_certificate_file")?;
    keep_fresh(Arc::clone(&tls), options.reload_interval, shutdown)?;
    Ok(Acceptor::new(tls, Protocol::Web, handshake_timeout))
}

/// Reads the files again once per period and at SIGHUP.
fn keep_fresh(tls: Arc<Tls>, period: Duration, shutdown: &CancellationToken) -> Result<()> {
    let mut prompted = signal(SignalKind::hangup()).context("SIGHUP cannot be awaited")?;
    let shutdown = shutdown.clone();
    tokio::spawn(essential("certificates", async move {
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => {}
                _ = prompted.recv() => {}
            }
            let tls = Arc::clone(&tls);
            if let Err(error) = tokio::task::spawn_blocking(move || tls.refresh()).await {
                tracing::error!(%error, "certificates are not read again");
            }
        }
    }));
    Ok(())
}
