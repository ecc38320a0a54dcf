//! Wiring of `ingest`.

use std::sync::Arc;

use anyhow::Result;
use outrider_ingest::{Ingest, Options, StreamOptions};
use outrider_rpc::{
    Intake,
    intake::RemoteIntake,
    server::{Backend, guarded},
};
use tonic::service::Routes;

use super::{
    Role,
    dispatch::Faces,
    foundation::channel,
    process::{Base, Stage, Stored, serve_internal, with_internal},
};
use crate::config::Config;

/// Ingest in this process, if it has the role.
pub async fn start(
    base: &mut Base,
    stored: &Stored,
    dispatch: Option<&Faces>,
) -> Result<Option<Backend>> {
    if !base.roles.has(Role::Ingest) {
        return Ok(None);
    }
    let config = &base.config.ingest;
    let intake: Arc<dyn Intake> = match dispatch {
        Some(faces) => Arc::clone(&faces.intake),
        None => Arc::new(RemoteIntake::new(
            channel("ingest.dispatch_url", &config.dispatch_url, base.tls.as_ref())?,
            base.token.clone(),
        )),
    };
    let shutdown = base.stages.intake.clone();
    let ingest = Ingest::new(
        options(&base.config),
        stored.directory.clone(),
        stored.store.clock().clone(),
        intake,
        shutdown,
    );
    let service = guarded(ingest.routes(), stored.keys());
    let address = config.listen.clone();
    let listening = with_internal(base, stored, service.clone(), Routes::default());
    serve_internal(base, "ingest.listen", &address, listening, Stage::Intake).await?;
    Ok(Some(service))
}

/// How ingest behaves.
pub fn options(config: &Config) -> Options {
    let Config { gateway, ingest: config, .. } = config;
    Options {
        max_payload_bytes: config.max_payload_bytes,
        max_batch_bytes: config.max_batch_bytes,
        max_request_bytes: gateway.max_request_bytes,
        large_bytes: config.large_bytes,
        large_requests: config.large_requests,
        large_requests_waiting: config.large_requests_waiting,
        validation_steps: config.validation_steps,
        long_validations: config.long_validations,
        schema_cache_bytes: config.schema_cache_bytes,
        stream: StreamOptions {
            max_streams: config.max_streams,
            window_events: config.stream_window_events,
            window_bytes: config.stream_window_bytes,
            buffer_bytes: config.stream_buffer_bytes,
            idle_timeout: config.stream_idle_timeout.0,
            ..StreamOptions::default()
        },
    }
}
