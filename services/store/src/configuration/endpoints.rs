//! Endpoints of a project. A principal that is bound to an owner sees only those of that owner.
//! Deleted endpoints count as not existing.

use std::{collections::BTreeMap, time::Duration};

use outrider_model::{
    Endpoint, EndpointId, EndpointState, Error, Headers, Page, PageRequest, Principal, ProjectId,
    Reason, Result, Scope, SigningSecret, Target, Timestamp,
};
use sea_orm::{
    ActiveValue::{Set, Unchanged},
    ColumnTrait, Condition, ConnectionTrait, EntityTrait, QueryFilter, Select,
};
use serde_json::{Value, json};

use super::{
    endpoint_rows as rows, endpoint_secrets,
    entity::endpoint,
    lists, projects,
    requests::Request,
    subscription_rows,
    transaction::{Transaction, random},
};
use crate::{
    ChangeKind, Store,
    cipher::MasterKeys,
    connection::error::{exists, taken, unavailable},
};

const WHAT: &str = "endpoint";

/// The scope that reveals signing secrets, and so all values that are used as secrets.
const SHOWS_SECRETS: Scope = Scope::EndpointsWrite;

/// An endpoint to create.
#[derive(Debug, Clone)]
pub struct NewEndpoint {
    /// Generated if absent.
    pub id: Option<EndpointId>,
    pub target: Target,
    pub description: String,
    pub state: EndpointState,
    pub timeout: Duration,
    pub max_in_flight: u32,
    pub headers: Headers,
    pub metadata: BTreeMap<String, String>,
    pub owner: Option<String>,
    /// Stored encrypted. Two requests with the same request id are compared without it, because a
    /// secret that is not given is generated for each.
    pub secret: SigningSecret,
}

/// A change of an endpoint. Absent fields stay as they are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EndpointChange {
    pub target: Option<Target>,
    pub description: Option<String>,
    pub state: Option<EndpointState>,
    pub timeout: Option<Duration>,
    pub max_in_flight: Option<u32>,
    pub headers: Option<Headers>,
    pub metadata: Option<BTreeMap<String, String>>,
    /// `Some(None)` removes it.
    pub owner: Option<Option<String>>,
}

impl Store {
    /// Creates an endpoint and its secret. A principal that is bound to an owner creates endpoints
    /// of that owner. Errors: `NOT_FOUND` for the project, and for an id of an endpoint that the
    /// principal does not reach; `ALREADY_EXISTS`; `IDEMPOTENCY_CONFLICT`; `BEYOND_OWN_SCOPE` for
    /// another owner.
    pub async fn create_endpoint(
        &self,
        principal: &Principal,
        project: ProjectId,
        mut new: NewEndpoint,
        request_id: Option<&str>,
    ) -> Result<Endpoint> {
        new.owner = new.owner.or_else(|| principal.owner.clone());
        let request = Request::new(project.0, request_id, "create_endpoint", &content(&new));
        let transaction = Transaction::begin(self, principal).await?;
        projects::find(&transaction.database, principal, project).await?;
        require_own(principal, new.owner.as_deref())?;
        if let Some(first) = Request::find(request.as_ref(), &transaction).await? {
            let row =
                find_row(&transaction.database, principal, project, EndpointId(first)).await?;
            return rows::from_row(row, self.master_keys());
        }
        let id = new.id.unwrap_or_else(|| EndpointId::new(transaction.now, random()));
        require_free(&transaction.database, principal, id).await?;
        let (endpoint, secret) = build(new, id, project, transaction.now);
        let insert = endpoint::Entity::insert(rows::to_row(&endpoint, self.master_keys())?);
        insert.exec_without_returning(&transaction.database).await.map_err(exists(WHAT))?;
        endpoint_secrets::insert(&transaction, self.master_keys(), project, id, &secret).await?;
        transaction
            .record(ChangeKind::Endpoint, Some(project), id.0, None, Some(describe(&endpoint)))
            .await?;
        Request::remember(request.as_ref(), &transaction, id.0).await?;
        transaction.commit().await?;
        Ok(endpoint)
    }

    /// An endpoint. Masked unless the principal may see signing secrets. Errors: `NOT_FOUND`.
    pub async fn get_endpoint(
        &self,
        principal: &Principal,
        project: ProjectId,
        id: EndpointId,
    ) -> Result<Endpoint> {
        let database = self.reach(principal, project).await?;
        let row = find_row(&database, principal, project, id).await?;
        if principal.scopes.permits(SHOWS_SECRETS) {
            rows::from_row(row, self.master_keys())
        } else {
            rows::masked(row)
        }
    }

