//! Makes an attempt: the exchange, and its result for the report.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use outrider_model::{AttemptOutcome, AttemptResult, Heard, Timestamp};
use outrider_store::EndpointEntry;
use outrider_telemetry::{
    Hop, Kind, TraceContext, catalog::worker::REQUESTS_OPEN, metrics::Ongoing,
};
use tokio::time::Instant;

use crate::{
    exchange::{self, Answer, Destination, End, Exchanged, Failure},
    jobs::{self, HeldJob, Outcome},
    measure,
    scheduler::News,
    shared::Shared,
};

/// The result of sending a job.
pub(super) struct Sent {
    pub(super) outcome: Outcome,
    /// What it showed about its endpoint.
    pub(super) news: Option<News>,
}

/// Returns the destination of an attempt, or the reason why there is none.
fn destination(shared: &Shared, entry: &Arc<EndpointEntry>) -> Result<Arc<Destination>, String> {
    if !entry.is_readable {
        return Err("the endpoint's secrets cannot be decrypted: whoever runs Outrider finds the \
            reason in its log"
            .to_owned());
    }
    shared.destinations.get(entry).map_err(|error| error.to_string())
}

/// Makes an attempt. Returns `None` if the egress could not be reached and nothing was tried.
pub(super) async fn attempt(
    shared: &Shared,
    job: &HeldJob,
    entry: &Arc<EndpointEntry>,
) -> Option<Sent> {
    let (started_at, began) = (shared.lookup.now(), Instant::now());
    let _ongoing = Ongoing::begin(&REQUESTS_OPEN);
    let of_event = jobs::trace(&job.job);
    let hop = span(job, of_event.as_ref());
    let told = hop.or(of_event.as_ref()).filter(|_| shared.given.propagate_trace);
    let deadline = began + entry.endpoint.spec.limits.timeout;
    let exchanged = hop.around(exchange(shared, job, entry, deadline, told)).await;
    let (mut result, heard) = match exchanged.result {
        Ok(answer) => {
            let heard = heard(&answer);
            (answered(answer), heard)
        }
        Err(Failure::EgressUnavailable) => {
            hop.fail("the egress is unavailable");
            return None;
        }
        Err(Failure::TimedOut(phase)) => {
            let message = phase.explain(entry.endpoint.spec.limits.timeout);
            (unanswered(AttemptOutcome::TimedOut, message), Some(Heard::Nothing))
        }
        Err(Failure::Attempt(outcome, message)) => (unanswered(outcome, message), None),
    };
    result.resent = exchanged.resent;
    (result.started_at, result.duration) = (started_at, began.elapsed());
    measure::attempted(&job.job, &result);
    conclude(&hop, &result);
    let news = heard.map(|heard| News {
        heard,
        most: entry.endpoint.spec.limits.max_in_flight,
        at: started_at,
    });
    Some(Sent { outcome: Outcome::Attempted(result, hop.context().cloned()), news })
}

/// Makes the exchange with the endpoint, if there are a destination and a payload.
async fn exchange(
    shared: &Shared,
    job: &HeldJob,
    entry: &Arc<EndpointEntry>,
    deadline: Instant,
    told: Option<&TraceContext>,
) -> Exchanged {
    let destination = match destination(shared, entry) {
        Ok(destination) => destination,
        Err(why) => return unsent(why),
    };
    let Some(payload) = &job.payload else {
        tracing::error!(event_id = %job.job.event.id, delivery_id = %job.job.delivery,
            "a job was to be sent without its payload");
        return unsent(
            "the payload was not read: a fault of ours; Outrider's log tells more".to_owned(),
        );
    };
    let request = || {
        let now = shared.lookup.now();
        exchange::build(&destination, &job.job, &payload.bytes, now, told)
    };
    shared.client.exchange(&destination, deadline, request).await
}

/// Returns an exchange that could not begin.
fn unsent(message: String) -> Exchanged {
    Exchanged {
        result: Err(Failure::Attempt(AttemptOutcome::ConnectionFailed, message)),
        resent: false,
    }
}

/// Returns what a response shows about the endpoint, for its window. A response that drips until
/// the timeout holds its slot like a missing one.
fn heard(answer: &Answer) -> Option<Heard> {
    match answer.end {
        End::TimedOut => Some(Heard::Nothing),
        _ if is_success(answer.status) => Some(Heard::Answered),
        _ => None,
    }
}

fn is_success(status: u16) -> bool {
    (200..300).contains(&status)
}

/// Begins the span of an attempt. Each attempt has its own, under the span in which the event was
/// accepted.
fn span(job: &HeldJob, parent: Option<&TraceContext>) -> Hop {
    let hop = Hop::child(Kind::Client, "attempt", parent);
    hop.set_with("outrider.event.id", || job.job.event.id.to_string());
    hop.set_with("outrider.delivery.id", || job.job.delivery.to_string());
    hop.set_with("outrider.endpoint.id", || job.job.recipient.endpoint.to_string());
    hop.set("outrider.attempt", i64::from(job.job.attempt));
    hop
}

fn conclude(hop: &Hop, result: &AttemptResult) {
    hop.set("outrider.outcome", result.outcome.name());
    if let Some(status) = result.status_code {
        hop.set("http.response.status_code", i64::from(status));
    }
    if result.outcome != AttemptOutcome::Succeeded {
        hop.fail(result.error_message.as_deref().unwrap_or_default());
    }
}

/// Returns the result of an attempt without a response.
fn unanswered(outcome: AttemptOutcome, error_message: String) -> AttemptResult {
    AttemptResult { error_message: Some(error_message), ..of_outcome(outcome) }
}

/// Returns a result with nothing but its outcome.
fn of_outcome(outcome: AttemptOutcome) -> AttemptResult {
    AttemptResult {
        outcome,
        status_code: None,
        started_at: Timestamp::MIN,
        duration: Duration::ZERO,
        response_headers: Vec::new(),
        response_body: Bytes::new(),
        response_truncated: false,
        error_message: None,
        resent: false,
    }
}

/// Returns the result of an attempt with a response. The status line alone decides.
fn answered(answer: Answer) -> AttemptResult {
    let outcome = if is_success(answer.status) {
        AttemptOutcome::Succeeded
    } else {
        AttemptOutcome::Rejected
    };
    AttemptResult {
        status_code: Some(answer.status),
        response_headers: answer.headers,
        response_body: answer.body.into(),
        response_truncated: answer.truncated,
        ..of_outcome(outcome)
    }
}
