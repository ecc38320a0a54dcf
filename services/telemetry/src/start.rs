//! The start of logs and spans in a process, and their end.

use std::{io::IsTerminal as _, time::Duration};

use opentelemetry::{KeyValue, trace::TracerProvider as _};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithTonicConfig as _};
use opentelemetry_sdk::{
    Resource,
    trace::{Sampler, SdkTracerProvider, SpanExporter as _},
};
use tonic::transport::{ClientTlsConfig, Endpoint};
use tracing::Level;
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::{LevelFilter, Targets},
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

use crate::{
    catalogue, collector_headers, export,
    hop::{self, TARGET},
    metrics,
};

/// What is logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogOptions {
    /// Whether lines are JSON. Default false.
    pub json: bool,
    /// A filter such as `info` or `info,outrider_worker=debug`. Default `info`. Of the HTTP/2
    /// library only errors are logged, unless the filter names it (`h2=warn`).
    pub filter: String,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { json: false, filter: "info".to_owned() }
    }
}

/// Where spans go.
#[derive(Debug, Clone, PartialEq)]
pub struct ExportOptions {
    /// The collector (OTLP over gRPC), as `http://HOST:PORT` or `https://HOST:PORT`. No default.
    pub endpoint: String,
    /// How long one export may take, connecting included. Default 10 s.
    pub timeout: Duration,
    /// The share of the traces begun here that are recorded, 0 to 1; those begun by clients are
    /// recorded as their flag says. Default 1.
    pub sample_ratio: f64,
    /// The resource's `service.name`. Default `outrider`.
    pub service_name: String,
    /// Further attributes of the resource. Default none.
    pub resource: Vec<(String, String)>,
    /// Ended spans that wait; further ones are dropped and counted. Default 8,192.
    pub queue: usize,
    /// Spans in one export. Default 512.
    pub batch: usize,
    /// How long a span waits for others to go with it. Default 1 s.
    pub period: Duration,
}

impl Default for ExportOptions {
    fn default() -> Self {
        Self {
            endpoint: String::new(),
            timeout: Duration::from_secs(10),
            sample_ratio: 1.0,
            service_name: "outrider".to_owned(),
            resource: Vec::new(),
            queue: 8_192,
            batch: 512,
            period: Duration::from_secs(1),
        }
    }
}

/// What a process tells.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Options {
    /// The log.
    pub log: LogOptions,
    /// Spans; none for none.
    pub export: Option<ExportOptions>,
}

/// Why telemetry does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The filter of the log is none.
    #[error("log.level is not a filter: {0}")]
    Filter(String),
    /// The collector's address is none.
    #[error("telemetry.otlp_endpoint cannot be used: {0}")]
    Endpoint(String),
    /// A variable of the exporter holds what it would pass over.
    #[error("{0}")]
    Headers(String),
    /// It was started before.
    #[error("telemetry is started once in a process: {0}")]
    Twice(String),
}

/// Telemetry that runs. To be stopped at the end, or the last spans are lost.
#[derive(Debug)]
#[must_use = "the last spans are lost unless it is stopped"]
pub struct Telemetry {
    export: Option<(SdkTracerProvider, export::Running)>,
}

