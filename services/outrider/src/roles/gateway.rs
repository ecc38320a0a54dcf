//! Wiring of `gateway`.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use outrider_gateway::{Backends, Gateway, Options, remote_backend};
use outrider_rpc::server::Backend;

use super::{
    Role,
    foundation::{channel, long_streams},
    process::Base,
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
        ingest: here_or(ingest, "gateway.ingest_url", &config.ingest_url)?,
        dispatch: here_or(dispatch, "gateway.dispatch_url", &config.dispatch_url)?,
        admin: here_or(admin, "gateway.admin_url", &config.admin_url)?,
    };
    let options = Options {
        max_request_bytes: config.max_request_bytes,
        request_timeout: config.request_timeout.0,
        max_connections: config.max_connections,
        drain: config.drain.0,
        cors_origins: config.cors_origins.clone(),
        reflection: config.reflection,
        ..Options::default()
    };
    let gateway = Gateway::new(options, backends).context("gateway")?;
    let listener = base.listen("gateway.listen", &config.listen).await?;
    let address = listener.local_addr()?;
    let shutdown = base.stages.intake.clone();
    base.tasks.intake.push(tokio::spawn(async move { gateway.serve(listener, shutdown.cancelled_owned()).await }));
    Ok(Some(address))
}

fn here_or(local: Option<Backend>, key: &'static str, url: &str) -> Result<Backend> {
    match local {
        Some(backend) => Ok(backend),
        None => Ok(remote_backend(channel(key, url)?, long_streams(key, url)?)),
    }
}
