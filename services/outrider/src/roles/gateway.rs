//! Wiring of `gateway`.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use outrider_gateway::{Backends, Gateway, Options, remote_backend};
use outrider_rpc::server::Backend;
use outrider_telemetry::essential;

use super::{
    Role,
    foundation::{channel, streams},
    process::Base,
    tls,
};

/// The gateway of this process, if it has the role; where it listens.
pub async fn start(
    base: &mut Base,
    ingest: Option<Backend>,
    dispatch: Option<Backend>,
    admin: Option<Backend>,
) -> Result<Option<SocketAddr>> {
    if !base.roles.has(Role::Gateway) {
        return Ok(None);
    }
    let config = &base.config.gateway;
    let backends = Backends {
        ingest: here_or(ingest, "gateway.ingest_url", &config.ingest_url, base)?,
        dispatch: here_or(dispatch, "gateway.dispatch_url", &config.dispatch_url, base)?,
        admin: here_or(admin, "gateway.admin_url", &config.admin_url, base)?,
    };
    let options = Options {
        max_request_bytes: config.max_request_bytes,
        max_buffered_bytes: config.max_buffered_bytes,
        max_unsent_bytes: config.max_unsent_bytes,
        request_timeout: config.request_timeout.0,
        max_connections: config.max_connections,
        max_header_bytes: config.max_header_bytes,
        max_headers: config.max_headers,
        max_uri_bytes: config.max_uri_bytes,
        header_read_timeout: config.header_read_timeout.0,
        min_body_rate: config.min_body_rate,
        idle_timeout: config.idle_timeout.0,
        keep_alive_interval: config.keep_alive_interval.0,
        keep_alive_timeout: config.keep_alive_timeout.0,
        max_concurrent_streams: config.max_concurrent_streams,
        max_pending_resets: config.max_pending_resets,
        max_error_resets: config.max_error_resets,
        max_abandoned_requests: config.max_abandoned_requests,
        drain: config.drain.0,
        cors_origins: config.cors_origins.clone(),
        reflection: config.reflection,
        max_uploads: config.max_uploads,
        upload_idle_timeout: config.upload_idle_timeout.0,
        // What one call of an upload takes must be what ingest takes in one batch.
        upload_batch_bytes: Options::default().upload_batch_bytes.min(base.config.ingest.max_batch_bytes),
        ..Options::default()
    };
    let acceptor = tls::public(config, &base.stages.foundation)?;
    let gateway = Gateway::new(options, backends).context("gateway")?.with_acceptor(acceptor);
    let listener = base.listen("gateway.listen", &config.listen).await?;
    let address = listener.local_addr()?;
    let shutdown = base.stages.intake.clone();
    base.tasks
        .intake
        .push(tokio::spawn(essential("gateway", async move { gateway.serve(listener, shutdown.cancelled_owned()).await })));
    Ok(Some(address))
}

fn here_or(local: Option<Backend>, key: &'static str, url: &str, base: &Base) -> Result<Backend> {
    match local {
        Some(backend) => Ok(backend),
        None => {
            let tls = base.tls.as_ref();
            Ok(remote_backend(channel(key, url, tls)?, streams(key, url, tls)?))
        }
    }
}
