//! Attempts as they were made.

use std::time::Duration;

use outrider_model::{
    Attempt, AttemptId, AttemptOutcome, DeliveryId, EndpointId, Error, EventId, Page, PageRequest, Principal, ProjectId, Result,
    Timestamp,
};
use sea_orm::{ColumnTrait, Condition, ConnectionTrait, EntityTrait, QueryFilter, Select, Statement, sea_query::Expr};

use super::{IdRange, clamp, entity::attempt, of_project, own_endpoints, page_of, range};
use crate::{
    Store,
    error::{malformed_row, unavailable},
    ledger::codec::{count, pairs_from_json, status_code},
};

const WHAT: &str = "attempt";
const TABLE: &str = "attempts";
const ANSWER: &str = "SELECT response_headers, response_body FROM attempts WHERE id = $1";

/// Which attempts of a project are wanted: those for which all that is given holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AttemptFilter {
    pub delivery: Option<DeliveryId>,
    pub endpoint: Option<EndpointId>,
    pub outcome: Option<AttemptOutcome>,
    /// Of events accepted (or replays made) then or later, to the millisecond.
    pub start: Option<Timestamp>,
    /// Of events accepted (or replays made) before, to the millisecond.
    pub end: Option<Timestamp>,
}

impl Store {
    /// One attempt with the answer's headers and body. A principal that is bound to an owner sees those to that owner's
    /// endpoints. Errors: `NOT_FOUND`.
    pub async fn get_attempt(&self, principal: &Principal, project: ProjectId, id: AttemptId) -> Result<Attempt> {
        let database = self.reach(principal, project).await?;
        let reach = Condition::all().add(attempt::Column::ProjectId.eq(project.0)).add_option(own_endpoints(
            attempt::Column::EndpointId,
            principal,
            project,
        ));
        let row = attempt::Entity::find_by_id(id.0).filter(reach).one(&database).await.map_err(unavailable)?;
        let mut attempt = from_row(row.ok_or_else(|| Error::not_found(WHAT))?)?;
        let answer = Statement::from_sql_and_values(self.backend().into(), ANSWER, [id.0.into()]);
        let row = database.query_one_raw(answer).await.map_err(unavailable)?.ok_or_else(|| Error::not_found(WHAT))?;
        let headers: String = row.try_get_by_index(0).map_err(unavailable)?;
        attempt.response_headers = pairs_from_json(&headers).map_err(|_| malformed_row(TABLE, "response_headers"))?;
        attempt.response_body = row.try_get_by_index(1).map_err(unavailable)?;
        Ok(attempt)
    }

    /// Attempts of a project, newest event first, without the answers' headers and bodies. Errors: `NOT_FOUND` for the project.
    pub async fn list_attempts(
        &self,
        principal: &Principal,
        project: ProjectId,
        filter: &AttemptFilter,
        page: PageRequest,
    ) -> Result<Page<Attempt>> {
        let database = self.reach(principal, project).await?;
        let page = clamp(page);
        let rows = select(principal, project, filter, page).all(&database).await.map_err(unavailable)?;
        page_of(page, rows, from_row, |attempt| attempt.id.0)
    }
}

pub(super) fn select(
    principal: &Principal,
    project: ProjectId,
    filter: &AttemptFilter,
    page: PageRequest,
) -> Select<attempt::Entity> {
    use attempt::Column;
    let unusual = filter.outcome.filter(|outcome| *outcome != AttemptOutcome::Succeeded);
    let mut prefix = match filter.endpoint {
        Some(endpoint) => vec![(Column::EndpointId, endpoint.0.into())],
        None => vec![(Column::ProjectId, project.0.into())],
    };
    prefix.extend(unusual.map(|outcome| (Column::Outcome, (outcome as i16).into())));
    let ids = IdRange::ALL.during(filter.start, filter.end);
    let ids = filter.delivery.map_or(ids, |delivery| ids.millisecond(delivery.time()));
    let further = Condition::all()
        .add_option(filter.endpoint.map(|_| of_project(Column::ProjectId, project)))
        .add_option(filter.delivery.map(|delivery| Column::DeliveryId.eq(delivery.0)))
        // In the text: the planner must know it, whatever the parameters are, to use the index of what is unusual.
        .add_option(unusual.map(|_| Expr::cust("outcome <> 1")))
        .add_option(filter.outcome.filter(|_| unusual.is_none()).map(|outcome| Column::Outcome.eq(outcome as i16)))
        .add_option(own_endpoints(Column::EndpointId, principal, project));
    range(attempt::Entity::find().filter(further), &prefix, Column::Id, ids, page)
}

pub(super) fn from_row(row: attempt::Model) -> Result<Attempt> {
    Ok(Attempt {
        id: AttemptId(row.id),
        delivery: DeliveryId(row.delivery_id),
        event: EventId(row.event_id),
        endpoint: EndpointId(row.endpoint_id),
        project: ProjectId(row.project_id),
        number: count(row.number),
        outcome: AttemptOutcome::from_number(row.outcome.into()).ok_or_else(|| malformed_row(TABLE, "outcome"))?,
        status_code: status_code(row.status_code),
        started_at: Timestamp(row.started_at),
        duration: Duration::from_micros(u64::try_from(row.duration_micros).unwrap_or(0)),
        response_headers: Vec::new(),
        response_body: Vec::new(),
        response_truncated: row.response_truncated,
        error_message: row.error_message,
        resent: row.resent,
    })
}
