//! `outrider serve`.

use anyhow::Result;
use outrider_model::text::joined;

use crate::{
    cli::Serve,
    client::Failure,
    config::Sources,
    roles::{self, Roles},
    shutdown, telemetry,
};

/// Runs roles until SIGTERM or SIGINT, then ends in order.
pub async fn run(options: Serve) -> Result<(), Failure> {
    let roles = Roles::named(&options.roles).map_err(|why| Failure::Usage(why.into()))?;
    Ok(serve(options, roles).await?)
}

async fn serve(options: Serve, roles: Roles) -> Result<()> {
    // First of all, so that at no moment it ends the process.
    let prompted = shutdown::reload_requests()?;
    let sources =
        Sources::with_environment(options.configuration.config, options.configuration.set);
    let config = sources.load()?;
    let telemetry = telemetry::start(&config)?;
    let process = roles::start(config, roles).await?;
    process.follow(sources, prompted);
    let names: Vec<&str> = options.roles.iter().map(|role| role.name()).collect();
    let public = process.public.map(tracing::field::display);
    tracing::info!(roles = %joined(&names), public, "serving");
    shutdown::requested().await?;
    tracing::info!("ending: no new work is taken, what is under way is finished or given back");
    process.stop().await;
    tracing::info!("ended");
    telemetry.stop().await;
    Ok(())
}
