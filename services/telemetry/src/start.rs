//! Starts and stops logs and spans in a process.

use std::io::IsTerminal as _;

use opentelemetry::{KeyValue, trace::TracerProvider as _};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithTonicConfig as _};
use opentelemetry_sdk::{
    Resource,
    trace::{Sampler, SdkTracerProvider, SpanExporter as _},
};
use tonic::transport::{ClientTlsConfig, Endpoint};
use tracing::Level;
use tracing_subscriber::{
    Layer, filter::Targets, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use crate::{
    ExportOptions, LogOptions, catalog, collector_headers, export, filter,
    hop::{self, TARGET},
    metrics,
};

/// Why telemetry does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The filter of the log is invalid.
    #[error("log.level is not a filter: {0}")]
    Filter(String),
    /// The address of the collector is invalid.
    #[error("telemetry.otlp_endpoint cannot be used: {0}")]
    Endpoint(String),
    /// A variable of the exporter contains an entry that it would skip.
    #[error("{0}")]
    Headers(String),
    /// Telemetry was started before.
    #[error("telemetry is started once in a process: {0}")]
    Twice(String),
}

/// Running telemetry. Must be stopped at the end, or the last spans are lost.
#[derive(Debug)]
#[must_use = "the last spans are lost unless it is stopped"]
pub struct Telemetry {
    export: Option<(SdkTracerProvider, export::Running)>,
}

impl Telemetry {
    /// Starts the log on standard error, and the export of spans. Must be called once, on a tokio
    /// runtime.
    pub fn start(log: &LogOptions, export: &ExportOptions) -> Result<Self, StartError> {
        metrics::expose(&catalog::telemetry::SECTION);
        for result in ["exported", "dropped", "failed"] {
            catalog::telemetry::SPANS.with_label_values(&[result]);
        }
        // Spans are for the collector. A log that followed them would report each twice.
        let filter = filter::parse(&log.level).map_err(StartError::Filter)?;
        let hidden =
            format!("{TARGET}=off").parse().map_err(|_| StartError::Filter(TARGET.to_owned()))?;
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal());
        let lines = if log.format == "json" {
            lines.json().flatten_event(true).boxed()
        } else {
            lines.boxed()
        };
        let running = match export.otlp_endpoint.as_str() {
            "" => None,
            _ => Some(exporting(export)?),
        };
        let spans = running.as_ref().map(|(provider, _)| {
            tracing_opentelemetry::layer()
                .with_tracer(provider.tracer("outrider"))
                .with_location(false)
                .with_threads(false)
                .with_target(false)
                .with_level(false)
                .with_tracked_inactivity(false)
                .with_context_activation(false)
                .with_filter(Targets::new().with_target(TARGET, Level::INFO))
        });
        tracing_subscriber::registry()
            .with(lines.with_filter(filter.add_directive(hidden)))
            .with(spans)
            .try_init()
            .map_err(|error| StartError::Twice(error.to_string()))?;
        if running.is_some() {
            hop::begin_exporting(export.sample_ratio);
        }
        Ok(Self { export: running })
    }

    /// Exports the ended spans, for at most the time of two exports.
    pub async fn stop(self) {
        if let Some((provider, running)) = self.export {
            running.stop().await;
            drop(provider);
        }
    }
}

/// Prints warnings on standard error in the style of a command: a line each, without time and
/// target. Must be called once.
pub fn tell_warnings() -> Result<(), StartError> {
    let log = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .without_time()
        .with_target(false);
    let log = log.with_filter(filter::parse("warn").map_err(StartError::Filter)?);
    tracing_subscriber::registry()
        .with(log)
        .try_init()
        .map_err(|error| StartError::Twice(error.to_string()))
}

fn exporting(options: &ExportOptions) -> Result<(SdkTracerProvider, export::Running), StartError> {
    collector_headers::check(|name| std::env::var_os(name)).map_err(StartError::Headers)?;
    let wrong = |error: &dyn std::error::Error| {
        StartError::Endpoint(error.source().map_or_else(|| error.to_string(), ToString::to_string))
    };
    let mut endpoint =
        Endpoint::from_shared(options.otlp_endpoint.clone()).map_err(|error| wrong(&error))?;
    if options.otlp_endpoint.starts_with("https:") {
        endpoint = endpoint
            .tls_config(ClientTlsConfig::new().with_webpki_roots())
            .map_err(|error| wrong(&error))?;
    }
    let channel = endpoint.connect_timeout(options.otlp_timeout).connect_lazy();
    let mut exporter = SpanExporter::builder()
        .with_tonic()
        .with_channel(channel)
        .with_timeout(options.otlp_timeout)
        .build()
        .map_err(|error| wrong(&error))?;
    let attributes =
        options.resource().map(|(name, value)| KeyValue::new(name.to_owned(), value.to_owned()));
    let resource = Resource::builder()
        .with_service_name(options.service_name.clone())
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attribute(KeyValue::new("process.pid", i64::from(std::process::id())))
        .with_attributes(attributes)
        .build();
    exporter.set_resource(&resource);
    let bounds = export::Bounds {
        queue: options.export_queue.max(1),
        batch: options.export_batch.max(1),
        period: options.export_period,
        timeout: options.otlp_timeout,
    };
    let (queue, running) = export::start(exporter, bounds);
    let provider = SdkTracerProvider::builder()
        .with_span_processor(queue)
        // Sampling is decided before the first span of a trace is created. See `Hop`.
        .with_sampler(Sampler::AlwaysOn)
        .with_resource(resource)
        .build();
    Ok((provider, running))
}
