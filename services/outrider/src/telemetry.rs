//! Starts logs, spans and the metrics of the process, as configured.

use anyhow::Result;
use outrider_telemetry::{Telemetry, expose_process};

use crate::config::Config;

/// The commit of the build, if it is known.
const COMMIT: Option<&str> = option_env!("OUTRIDER_COMMIT");

/// Starts the telemetry of a process. Logs contain ids, never payloads or secrets.
pub fn start(config: &Config) -> Result<Telemetry> {
    let telemetry = Telemetry::start(&config.log, &config.telemetry)?;
    expose_process(env!("CARGO_PKG_VERSION"), COMMIT.filter(|commit| !commit.is_empty()));
    Ok(telemetry)
}
