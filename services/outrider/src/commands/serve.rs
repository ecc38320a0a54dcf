//! `outrider serve`.

use anyhow::Result;

use super::load;
use crate::{
    cli::Serve,
    roles::{self, Roles},
    shutdown, telemetry,
};

/// Runs roles until SIGTERM or SIGINT, then ends in order.
pub async fn run(options: Serve) -> Result<()> {
    let config = load(options.configuration)?;
    let telemetry = telemetry::start(&config)?;
    let roles = Roles::new(&options.roles);
    let process = roles::start(config, roles).await?;
    tracing::info!(roles = ?options.roles, public = ?process.public, "serving");
    shutdown::requested().await?;
    tracing::info!("ending: no new work is taken, what is under way is finished or given back");
    process.stop().await;
    tracing::info!("ended");
    telemetry.stop().await;
    Ok(())
}