    /// The endpoints of a project, or of the given owner in it. Masked. Errors: `NOT_FOUND` for the
    /// project.
    pub async fn list_endpoints(
        &self,
        principal: &Principal,
        project: ProjectId,
        owner: Option<&str>,
        page: PageRequest,
    ) -> Result<Page<Endpoint>> {
        let database = self.reach(principal, project).await?;
        let wanted =
            Condition::all().add_option(owner.map(|owner| endpoint::Column::Owner.eq(owner)));
        let select = within_reach(principal, project).filter(wanted);
        let rows = lists::page(&database, select, endpoint::Column::Id, page, |row| row.id).await?;
        lists::convert(rows, rows::masked)
    }

    /// Changes the given fields. Errors: `NOT_FOUND`, `BEYOND_OWN_SCOPE` for another owner than the
    /// principal is bound to.
    pub async fn update_endpoint(
        &self,
        principal: &Principal,
        project: ProjectId,
        id: EndpointId,
        change: EndpointChange,
    ) -> Result<Endpoint> {
        let transaction = Transaction::begin(self, principal).await?;
        projects::find(&transaction.database, principal, project).await?;
        let row = find_row(&transaction.database, principal, project, id).await?;
        let before = rows::from_row(row, self.master_keys())?;
        let mut after = changed(before.clone(), change);
        require_own(principal, after.owner.as_deref())?;
        if after == before {
            return Ok(before);
        }
        after.updated_at = transaction.now;
        let mut row = rows::to_row(&after, self.master_keys())?;
        row.id = Unchanged(id.0);
        endpoint::Entity::update(row).exec(&transaction.database).await.map_err(unavailable)?;
        let (old, new) = (describe(&before), describe(&after));
        transaction.record(ChangeKind::Endpoint, Some(project), id.0, Some(old), Some(new)).await?;
        transaction.commit().await?;
        Ok(after)
    }

    /// Deletes an endpoint, its values and its subscriptions. Errors: `NOT_FOUND`.
    pub async fn delete_endpoint(
        &self,
        principal: &Principal,
        project: ProjectId,
        id: EndpointId,
    ) -> Result<()> {
        let transaction = Transaction::begin(self, principal).await?;
        projects::find(&transaction.database, principal, project).await?;
        let before = find(&transaction.database, principal, project, id).await?;
        subscription_rows::delete_of_endpoint(&transaction, project, id).await?;
        let deleted_at = Set(Some(transaction.now.0));
        let row = endpoint::ActiveModel {
            id: Unchanged(id.0),
            deleted_at,
            ..rows::forgotten(before.clone())?
        };
        endpoint::Entity::update(row).exec(&transaction.database).await.map_err(unavailable)?;
        transaction
            .record(ChangeKind::Endpoint, Some(project), id.0, Some(describe(&before)), None)
            .await?;
        transaction.commit().await
    }

    /// The newest of the secrets that sign an endpoint's webhooks. Errors: `NOT_FOUND`.
    pub async fn endpoint_secret(
        &self,
        principal: &Principal,
        project: ProjectId,
        id: EndpointId,
    ) -> Result<SigningSecret> {
        find(&self.reach(principal, project).await?, principal, project, id).await?;
        let secrets = endpoint_secrets::load(
            &self.connection_within(principal, project),
            self.master_keys(),
            id,
            self.clock().now(),
        )
        .await?;
        let newest = secrets
            .into_iter()
            .next()
            .ok_or_else(|| Error::internal("the endpoint has no secret"))?;
        Ok(newest.secret)
    }
}

fn build(
    new: NewEndpoint,
    id: EndpointId,
    project: ProjectId,
    now: Timestamp,
) -> (Endpoint, SigningSecret) {
    let endpoint = Endpoint {
        id,
        project,
        target: new.target,
        description: new.description,
        state: new.state,
        // With the precision with which it is stored.
        timeout: Duration::from_micros(u64::try_from(rows::micros(new.timeout)).unwrap_or(0)),
        max_in_flight: new.max_in_flight,
        headers: new.headers,
        metadata: new.metadata,
        owner: new.owner,
        created_at: now,
        updated_at: now,
    };
    (endpoint, new.secret)
}

fn changed(mut endpoint: Endpoint, change: EndpointChange) -> Endpoint {
    let EndpointChange {
        target,
        description,
        state,
        timeout,
        max_in_flight,
        headers,
        metadata,
        owner,
    } = change;
    endpoint.target = target.unwrap_or(endpoint.target);
    endpoint.description = description.unwrap_or(endpoint.description);
    endpoint.state = state.unwrap_or(endpoint.state);
    endpoint.timeout = timeout.unwrap_or(endpoint.timeout);
    endpoint.max_in_flight = max_in_flight.unwrap_or(endpoint.max_in_flight);
    endpoint.headers = headers.unwrap_or(endpoint.headers);
    endpoint.metadata = metadata.unwrap_or(endpoint.metadata);
    endpoint.owner = owner.unwrap_or(endpoint.owner);
    endpoint
}

