//! Turns valid events into answers: checks them against the catalog, offers the good ones to
//! dispatch together, and returns all answers in order.

use outrider_failpoints::{Point, pass};
use outrider_model::{Error, Project, Result};
use outrider_proto::{
    ingest::{PublishEventResponse, PublishWarning},
    internal::{AcceptEvent, AcceptEventResult, AcceptedEvent, FindEvent, accept_event_result},
};
use outrider_rpc::{Intake, status};

use super::schemas::{Requester, SchemaValidator};

/// The outcome of an event.
enum Outcome {
    Refused(Error),
    /// Offered to dispatch, with warnings for its publisher.
    Offered(Vec<PublishWarning>),
    /// Refused unless it was accepted before. The earlier answer may have been lost, and an
    /// accepted event stays accepted, whatever the schema says now.
    Repeated(Error),
}

/// Offers events to dispatch and returns their answers in order. `path` returns the path of an
/// event in the request. An error means that none was accepted, or that the outcome of all is
/// unknown.
pub async fn offer(
    schemas: &SchemaValidator,
    intake: &dyn Intake,
    project: &Project,
    requester: Requester,
    checked: Vec<Result<AcceptEvent>>,
    path: impl Fn(usize) -> String,
) -> Result<Vec<Result<PublishEventResponse>>> {
    let (mut offered, mut repeated) = (Vec::new(), Vec::new());
    let mut outcomes = Vec::with_capacity(checked.len());
    let catalog = schemas.catalog(project).await?;
    for (index, event) in checked.into_iter().enumerate() {
        outcomes.push(match (event, &catalog) {
            (Err(error), _) => Outcome::Refused(error.within(&path(index))),
            (Ok(event), None) => push(event, Vec::new(), &mut offered),
            (Ok(event), Some(catalog)) => {
                let findings = schemas.check(project, catalog, &event, &requester).await?;
                match findings.refusal.map(|error| error.within(&path(index))) {
                    None => push(event, findings.warnings, &mut offered),
                    Some(error) if event.idempotency_key.is_empty() => Outcome::Refused(error),
                    Some(error) => {
                        let AcceptEvent { project_id, idempotency_key, fingerprint, .. } = event;
                        repeated.push(FindEvent { project_id, idempotency_key, fingerprint });
                        Outcome::Repeated(error)
                    }
                }
            }
        });
    }
    // Finding comes first: it has changed nothing if accepting fails.
    let found = if repeated.is_empty() { Vec::new() } else { intake.find(repeated).await? };
    pass(Point::BeforeAccept);
    let accepted = if offered.is_empty() { Vec::new() } else { intake.accept(offered).await? };
    pass(Point::AfterAccept);
    let (mut found, mut accepted) = (found.into_iter(), accepted.into_iter());
    let answer = |outcome| match outcome {
        Outcome::Refused(error) => Err(error),
        Outcome::Offered(warnings) => published(accepted.next(), warnings),
        Outcome::Repeated(error) => {
            found.next().flatten().map(|event| response(event, Vec::new())).ok_or(error)
        }
    };
    Ok(outcomes.into_iter().map(answer).collect())
}

fn push(
    event: AcceptEvent,
    warnings: Vec<PublishWarning>,
    offered: &mut Vec<AcceptEvent>,
) -> Outcome {
    offered.push(event);
    Outcome::Offered(warnings)
}

fn published(
    result: Option<AcceptEventResult>,
    warnings: Vec<PublishWarning>,
) -> Result<PublishEventResponse> {
    match result.and_then(|result| result.result) {
        Some(accept_event_result::Result::Accepted(event)) => Ok(response(event, warnings)),
        Some(accept_event_result::Result::Error(error)) => Err(status::from_message(&error)),
        None => Err(Error::internal("dispatch answered without a result")),
    }
}

/// A repeated publish is not checked again: its answer does not depend on the current schema.
fn response(event: AcceptedEvent, warnings: Vec<PublishWarning>) -> PublishEventResponse {
    let AcceptedEvent { event_id, duplicate, delivery_count, create_time } = event;
    let warnings = if duplicate { Vec::new() } else { warnings };
    PublishEventResponse { event_id, duplicate, delivery_count, create_time, warnings }
}
