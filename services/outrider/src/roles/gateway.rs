//! Wiring of `gateway`.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context, Result};
use outrider_gateway::{Backends, Gateway, Given, Options, remote_backend};
use outrider_rpc::{Authenticate, RememberedKeys, RemoteKeys, server::Backend};
use outrider_telemetry::essential;

use super::{
    base::Base,
    foundation::{channel, streams},
    messages::Messages,
    role::Role,
    tls,
};
use crate::config::Config;

/// What a gateway uses in its own process.
pub struct Here {
    /// Resolves API keys: in this process, or by asking roles in other processes.
    pub keys: Arc<dyn Authenticate>,
    pub ingest: Option<Backend>,
    pub dispatch: Option<Backend>,
    pub admin: Option<Backend>,
}

/// Starts the gateway, if this process has the role. Returns its address.
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
    let gateway = Gateway::new(options(&base.config), given(&base.config), backends, here.keys)
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

/// Returns the settings of the gateway.
pub fn options(config: &Config) -> Options {
    let Config { gateway, ingest, .. } = config;
    Options {
        // Ingest must accept the events of one call of an upload.
        upload_batch_bytes: gateway.upload_batch_bytes.min(ingest.max_batch_bytes),
        ..gateway.clone()
    }
}

/// Returns what the gateway is given besides its settings.
pub fn given(config: &Config) -> Given {
    Given { max_answer_bytes: Messages::of(config).answers, ..Given::default() }
}

/// Returns a resolver that asks the roles that read API keys in other processes, in this order.
/// Roles that are away are probed until the shutdown.
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

/// Returns a resolver that remembers answers.
pub fn remembered(base: &Base, keys: Arc<RemoteKeys>) -> Arc<dyn Authenticate> {
    RememberedKeys::new(keys, &base.config.gateway.key_cache())
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