/// The endpoint, masked, if it exists in the project and the principal reaches it. The caller has
/// checked that the principal reaches the project.
pub(crate) async fn find(
    database: &impl ConnectionTrait,
    principal: &Principal,
    project: ProjectId,
    id: EndpointId,
) -> Result<Endpoint> {
    rows::masked(find_row(database, principal, project, id).await?)
}

async fn find_row(
    database: &impl ConnectionTrait,
    principal: &Principal,
    project: ProjectId,
    id: EndpointId,
) -> Result<endpoint::Model> {
    let row = within_reach(principal, project)
        .filter(endpoint::Column::Id.eq(id.0))
        .one(database)
        .await
        .map_err(unavailable)?;
    row.ok_or_else(|| Error::not_found(WHAT))
}

/// The endpoint with its values, for any caller. None if it does not exist or was deleted. The
/// caller must check whether its project exists, except where the values were removed with the
/// project. If the values cannot be decrypted, returns masks in their place, and false.
pub(super) async fn load(
    database: &impl ConnectionTrait,
    keys: &MasterKeys,
    id: EndpointId,
) -> Result<Option<(Endpoint, bool)>> {
    let existing = endpoint::Entity::find_by_id(id.0).filter(endpoint::Column::DeletedAt.is_null());
    let Some(row) = existing.one(database).await.map_err(unavailable)? else { return Ok(None) };
    if rows::is_forgotten(&row)
        && projects::load(database, ProjectId(row.project_id)).await?.is_none()
    {
        return Ok(None);
    }
    match rows::from_row(row.clone(), keys) {
        Ok(endpoint) => Ok(Some((endpoint, true))),
        Err(error) if error.reason == Reason::Internal => Ok(Some((rows::masked(row)?, false))),
        Err(error) => Err(error),
    }
}

/// Refuses an id that an endpoint has or had. Callers that reach that endpoint learn that it
/// exists; others learn nothing about it. Configuration changes are serialized, so a free id stays
/// free until the transaction ends.
async fn require_free(
    database: &impl ConnectionTrait,
    principal: &Principal,
    id: EndpointId,
) -> Result<()> {
    let Some(row) = endpoint::Entity::find_by_id(id.0).one(database).await.map_err(unavailable)?
    else {
        return Ok(());
    };
    let is_own = principal.owner.is_none() || principal.owner == row.owner;
    match projects::find(database, principal, ProjectId(row.project_id)).await {
        Ok(_) => Err(taken(WHAT, is_own)),
        Err(error) if error.reason == Reason::NotFound => Err(taken(WHAT, false)),
        Err(error) => Err(error),
    }
}

pub(super) fn within_reach(principal: &Principal, project: ProjectId) -> Select<endpoint::Entity> {
    endpoint::Entity::find()
        .filter(endpoint::Column::ProjectId.eq(project.0))
        .filter(endpoint::Column::DeletedAt.is_null())
        .filter(
            Condition::all().add_option(
                principal.owner.as_deref().map(|owner| endpoint::Column::Owner.eq(owner)),
            ),
        )
}

fn require_own(principal: &Principal, owner: Option<&str>) -> Result<()> {
    match principal.owner.as_deref() {
        Some(own) if Some(own) != owner => Err(Error::new(
            Reason::BeyondOwnScope,
            "the API key is bound to another owner of endpoints",
        )),
        _ => Ok(()),
    }
}

/// What distinguishes one request from another.
fn content(new: &NewEndpoint) -> Value {
    json!({
        "id": new.id.map(|id| id.to_string()),
        "target_kind": new.target.kind(),
        "target": rows::target(&new.target),
        "description": new.description,
        "state": new.state as i16,
        "timeout": new.timeout.as_nanos().to_string(),
        "max_in_flight": new.max_in_flight,
        "headers": *new.headers,
        "metadata": new.metadata,
        "owner": new.owner,
    })
}

/// For the change feed: without values that may be credentials, which are those of headers and the
/// query of the URL.
fn describe(endpoint: &Endpoint) -> Value {
    json!({
        "endpoint_id": endpoint.id.to_string(),
        "target_kind": endpoint.target.kind(),
        "target": rows::target(&endpoint.target.clone().masked()),
        "description": endpoint.description,
        "state": match endpoint.state {
            EndpointState::Active => "active",
            EndpointState::Paused => "paused",
        },
        "timeout_micros": rows::micros(endpoint.timeout),
        "max_in_flight": endpoint.max_in_flight,
        "header_names": endpoint.headers.keys().collect::<Vec<_>>(),
        "metadata": endpoint.metadata,
        "owner_id": endpoint.owner,
    })
}
