//! Wiring of `egress`.

use std::sync::Arc;

use anyhow::{Context, Result};
use outrider_egress::{Egress, Options};
use outrider_rpc::Dialer;

use super::{
    Role,
    process::{Base, listen},
};

/// The egress of this process, if it has the role; its proxy listens when other processes need it.
pub async fn start(base: &mut Base) -> Result<Option<Arc<dyn Dialer>>> {
    if !base.roles.has(Role::Egress) {
        return Ok(None);
    }
    let egress = Egress::new(options(base)?).context("the egress does not start")?;
    if !base.roles.is_all() {
        let listener = listen("egress.listen", &base.config.egress.listen).await?;
        let (proxy, shutdown) = (egress.clone(), base.stages.foundation.clone());
        base.tasks.foundation.push(tokio::spawn(async move {
            if let Err(error) = proxy.serve(listener, shutdown.cancelled_owned()).await {
                tracing::error!(%error, "the egress proxy ended");
            }
        }));
    }
    Ok(Some(Arc::new(egress)))
}

fn options(base: &Base) -> Result<Options> {
    let config = &base.config.egress;
    let source_address = match config.source_address.as_str() {
        "" => None,
        text => Some(text.parse().context("egress.source_address is not an IP address")?),
    };
    Ok(Options {
        allow_loopback: config.allow_loopback,
        max_tunnels: config.max_tunnels,
        dns_timeout: config.dns_timeout.0,
        connect_timeout: config.connect_timeout.0,
        source_address,
        ..Options::default()
    })
}
