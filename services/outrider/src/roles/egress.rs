//! Wiring of `egress`.

use anyhow::{Context, Result};
use outrider_egress::{Egress, Options};
use outrider_model::address::Policy;
use outrider_telemetry::essential;

use super::{Role, process::Base};
use crate::config::{self, Config};

/// The egress of this process, if it has the role; its proxy listens when other processes need it.
pub async fn start(base: &mut Base) -> Result<()> {
    if !base.roles.has(Role::Egress) {
        return Ok(());
    }
    let options = Options {
        policy: base.policy.clone(),
        token: base.token.clone(),
        tls: base.tls.clone(),
        ..options(&base.config)?
    };
    let egress = Egress::new(options).context("the egress does not start")?;
    base.egress = Some(egress.clone());
    if !base.roles.is_all() {
        let listener = base.listen("egress.listen", &base.config.egress.listen).await?;
        let shutdown = base.stages.foundation.clone();
        base.tasks.foundation.push(tokio::spawn(essential("egress", async move {
            if let Err(error) = egress.serve(listener, shutdown.cancelled_owned()).await {
                tracing::error!(%error, "the egress proxy ended");
            }
        })));
    }
    Ok(())
}

/// Which destinations the configuration permits.
pub fn policy(config: &config::Egress) -> Policy {
    Policy {
        allow_loopback: config.allow_loopback,
        allowed_ports: config.allowed_ports.iter().map(|port| port.0).collect(),
        allow: config.allow.iter().map(|target| target.0.clone()).collect(),
        deny: config.deny.iter().map(|target| target.0.clone()).collect(),
    }
}

/// An egress that judges as that of a server with this configuration does. It serves nobody.
pub fn examiner(config: &Config) -> Result<Egress> {
    let Config { egress: config, .. } = config;
    Egress::new(Options {
        policy: policy(config).into(),
        max_name_addresses: config.max_name_addresses,
        dns_timeout: config.dns_timeout.0,
        ..Options::default()
    })
    .context("the egress does not start")
}

/// How the egress behaves.
pub fn options(config: &Config) -> Result<Options> {
    let config = &config.egress;
    let source_address = match config.source_address.as_str() {
        "" => None,
        text => Some(text.parse().context("egress.source_address is not an IP address")?),
    };
    Ok(Options {
        policy: policy(config).into(),
        max_tunnels: config.max_tunnels,
        max_name_addresses: config.max_name_addresses,
        dns_timeout: config.dns_timeout.0,
        connect_timeout: config.connect_timeout.0,
        source_address,
        ..Options::default()
    })
}
