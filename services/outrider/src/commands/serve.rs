//! `outrider serve`.

use anyhow::Result;
use clap::Args;
use outrider_model::text::joined;

use super::configuration::Configuration;
use crate::{
    client::Failure,
    roles::{self, Role, Roles},
    shutdown, telemetry,
};

#[derive(Debug, Args)]
pub struct Serve {
    #[command(flatten)]
    pub configuration: Configuration,
    /// The roles of this process; can be repeated. `all` cannot be combined.
    #[arg(long = "role", value_enum, default_values_t = [Role::All])]
    pub roles: Vec<Role>,
}

/// Runs roles until SIGTERM or SIGINT, and then shuts down in order.
pub async fn run(options: Serve) -> Result<(), Failure> {
    let roles = Roles::named(&options.roles).map_err(|why| Failure::Usage(why.into()))?;
    Ok(serve(options, roles).await?)
}

async fn serve(options: Serve, roles: Roles) -> Result<()> {
    // First of all, so that the signal never ends the process.
    let prompted = shutdown::reload_requests()?;
    let Serve { configuration, roles: named } = options;
    let sources = configuration.sources();
    let config = sources.load()?;
    let telemetry = telemetry::start(&config)?;
    let process = roles::start(config, roles).await?;
    process.follow(sources, prompted);
    let names: Vec<&str> = named.iter().map(|role| role.name()).collect();
    let public = process.public.map(tracing::field::display);
    tracing::info!(roles = %joined(&names), public, "serving");
    shutdown::requested().await?;
    tracing::info!("ending: no new work is taken, what is under way is finished or given back");
    process.stop().await;
    tracing::info!("ended");
    telemetry.stop().await;
    Ok(())
}
