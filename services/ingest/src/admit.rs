//! From checked events to answers: the catalogue judges them, what is good goes to dispatch
//! together, and every answer finds its place.

use outrider_failpoints::{Point, pass};
use outrider_model::{Error, Project, Result};
use outrider_proto::{
    ingest::{PublishEventResponse, PublishWarning},
    internal::{AcceptEvent, AcceptEventResult, AcceptedEvent, FindEvent, accept_event_result},
};
use outrider_rpc::{Intake, status};

use crate::judge::{Asker, Judge};

/// What becomes of an event.
enum Fate {
    Refused(Error),
    /// It goes to dispatch; its publisher is told this.
    Offered(Vec<PublishWarning>),
    /// Refused, unless it was accepted before: an answer may have been lost, and what was accepted
    /// once stays so, whatever the schema says by now.
    Repeated(Error),
}

/// Answers events in their order; `path` tells where in the request one stands. An error means that
/// the outcome of all is unknown, or that none was accepted.
pub async fn admit(
    judge: &Judge,
    intake: &dyn Intake,
    project: &Project,
    asker: Asker,
    checked: Vec<Result<AcceptEvent>>,
    path: impl Fn(usize) -> String,
) -> Result<Vec<Result<PublishEventResponse>>> {
    let (mut offered, mut repeated) = (Vec::new(), Vec::new());
    let mut fates = Vec::with_capacity(checked.len());
    let catalogue = judge.catalogue(project).await?;
    for (index, event) in checked.into_iter().enumerate() {
        fates.push(match (event, &catalogue) {
            (Err(error), _) => Fate::Refused(error.within(&path(index))),
            (Ok(event), None) => offer(event, Vec::new(), &mut offered),
            (Ok(event), Some(catalogue)) => {
                let judgement = judge.judge(project, catalogue, &event, &asker).await?;
                match judgement.refusal.map(|error| error.within(&path(index))) {
                    None => offer(event, judgement.warnings, &mut offered),
                    Some(error) if event.idempotency_key.is_empty() => Fate::Refused(error),
                    Some(error) => {
                        let AcceptEvent { project_id, idempotency_key, fingerprint, .. } = event;
                        repeated.push(FindEvent { project_id, idempotency_key, fingerprint });
                        Fate::Repeated(error)
                    }
                }
            }
        });
    }
    // What is found first has changed nothing when accepting fails.
    let found = if repeated.is_empty() { Vec::new() } else { intake.find(repeated).await? };
    pass(Point::BeforeAccept);
    let accepted = if offered.is_empty() { Vec::new() } else { intake.accept(offered).await? };
    pass(Point::AfterAccept);
    let (mut found, mut accepted) = (found.into_iter(), accepted.into_iter());
    let answer = |fate| match fate {
        Fate::Refused(error) => Err(error),
        Fate::Offered(warnings) => published(accepted.next(), warnings),
        Fate::Repeated(error) => {
            found.next().flatten().map(|event| response(event, Vec::new())).ok_or(error)
        }
    };
    Ok(fates.into_iter().map(answer).collect())
}

fn offer(
    event: AcceptEvent,
    warnings: Vec<PublishWarning>,
    offered: &mut Vec<AcceptEvent>,
) -> Fate {
    offered.push(event);
    Fate::Offered(warnings)
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

/// A repetition is not judged again: its answer does not depend on what the schema is by now.
fn response(event: AcceptedEvent, warnings: Vec<PublishWarning>) -> PublishEventResponse {
    let AcceptedEvent { event_id, duplicate, delivery_count, create_time } = event;
    let warnings = if duplicate { Vec::new() } else { warnings };
    PublishEventResponse { event_id, duplicate, delivery_count, create_time, warnings }
}
