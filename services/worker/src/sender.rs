//! One job whose turn has come: its endpoint as it is now, the exchange, and what the report says
//! of it.

use std::{sync::Arc, time::Duration};

use outrider_failpoints::{Point, pass};
use outrider_model::{Heard, endpoint::EndpointState};
use outrider_proto::{
    dispatch::AttemptOutcome,
    internal::{AttemptResult, HoldReason},
};
use outrider_rpc::convert;
use outrider_store::EndpointEntry;
use outrider_telemetry::{
    Hop, Kind, TraceContext, catalogue::worker::REQUESTS_OPEN, metrics::Ongoing,
};
use tokio::time::Instant;

use crate::{
    backoff::Backoff,
    client::{Exchanged, Failure},
    destination::Destination,
    intake::{persist, still_current},
    job::{self, HeldJob, Outcome, Started},
    measure, request,
    response::{Answer, End},
    scheduler::News,
    shared::Shared,
};

/// Has a job sent and reported by a task of its own.
pub(crate) fn spawn(shared: &Arc<Shared>, started: Started) {
    let shared = Arc::clone(shared);
    shared.tasks.clone().spawn(async move {
        shared.with_jobs(vec![started.job.key()], Box::pin(perform(&shared, started))).await;
    });
}

async fn perform(shared: &Shared, started: Started) {
    let Started { job, mut slot } = started;
    let Some(job) = surely_ours(shared, job).await else { return };
    pass(Point::BeforeSend);
    let Sent { outcome, news } = send(shared, &job).await;
    pass(Point::AfterSend);
    if let Some(news) = news {
        slot.heard(news);
    }
    drop(slot);
    shared.report(job, outcome);
}

/// What came of a job.
struct Sent {
    outcome: Outcome,
    /// What it told of its endpoint.
    news: Option<News>,
}

/// When the lease may have run out in the meantime, somebody else may have sent the job: the
/// database knows.
async fn surely_ours(shared: &Shared, job: HeldJob) -> Option<HeldJob> {
    if shared.leases.lost(job.key()) {
        // Whoever has it now sends it.
        shared.leases.forget([job.key()]);
        return None;
    }
    if shared.leases.sure(job.read_at) {
        Some(job)
    } else {
        still_current(shared, vec![job]).await.pop()
    }
}

/// Sends the job to its endpoint as it is now. An egress that cannot be reached is no attempt: it
/// is waited for, in bounds.
async fn send(shared: &Shared, job: &HeldJob) -> Sent {
    let patience = Instant::now() + shared.options.egress_patience;
    let mut backoff = Backoff::between(Duration::from_millis(100), Duration::from_secs(1));
    loop {
        let asked = persist(shared, "endpoints cannot be looked up", || {
            shared.lookup.endpoint(job.ids.endpoint)
        });
        let held = match asked.await {
            None => HoldReason::Released,
            Some(None) => HoldReason::EndpointDeleted,
            Some(Some(entry)) if entry.endpoint.state == EndpointState::Paused => {
                HoldReason::EndpointPaused
            }
            Some(Some(_)) if shared.shutdown.is_cancelled() => HoldReason::Released,
            Some(Some(entry)) => match attempt(shared, job, &entry).await {
                Some(sent) => return sent,
                None => {
                    let wait = backoff.step();
                    let sleep = tokio::time::sleep(wait);
                    if Instant::now() + wait < patience
                        && shared.shutdown.run_until_cancelled(sleep).await.is_some()
                    {
                        continue;
                    }
                    if shared.complaints.due() {
                        tracing::warn!(delivery = %job.ids.delivery, "the egress is unavailable; jobs are given back");
                    }
                    HoldReason::Released
                }
            },
        };
        return Sent { outcome: Outcome::Held(held), news: None };
    }
}

/// Where an attempt goes, or why there is none.
fn destination(shared: &Shared, entry: &Arc<EndpointEntry>) -> Result<Arc<Destination>, String> {
    if !entry.is_readable {
        return Err("the endpoint's secrets cannot be decrypted: whoever runs Outrider finds the reason in its log".to_owned());
    }
    shared.destinations.get(entry).map_err(|error| error.to_string())
}

