//! Logs, spans and the process's own metrics, as configured.

use anyhow::Result;
use outrider_telemetry::{ExportOptions, LogOptions, Options, Telemetry, expose_process};

use crate::config::{self, Config};

/// The commit that was built, if the build knew it.
const COMMIT: Option<&str> = option_env!("OUTRIDER_COMMIT");

/// Starts what a process tells of itself. Logs hold ids, never payloads or secrets.
pub fn start(config: &Config) -> Result<Telemetry> {
    let telemetry = Telemetry::start(&options(config))?;
    expose_process(env!("CARGO_PKG_VERSION"), COMMIT.filter(|commit| !commit.is_empty()));
    Ok(telemetry)
}

/// What is logged, and where spans go.
pub fn options(config: &Config) -> Options {
    let log = LogOptions { json: config.log.format == "json", filter: config.log.level.clone() };
    Options { log, export: export(&config.telemetry) }
}

fn export(config: &config::Telemetry) -> Option<ExportOptions> {
    if config.otlp_endpoint.is_empty() {
        return None;
    }
    let attribute = |text: &String| {
        text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()))
    };
    Some(ExportOptions {
        endpoint: config.otlp_endpoint.clone(),
        timeout: config.otlp_timeout.0,
        sample_ratio: config.sample_ratio,
        service_name: config.service_name.clone(),
        resource: config.resource_attributes.iter().filter_map(attribute).collect(),
        queue: config.export_queue,
        batch: config.export_batch,
        period: config.export_period.0,
    })
}
