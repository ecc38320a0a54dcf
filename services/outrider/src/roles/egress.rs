//! Wiring of `egress`.

use anyhow::{Context, Result};
use outrider_egress::{Egress, Given, Options};
use outrider_telemetry::essential;

use super::{base::Base, role::Role};

/// Starts the egress, if this process has the role. Its proxy listens if roles are in other
/// processes.
pub async fn start(base: &mut Base) -> Result<()> {
    if !base.roles.has(Role::Egress) {
        return Ok(());
    }
    let given =
        Given { policy: base.policy.clone(), token: base.token.clone(), tls: base.tls.clone() };
    let egress =
        Egress::new(base.config.egress.clone(), given).context("the egress does not start")?;
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

/// Returns an egress that decides like that of a server with these settings, and does not listen.
pub fn examiner(options: &Options) -> Result<Egress> {
    Egress::new(options.clone(), options.policy().into()).context("the egress does not start")
}
