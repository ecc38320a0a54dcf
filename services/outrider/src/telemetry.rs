//! Logs, spans and the process's own metrics, as configured.

use anyhow::Result;
use outrider_telemetry::{Telemetry, expose_process};

use crate::config::Config;

/// The commit that was built, if the build knew it.
const COMMIT: Option<&str> = option_env!("OUTRIDER_COMMIT");

/// Starts what a process reports about itself. Logs contain ids, never payloads or secrets.
pub fn start(config: &Config) -> Result<Telemetry> {
    let telemetry = Telemetry::start(&config.log, &config.telemetry)?;
    expose_process(env!("CARGO_PKG_VERSION"), COMMIT.filter(|commit| !commit.is_empty()));
    Ok(telemetry)
}
