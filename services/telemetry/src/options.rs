//! The settings of logs and spans.

use std::time::Duration;

use outrider_settings::{Invalid, OneOf, millis, seconds, section};

use crate::filter;

section! {
    /// What is logged.
    pub struct LogOptions in "log" {
        /// `text` or `json`.
        pub format: String = "text".into(), OneOf(&["text", "json"]);
        /// A filter such as `info` or `info,outrider_worker=debug`. Only errors of the HTTP/2
        /// library are logged, unless the filter names it (`h2=warn`).
        pub level: String = "info".into();
    }
    with log_rules;
}

fn log_rules(options: &LogOptions) -> Result<(), Invalid> {
    let parsed = filter::parse(&options.level);
    parsed.map(drop).map_err(|why| Invalid::new("log.level", format!("is not a filter: {why}")))
}

section! {
    /// Where spans are exported, and whether traces continue to endpoints. See docs/telemetry.md.
    pub struct ExportOptions in "telemetry" {
        /// The collector of spans, OTLP over gRPC, as `http://HOST:PORT` or `https://HOST:PORT`;
        /// empty for none.
        pub otlp_endpoint: String = String::new();
        /// How long one export may take, including connecting.
        pub otlp_timeout: Duration = seconds(10), millis(100)..;
        /// The share of traces begun by Outrider that are recorded. Traces begun by clients are
        /// recorded as their flag says.
        pub sample_ratio: f64 = 1.0, 0.0..=1.0;
        /// The `service.name` of the spans' resource.
        pub service_name: String = "outrider".into();
        /// Further attributes of the resource, such as `deployment.environment.name=production`.
        pub resource_attributes: Vec<String> = Vec::new();
        /// Whether requests to endpoints carry the headers `traceparent` and `tracestate` of events
        /// that have a trace.
        pub propagate: bool = true;
        /// Maximum number of ended spans that wait to be exported. Further ones are dropped and
        /// counted.
        pub export_queue: usize = 8_192, 1..;
        /// Maximum number of spans in one export.
        pub export_batch: usize = 512, 1..;
        /// How long a span waits for others to be exported with it.
        pub export_period: Duration = seconds(1);
    }
    with export_rules;
}

impl ExportOptions {
    /// Returns the further attributes of the resource, as names and values.
    pub(crate) fn resource(&self) -> impl Iterator<Item = (&str, &str)> {
        self.resource_attributes.iter().filter_map(|attribute| attribute.split_once('='))
    }
}

/// Attributes of the resource that have their own key, or that Outrider sets.
const OWN_ATTRIBUTES: [(&str, &str); 3] = [
    ("service.name", "is set by telemetry.service_name"),
    ("service.version", "is set by Outrider"),
    ("process.pid", "is set by Outrider"),
];

fn export_rules(options: &ExportOptions) -> Result<(), Invalid> {
    let refuse = |why: String| Err(Invalid::new("telemetry.resource_attributes", why));
    let mut names = Vec::new();
    for attribute in &options.resource_attributes {
        let name = attribute.split_once('=').map(|(name, _)| name).filter(|name| !name.is_empty());
        let Some(name) = name else { return refuse("must each be NAME=VALUE".to_owned()) };
        if let Some((_, why)) = OWN_ATTRIBUTES.iter().find(|(own, _)| *own == name) {
            return refuse(format!("{name} {why}"));
        }
        if names.contains(&name) {
            return refuse(format!("has {name} twice"));
        }
        names.push(name);
    }
    Ok(())
}
