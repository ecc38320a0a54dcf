//! Turns valid events into answers: checks them against the catalog, offers the good ones to
//! dispatch together, and returns all answers in order.

use outrider_failpoints::{Point, pass};
use outrider_model::{AcceptedEvent, AdmittedEvent, Error, Idempotency, Project, Result, UsedKey};
use outrider_proto::ingest::{PublishEventResponse, PublishWarning};
use outrider_rpc::{Intake, convert::timestamp};

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
    checked: Vec<Result<AdmittedEvent>>,
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
                    Some(error) => match event.idempotency {
                        None => Outcome::Refused(error),
                        Some(Idempotency { key, fingerprint }) => {
                            repeated.push(UsedKey { project: event.project, key, fingerprint });
                            Outcome::Repeated(error)
                        }
                    },
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
    event: AdmittedEvent,
    warnings: Vec<PublishWarning>,
    offered: &mut Vec<AdmittedEvent>,
) -> Outcome {
    offered.push(event);
    Outcome::Offered(warnings)
}

fn published(
    result: Option<Result<AcceptedEvent>>,
    warnings: Vec<PublishWarning>,
) -> Result<PublishEventResponse> {
    match result {
        Some(result) => result.map(|event| response(event, warnings)),
        None => Err(Error::internal("dispatch answered without a result")),
    }
}

/// A repeated publish is not checked again: its answer does not depend on the current schema.
fn response(event: AcceptedEvent, warnings: Vec<PublishWarning>) -> PublishEventResponse {
    PublishEventResponse {
        event_id: event.id.to_string(),
        duplicate: event.duplicate,
        delivery_count: event.delivery_count,
        create_time: Some(timestamp(event.created_at)),
        warnings: if event.duplicate { Vec::new() } else { warnings },
    }
}