impl Telemetry {
    /// Starts the log on standard error, and the export of spans. To be called once, on a tokio
    /// runtime.
    pub fn start(options: &Options) -> Result<Self, StartError> {
        metrics::expose(&catalogue::telemetry::SECTION);
        for result in ["exported", "dropped", "failed"] {
            catalogue::telemetry::SPANS.with_label_values(&[result]);
        }
        // Spans are for the collector: a log that followed them would tell each twice.
        let filter = filter(&options.log.filter)?;
        let hidden =
            format!("{TARGET}=off").parse().map_err(|_| StartError::Filter(TARGET.to_owned()))?;
        let log = tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal());
        let log =
            if options.log.json { log.json().flatten_event(true).boxed() } else { log.boxed() };
        let export = options.export.as_ref().map(exporting).transpose()?;
        let spans = export.as_ref().map(|(provider, _)| {
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
            .with(log.with_filter(filter.add_directive(hidden)))
            .with(spans)
            .try_init()
            .map_err(|error| StartError::Twice(error.to_string()))?;
        if let Some(export) = &options.export {
            hop::begin_exporting(export.sample_ratio);
        }
        Ok(Self { export })
    }

    /// Exports the spans that ended, for as long as two exports may take.
    pub async fn stop(self) {
        if let Some((provider, running)) = self.export {
            running.stop().await;
            drop(provider);
        }
    }
}

/// Whether a text is a filter of the log.
pub fn check_filter(text: &str) -> Result<(), StartError> {
    filter(text).map(drop)
}

/// Tells warnings on standard error as a command does that people run: a line each, without time
/// and place. To be called once.
pub fn tell_warnings() -> Result<(), StartError> {
    let log = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .without_time()
        .with_target(false);
    let log = log.with_filter(filter("warn")?);
    tracing_subscriber::registry()
        .with(log)
        .try_init()
        .map_err(|error| StartError::Twice(error.to_string()))
}

/// Applies unless the filter says otherwise. The libraries of HTTP/2 and TLS warn of what a client
/// or an endpoint does, as often as it does it, but our warnings mean a fault of ours.
const BASE: &str = "h2=error,rustls=error";

fn filter(text: &str) -> Result<EnvFilter, StartError> {
    check_words(text)?;
    // Of two directives for one target the later one holds.
    EnvFilter::try_new(format!("{BASE},{text}"))
        .map_err(|error| StartError::Filter(error.to_string()))
}

/// A word alone that is no level is a target to the library, whose events are logged, and nothing
/// else.
fn check_words(text: &str) -> Result<(), StartError> {
    let words = directives(text);
    let mut words = words.iter().copied().map(str::trim).filter(|word| !word.is_empty()).peekable();
    if words.peek().is_none() {
        return Err(StartError::Filter("it is empty; \"off\" logs nothing".to_owned()));
    }
    // The library splits at these commas too, and says only that a directive is none.
    if let Some(word) = words.clone().find(|word| word.contains(',')) {
        return Err(StartError::Filter(format!(
            "\"{word}\" has a comma within brackets: name one field in each directive"
        )));
    }
    match words.find(|word| {
        !word.contains(['=', '[', ']', '{', '}']) && word.parse::<LevelFilter>().is_err()
    }) {
        None => Ok(()),
        Some(word) => {
            let levels = "off, error, warn, info, debug, trace";
            Err(StartError::Filter(format!(
                "\"{word}\" is neither a level ({levels}) nor TARGET=LEVEL"
            )))
        }
    }
}

/// The directives of a filter: what is between commas, but for commas within brackets.
fn directives(text: &str) -> Vec<&str> {
    let mut depth = 0_usize;
    text.split(|c: char| {
        match c {
            '[' | '{' => depth += 1,
            ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    })
    .collect()
}

fn exporting(options: &ExportOptions) -> Result<(SdkTracerProvider, export::Running), StartError> {
    collector_headers::check(|name| std::env::var_os(name)).map_err(StartError::Headers)?;
    let wrong = |error: &dyn std::error::Error| {
        StartError::Endpoint(error.source().map_or_else(|| error.to_string(), ToString::to_string))
    };
    let mut endpoint =
        Endpoint::from_shared(options.endpoint.clone()).map_err(|error| wrong(&error))?;
    if options.endpoint.starts_with("https:") {
        endpoint = endpoint
            .tls_config(ClientTlsConfig::new().with_webpki_roots())
            .map_err(|error| wrong(&error))?;
    }
    let channel = endpoint.connect_timeout(options.timeout).connect_lazy();
    let mut exporter = SpanExporter::builder()
        .with_tonic()
        .with_channel(channel)
        .with_timeout(options.timeout)
        .build()
        .map_err(|error| wrong(&error))?;
    let attributes =
        options.resource.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
    let resource = Resource::builder()
        .with_service_name(options.service_name.clone())
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attribute(KeyValue::new("process.pid", i64::from(std::process::id())))
        .with_attributes(attributes)
        .build();
    exporter.set_resource(&resource);
    let bounds = export::Bounds {
        queue: options.queue.max(1),
        batch: options.batch.max(1),
        period: options.period,
        timeout: options.timeout,
    };
    let (queue, running) = export::start(exporter, bounds);
    let provider = SdkTracerProvider::builder()
        .with_span_processor(queue)
        // Whether a trace is recorded is decided before its first span is made: see `Hop`.
        .with_sampler(Sampler::AlwaysOn)
        .with_resource(resource)
        .build();
    Ok((provider, running))
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn a_word_that_is_no_level_is_refused_and_not_taken_for_a_target() {
        for good in [
            "info",
            "INFO",
            "off",
            "info,outrider_worker=debug",
            "outrider_gateway=trace",
            "warn,[hop{a=1}]=info",
            "[{a}]=info,[{b}]=info",
        ] {
            assert!(check_filter(good).is_ok(), "{good}");
        }
        for (bad, why) in [
            ("verbose", "\"verbose\" is neither"),
            ("info,outrider_worker", "outrider_worker"),
            ("", "empty"),
            (" , ", "empty"),
            ("info,[{a,b,c}]=info", "\"[{a,b,c}]=info\" has a comma within brackets"),
            ("[{a,b", "\"[{a,b\" has a comma within brackets"),
        ] {
            let refused = check_filter(bad).unwrap_err().to_string();
            assert!(refused.starts_with("log.level ") && refused.contains(why), "{refused}");
        }
    }

    /// If it takes them one day, `check_words` need not refuse them.
    #[test]
    fn the_library_takes_no_comma_within_brackets() {
        assert!(EnvFilter::try_new("[{a,b,c}]=info").is_err());
        assert!(EnvFilter::try_new("[{a}]=info,[{b}]=info").is_ok());
    }

    #[test]
    fn libraries_of_protocols_are_silent_below_error_unless_they_are_named() {
        let warns = |text: &str| {
            let subscriber = tracing_subscriber::registry().with(filter(text).unwrap());
            tracing::subscriber::with_default(subscriber, || {
                assert!(tracing::enabled!(target: "h2::server", Level::ERROR), "{text}");
                assert!(tracing::enabled!(target: "outrider_gateway", Level::WARN), "{text}");
                assert!(!tracing::enabled!(target: "rustls::common_state", Level::WARN), "{text}");
                tracing::enabled!(target: "h2::server", Level::WARN)
            })
        };
        for (text, expected) in [
            (LogOptions::default().filter.as_str(), false),
            ("info,outrider_gateway=debug", false),
            ("trace", false),
            ("info,h2=warn", true),
            ("h2::server=debug,info", true),
        ] {
            assert_eq!(warns(text), expected, "{text}");
        }
        assert!(check_filter("no=level=at=all").is_err());
    }
}
