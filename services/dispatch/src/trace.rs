//! The spans of dispatch. A commit has many events. Each event has its own span, which says with
//! how many others it was written.

use outrider_model::{Error, EventId, JobReport, Trace};
use outrider_store::Accepted;
use outrider_telemetry::{Hop, Kind, TraceContext};

/// Starts the span of an event that arrived. Returns it with the trace that continues with the
/// event's row, jobs and attempts.
pub fn accepting(trace: Option<Trace>, id: EventId) -> (Hop, Option<Trace>) {
    let Some(trace) = trace else { return (Hop::none(), None) };
    let incoming = TraceContext::parse(&trace.parent, &trace.state);
    let hop = Hop::child(Kind::Internal, "dispatch accept", incoming.as_ref());
    hop.set_with("outrider.event.id", || id.to_string());
    let trace = hop.or(incoming.as_ref()).map(|context| Trace {
        parent: context.traceparent(),
        state: context.tracestate().to_owned(),
    });
    (hop, trace)
}

/// Records that the commit of an event ended.
pub fn committed(hop: &Hop, events: usize, seconds: f64, outcome: &Result<Accepted, Error>) {
    hop.set("outrider.commit.events", i64::try_from(events).unwrap_or(i64::MAX));
    hop.set("outrider.commit.seconds", seconds);
    match outcome {
        Ok(Accepted::New) => {}
        Ok(Accepted::Duplicate { event, .. }) => {
            hop.set_with("outrider.duplicate_of", || event.to_string())
        }
        Ok(Accepted::Conflict) => hop.fail("IDEMPOTENCY_CONFLICT"),
        Err(error) => hop.fail(error.reason.as_str()),
    }
}

/// Starts the span in which an attempt is settled, below that of the attempt.
pub fn settling(report: &JobReport) -> Hop {
    let Some(parent) = &report.trace_parent else { return Hop::none() };
    Hop::child(Kind::Internal, "dispatch settle", TraceContext::parse(parent, "").as_ref())
}