/// One attempt; none when the egress could not be reached and nothing was tried.
async fn attempt(shared: &Shared, job: &HeldJob, entry: &Arc<EndpointEntry>) -> Option<Sent> {
    let start_time = shared.lookup.now();
    let began = Instant::now();
    let _ongoing = Ongoing::begin(&REQUESTS_OPEN);
    let of_event = job::trace(&job.job);
    let hop = span(job, of_event.as_ref());
    let told = hop.or(of_event.as_ref()).filter(|_| shared.given.propagate_trace);
    let exchanged = match (destination(shared, entry), &job.payload) {
        (Ok(destination), Some(payload)) => {
            let request = || {
                request::build(
                    &destination,
                    &job.job,
                    &job.ids,
                    &payload.bytes,
                    shared.lookup.now(),
                    told,
                )
            };
            hop.around(shared.client.exchange(
                &destination,
                began + entry.endpoint.timeout,
                request,
            ))
            .await
        }
        (Err(why), _) => unsent(why),
        (_, None) => {
            tracing::error!(event_id = %job.ids.event, delivery_id = %job.ids.delivery, "a job was to be sent without its payload");
            unsent(
                "the payload was not read: a fault of ours; Outrider's log tells more".to_owned(),
            )
        }
    };
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
            let (outcome, error_message) =
                (AttemptOutcome::TimedOut, phase.explain(entry.endpoint.timeout));
            (
                AttemptResult {
                    outcome: outcome.into(),
                    error_message,
                    ..AttemptResult::default()
                },
                Some(Heard::Nothing),
            )
        }
        Err(Failure::Attempt(outcome, error_message)) => (
            AttemptResult { outcome: outcome.into(), error_message, ..AttemptResult::default() },
            None,
        ),
    };
    result.resent = exchanged.resent;
    result.start_time = Some(convert::timestamp(start_time));
    let duration = began.elapsed();
    result.duration_micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    measure::attempted(&job.job, start_time, &result, duration);
    conclude(&hop, &result);
    let news =
        heard.map(|heard| News { heard, most: entry.endpoint.max_in_flight, at: start_time });
    Some(Sent { outcome: Outcome::Attempted(result, hop.context().cloned()), news })
}

/// An exchange that could not begin.
fn unsent(message: String) -> Exchanged {
    Exchanged {
        result: Err(Failure::Attempt(AttemptOutcome::ConnectionFailed, message)),
        resent: false,
    }
}

/// What an answer tells of the endpoint's window. One that drips until the time is up holds its
/// slot like none at all.
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

/// The span of an attempt; each attempt of a delivery has its own, under the span in which the
/// event was accepted.
fn span(job: &HeldJob, parent: Option<&TraceContext>) -> Hop {
    let hop = Hop::child(Kind::Client, "attempt", parent);
    hop.set_with("outrider.event.id", || job.ids.event.to_string());
    hop.set_with("outrider.delivery.id", || job.ids.delivery.to_string());
    hop.set_with("outrider.endpoint.id", || job.ids.endpoint.to_string());
    hop.set("outrider.attempt", i64::from(job.job.attempt));
    hop
}

fn conclude(hop: &Hop, result: &AttemptResult) {
    hop.set("outrider.outcome", measure::outcome_name(result.outcome));
    if result.status_code != 0 {
        hop.set("http.response.status_code", i64::from(result.status_code));
    }
    if result.outcome() != AttemptOutcome::Succeeded {
        hop.fail(&result.error_message);
    }
}

/// The status line alone decides.
fn answered(answer: Answer) -> AttemptResult {
    let outcome = if is_success(answer.status) {
        AttemptOutcome::Succeeded
    } else {
        AttemptOutcome::Rejected
    };
    AttemptResult {
        outcome: outcome.into(),
        status_code: answer.status.into(),
        response_headers: answer.headers,
        response_body: answer.body.into(),
        response_truncated: answer.truncated,
        ..AttemptResult::default()
    }
}
