//! Wiring of `gateway`.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context, Result};
use outrider_gateway::{Backends, Gateway, Options, remote_backend};
use outrider_rpc::{Authenticate, KeyCacheOptions, RememberedKeys, RemoteKeys, server::Backend};
use outrider_telemetry::essential;

use super::{
    Role,
    foundation::{channel, streams},
    messages::Messages,
    process::Base,
    tls,
};
use crate::config::Config;

/// What a gateway finds in its own process.
pub struct Here {
    /// API keys, by a role that reads them or by others that are asked.
    pub keys: Arc<dyn Authenticate>,
    pub ingest: Option<Backend>,
    pub dispatch: Option<Backend>,
    pub admin: Option<Backend>,
}

/// The gateway of this process, if it has the role; where it listens.
pub async fn start(base: &mut Base, here: Here) -> Result<Option<SocketAddr>> {
    if !base.roles.has(Role::Gateway) {
        return Ok(None);
    }
    let config = &base.config.gateway;
    let backends = Backends {
        ingest: here_or(here.ingest, "gateway.ingest_url", &config.ingest_url, base)?,
        dispatch: here_or(here.dispatch, "gateway.dispatch_url", &config.dispatch_url, base)?,
        admin: here_or(here.admin, "gateway.admin_url", &config.admin_url, base)?,
    };
    let acceptor = tls::public(config, &base.stages.foundation)?;
    let gateway = Gateway::new(options(&base.config), backends, here.keys)
        .context("gateway")?
        .with_acceptor(acceptor);
    let listener = base.listen("gateway.listen", &config.listen).await?;
    let address = listener.local_addr()?;
    let shutdown = base.stages.intake.clone();
    base.tasks.intake.push(tokio::spawn(essential("gateway", async move {
        gateway.serve(listener, shutdown.cancelled_owned()).await
    })));
    Ok(Some(address))
}

/// How the gateway behaves.
pub fn options(config: &Config) -> Options {
    let max_answer_bytes = Messages::of(config).answers;
    let Config { gateway: config, ingest, .. } = config;
    Options {
        max_request_bytes: config.max_request_bytes,
        max_answer_bytes,
        max_buffered_bytes: config.max_buffered_bytes,
        max_decoded_bytes: config.max_decoded_bytes,
        decode_apart_bytes: config.decode_apart_bytes,
        max_decodings: config.max_decodings,
        max_unsent_bytes: config.max_unsent_bytes,
        request_timeout: config.request_timeout.0,
        max_connections: config.max_connections,
        reserved_connections: config.reserved_connections,
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
        upload_batch_bytes: Options::default().upload_batch_bytes.min(ingest.max_batch_bytes),
        ..Options::default()
    }
}

/// How answers about API keys are remembered.
pub fn key_cache(config: &Config) -> KeyCacheOptions {
    let config = &config.gateway;
    KeyCacheOptions {
        lifetime: config.key_lifetime.0,
        valid: config.max_valid_keys,
        invalid: config.max_invalid_keys,
        questions: config.key_questions,
    }
}

/// API keys by the roles that read them, in this order; where these are elsewhere. Those that are
/// away are looked for until the end.
pub fn remote_keys(base: &mut Base) -> Result<Arc<RemoteKeys>> {
    let (config, tls) = (&base.config.gateway, base.tls.as_ref());
    let roles = [
        channel("gateway.ingest_url", &config.ingest_url, tls)?,
        channel("gateway.admin_url", &config.admin_url, tls)?,
        channel("gateway.dispatch_url", &config.dispatch_url, tls)?,
    ];
    let keys = Arc::new(RemoteKeys::new(roles, base.token.clone()));
    let (probing, shutdown) = (Arc::clone(&keys), base.stages.foundation.clone());
    base.tasks.foundation.push(tokio::spawn(essential("keys", async move {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = probing.run() => {}
        }
    })));
    Ok(keys)
}

/// The same, with the answers remembered.
pub fn remembered(base: &Base, keys: Arc<RemoteKeys>) -> Arc<dyn Authenticate> {
    RememberedKeys::new(keys, &key_cache(&base.config))
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
