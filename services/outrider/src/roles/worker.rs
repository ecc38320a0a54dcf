//! Wiring of `worker`.

use std::sync::Arc;

use anyhow::{Context, Result};
use outrider_model::Error;
use outrider_queue::Queue;
use outrider_rpc::{
    Dialer, RemoteDialer, Settlement, settlement::RemoteSettlement, tls::read_certificates,
};
use outrider_telemetry::essential;
use outrider_worker::{Options, StoreLookup, WireBounds, Worker};

use super::{
    Role,
    dispatch::Faces,
    foundation::channel,
    process::{Base, Stored},
};
use crate::config::Config;

/// The worker of this process, if it has the role.
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

/// Refuses certificates that are of no use, before anything is opened.
pub fn check(base: &Base) -> Result<()> {
    if !base.roles.has(Role::Worker) {
        return Ok(());
    }
    Ok(with_roots(&base.config)?
        .check_trust()
        .map_err(|error| of_the_file(error, &base.config.worker.extra_roots_file))?)
}

/// An error about certificates names the setting and the file that they are from.
fn of_the_file(error: Error, path: &str) -> Error {
    match error.violations.first() {
        Some(wrong) if wrong.field == "extra_roots" => {
            Error::field("worker.extra_roots_file", format!("{path}: {}", wrong.description))
        }
        _ => error,
    }
}

/// Jobs that a worker may have in hand: all that may be in the queue, and some that are settled but
/// not yet removed from it.
fn max_jobs(config: &Config) -> usize {
    let (configured, queue) = (config.worker.max_jobs, config.queue.jobs());
    let most = if configured == 0 { queue.saturating_add(queue / 4) } else { configured };
    most.max(config.worker.max_in_flight as usize)
}

/// How a worker behaves, with the certificates of its file.
fn with_roots(config: &Config) -> Result<Options> {
    let extra_roots = match config.worker.extra_roots_file.as_str() {
        "" => Vec::new(),
        path => read_certificates(path).context(
            "worker.extra_roots_file needs certificates in PEM, not DER, a private key or \
                a TRUSTED CERTIFICATE",
        )?,
    };
    Ok(Options { extra_roots, ..options(config) })
}

/// How a worker behaves, but for the certificates that it trusts.
pub fn options(config: &Config) -> Options {
    let jobs = max_jobs(config);
    let Config { queue, telemetry, worker: config, .. } = config;
    Options {
        max_in_flight: config.max_in_flight,
        max_jobs: jobs,
        initial_window: config.initial_window,
        slot_payload_bytes: config.slot_payload_bytes,
        window_memory: config.window_memory.0,
        payload_bytes: config.payload_bytes,
        payload_reads: config.payload_reads,
        unreported_bytes: config.unreported_bytes,
        // Lease and look together stay well below the minute in which everything is to be delivered
        // after a fault.
        reclaim_period: queue.lease.0 / 9,
        read_batch: config.read_batch,
        lease: queue.lease.0,
        response_kept_bytes: config.response_kept_bytes,
        response_read_bytes: config.response_read_bytes,
        response_head_bytes: config.response_head_bytes,
        wire: WireBounds {
            interim_answers: config.response_interim_answers,
            bytes: config.response_wire_bytes,
            reads: config.response_wire_reads,
        },
        pool_idle_per_host: config.pool_idle_per_host,
        pool_idle_total: config.pool_idle_total,
        pool_idle_timeout: config.pool_idle_timeout.0,
        pool_told_timeout: config.pool_told_timeout.0,
        drain: config.drain.0,
        propagate_trace: telemetry.propagate,
        ..Options::default()
    }
}
