//! Spans: a hop of a trace, which is created only if the trace is sampled.

use std::{future::Future, sync::OnceLock};

use opentelemetry::{
    Context, Value,
    trace::{SpanContext, SpanId, Status, TraceContextExt, TraceFlags, TraceId, TraceState},
};
use tracing::{Instrument, Span, instrument::Instrumented};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::TraceContext;

/// The target of all our spans. The exporter's layer selects them by it, and the log leaves them
/// out.
pub(crate) const TARGET: &str = "outrider_hop";

/// The share of traces begun here that are recorded. Set when spans are exported.
static SAMPLE_RATIO: OnceLock<f64> = OnceLock::new();

pub(crate) fn begin_exporting(sample_ratio: f64) {
    // The subscriber refuses a second start in one process.
    let _ = SAMPLE_RATIO.set(sample_ratio);
}

/// Whether this process exports spans.
#[must_use]
pub fn is_exporting() -> bool {
    SAMPLE_RATIO.get().is_some()
}

/// The kind of a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Work within a role.
    Internal,
    /// A request that this process serves.
    Server,
    /// A request that this process makes.
    Client,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Internal => "internal",
            Self::Server => "server",
            Self::Client => "client",
        }
    }
}

/// A span, or nothing. If spans are not exported or the trace is not sampled, it costs one
/// comparison. It ends when it is dropped.
#[derive(Debug, Default)]
pub struct Hop(Option<Box<Open>>);

#[derive(Debug)]
struct Open {
    span: Span,
    context: TraceContext,
}

impl Hop {
    /// Returns no span.
    #[must_use]
    pub const fn none() -> Self {
        Self(None)
    }

    /// Begins a span under this parent.
    #[must_use]
    pub fn child(kind: Kind, name: &str, parent: Option<&TraceContext>) -> Self {
        match parent {
            Some(parent) if parent.is_sampled() && is_exporting() => {
                Self::open(kind, name, Some(parent))
            }
            _ => Self::none(),
        }
    }

    /// Begins a trace, for the configured share of calls.
    #[must_use]
    pub fn root(kind: Kind, name: &str) -> Self {
        match SAMPLE_RATIO.get() {
            Some(ratio) if *ratio >= 1.0 || rand::random::<f64>() < *ratio => {
                Self::open(kind, name, None)
            }
            _ => Self::none(),
        }
    }

    fn open(kind: Kind, name: &str, parent: Option<&TraceContext>) -> Self {
        let span = tracing::info_span!(target: TARGET, parent: None, "hop", otel.name = name,
            otel.kind = kind.name());
        if let Some(parent) = parent {
            // Fails only for a span that has begun, or that a filter removed; then it has no
            // context either.
            let _ = span.set_parent(Context::new().with_remote_span_context(remote(parent)));
        }
        let context = context_of(&span);
        Self(context.map(|context| Box::new(Open { span, context })))
    }

    /// Returns the position of this span, for its children.
    #[must_use]
    pub fn context(&self) -> Option<&TraceContext> {
        self.0.as_ref().map(|open| &open.context)
    }

    /// Returns the position to pass on: this span's, or else the incoming one.
    #[must_use]
    pub fn or<'a>(&'a self, incoming: Option<&'a TraceContext>) -> Option<&'a TraceContext> {
        self.context().or(incoming)
    }

    /// Adds an attribute. Never a payload or a secret.
    pub fn set(&self, key: &'static str, value: impl Into<Value>) {
        if let Some(open) = &self.0 {
            open.span.set_attribute(key, value);
        }
    }

    /// Adds an attribute whose value is expensive to make.
    pub fn set_with<V: Into<Value>>(&self, key: &'static str, value: impl FnOnce() -> V) {
        if let Some(open) = &self.0 {
            open.span.set_attribute(key, value());
        }
    }

    /// Renames the span.
    pub fn rename(&self, name: &str) {
        if let Some(open) = &self.0 {
            open.span.context().span().update_name(name.to_owned());
        }
    }

    /// Marks the span as failed.
    pub fn fail(&self, why: &str) {
        if let Some(open) = &self.0 {
            open.span.set_status(Status::error(why.to_owned()));
        }
    }

    /// Runs the future with this span as the current one. See [`current`].
    pub fn around<F: Future>(&self, future: F) -> Instrumented<F> {
        future.instrument(self.0.as_ref().map_or_else(Span::none, |open| open.span.clone()))
    }
}

/// Returns the position of the span around the running future ([`Hop::around`]).
#[must_use]
pub fn current() -> Option<TraceContext> {
    if is_exporting() { context_of(&Span::current()) } else { None }
}

fn context_of(span: &Span) -> Option<TraceContext> {
    let context = span.context();
    let span = context.span();
    let position = span.span_context();
    position.is_valid().then(|| {
        let (trace, span) = (position.trace_id().to_bytes(), position.span_id().to_bytes());
        TraceContext::new(
            trace,
            span,
            position.is_sampled(),
            position.trace_state().header().into(),
        )
    })
}

fn remote(context: &TraceContext) -> SpanContext {
    let (trace, span) = context.ids();
    let state = context.tracestate().parse::<TraceState>().unwrap_or_default();
    let flags = if context.is_sampled() { TraceFlags::SAMPLED } else { TraceFlags::default() };
    SpanContext::new(TraceId::from_bytes(trace), SpanId::from_bytes(span), flags, true, state)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn without_an_exporter_there_is_no_span_and_what_came_in_goes_on() {
        let incoming =
            TraceContext::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "a=b")
                .unwrap();
        let hop = Hop::child(Kind::Server, "x", Some(&incoming));
        hop.set("a", "b");
        hop.fail("why");
        assert!(hop.context().is_none() && Hop::root(Kind::Client, "y").context().is_none());
        assert_eq!(hop.or(Some(&incoming)), Some(&incoming));
        assert_eq!(hop.around(async { current() }).await, None);
    }
}
