//! Wiring of `worker`.

use std::sync::Arc;

use anyhow::{Context, Result};
use outrider_model::Error;
use outrider_queue::Queue;
use outrider_rpc::{
    Dialer, RemoteDialer, Settlement, settlement::RemoteSettlement, tls::read_certificates,
};
use outrider_telemetry::essential;
use outrider_worker::{Given, StoreLookup, Worker};

use super::{
    base::{Base, Stored},
    dispatch::Faces,
    foundation::channel,
    role::Role,
};
use crate::config::Config;

/// Starts the worker, if this process has the role.
pub async fn start(
    base: &mut Base,
    stored: &Stored,
    queue: &Arc<dyn Queue>,
    dispatch: Option<&Faces>,
) -> Result<()> {
    if !base.roles.has(Role::Worker) {
        return Ok(());
    }
    let config = &base.config.worker;
    let settlement: Arc<dyn Settlement> = match dispatch {
        Some(faces) => Arc::clone(&faces.settlement),
        None => Arc::new(RemoteSettlement::new(
            channel("worker.dispatch_url", &config.dispatch_url, base.tls.as_ref())?,
            base.token.clone(),
        )),
    };
    let dialer: Arc<dyn Dialer> = match &base.egress {
        Some(egress) => Arc::new(egress.clone()),
        None => {
            let dialer =
                RemoteDialer::new(&config.egress_address).context("worker.egress_address")?;
            Arc::new(dialer.with_token(base.token.clone()).with_tls(base.tls.clone()))
        }
    };
    let lookup = StoreLookup::new(
        stored.directory.clone(),
        stored.store.ledger(),
        stored.store.clock().clone(),
    );
    let worker = Worker::new(
        base.config.worker.clone(),
        with_roots(&base.config)?,
        Arc::clone(queue),
        Arc::new(lookup),
        dialer,
        settlement,
    )
    .context("the worker does not start")?;
    let shutdown = base.stages.work.clone();
    base.tasks.work.push(tokio::spawn(essential("worker", worker.run(shutdown))));
    Ok(())
}

/// Refuses unusable certificates before anything is opened.
pub fn check(base: &Base) -> Result<()> {
    if !base.roles.has(Role::Worker) {
        return Ok(());
    }
    Ok(with_roots(&base.config)?
        .check_trust()
        .map_err(|error| of_the_file(error, &base.config.worker.extra_roots_file))?)
}

/// Adds the setting and the file to an error about certificates.
fn of_the_file(error: Error, path: &str) -> Error {
    match error.violations.first() {
        Some(wrong) if wrong.field == "extra_roots" => {
            Error::field("worker.extra_roots_file", format!("{path}: {}", wrong.description))
        }
        _ => error,
    }
}

/// Returns what the worker is given besides its settings, including the certificates in its file.
fn with_roots(config: &Config) -> Result<Given> {
    let extra_roots = match config.worker.extra_roots_file.as_str() {
        "" => Vec::new(),
        path => read_certificates(path).context(
            "worker.extra_roots_file needs certificates in PEM, \
             not DER, a private key or a TRUSTED CERTIFICATE",
        )?,
    };
    Ok(Given { extra_roots, ..given(config) })
}

/// Returns what the worker is given besides its settings, without the certificates that it trusts.
pub fn given(config: &Config) -> Given {
    let Config { queue, telemetry, .. } = config;
    Given {
        lease: queue.lease,
        queue_jobs: queue.jobs(),
        propagate_trace: telemetry.propagate,
        ..Given::default()
    }
}
