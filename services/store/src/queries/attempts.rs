//! Attempts as they were made.

use std::time::Duration;

use outrider_model::{
    Attempt, AttemptId, AttemptOutcome, DeliveryId, EndpointId, Error, EventId, Page, PageRequest, Principal, ProjectId, Result,
    Timestamp,
};
use sea_orm::{ColumnTrait, Condition, ConnectionTrait, EntityTrait, QueryFilter, Select, Statement, sea_query::Expr};

use super::{clamp, entity::attempt, millisecond_of, newest_first, own_endpoints, page_of, within};
use crate::{
    Store,
    error::{malformed_row, unavailable},
    ledger::codec::{count, pairs_from_json, status_code},
    projects,
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
    /// One attempt with the answer's headers and body. A principal that is bound to an owner sees those to that owner's endpoints.
    /// Errors: `NOT_FOUND`.
    pub async fn get_attempt(&self, principal: &Principal, project: ProjectId, id: AttemptId) -> Result<Attempt> {
        projects::find(self.read(), principal, project).await?;
        let reach = Condition::all()
            .add(attempt::Column::ProjectId.eq(project.0))
            .add_option(own_endpoints(attempt::Column::EndpointId, principal, project));
        let row = attempt::Entity::find_by_id(id.0).filter(reach).one(self.read()).await.map_err(unavailable)?;
        let mut attempt = from_row(row.ok_or_else(|| Error::not_found(WHAT))?)?;
        let answer = Statement::from_sql_and_values(self.backend().into(), ANSWER, [id.0.into()]);
        let row = self.read().query_one_raw(answer).await.map_err(unavailable)?.ok_or_else(|| Error::not_found(WHAT))?;
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
        projects::find(self.read(), principal, project).await?;
        let page = clamp(page);
        let rows = select(principal, project, filter, page).all(self.read()).await.map_err(unavailable)?;
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
    let of_delivery = |delivery: DeliveryId| millisecond_of(Column::Id, delivery.time()).add(Column::DeliveryId.eq(delivery.0));
    let wanted = Condition::all()
        .add(Column::ProjectId.eq(project.0))
        .add_option(filter.delivery.map(of_delivery))
        .add_option(filter.endpoint.map(|endpoint| Column::EndpointId.eq(endpoint.0)))
        .add_option(filter.outcome.map(|outcome| Column::Outcome.eq(outcome as i16)))
        // Says in the text what the partial index needs to know, whatever the parameter is.
        .add_option(filter.outcome.filter(|outcome| *outcome != AttemptOutcome::Succeeded).map(|_| Expr::cust("outcome <> 1")))
        .add_option(own_endpoints(Column::EndpointId, principal, project))
        .add(within(Column::Id, filter.start, filter.end));
    newest_first(attempt::Entity::find().filter(wanted), Column::Id, page)
}

fn from_row(row: attempt::Model) -> Result<Attempt> {
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
    })
}
