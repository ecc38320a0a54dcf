//! Endpoints of a project; a principal that is bound to an owner sees those of that owner only.
//! Deleted ones are as if they were not.

pub(crate) mod rows;

use std::{collections::BTreeMap, time::Duration};

use outrider_model::{
    Endpoint, EndpointId, EndpointState, Error, Headers, Page, PageRequest, Principal, ProjectId,
    Reason, Result, Scope, SigningSecret, Target,
};
use sea_orm::{
    ActiveValue::{Set, Unchanged},
    ColumnTrait, Condition, ConnectionTrait, EntityTrait, QueryFilter, Select,
};
use serde_json::{Value, json};

use crate::{
    ChangeKind, MasterKeys, Store, endpoint_secrets,
    entity::endpoint,
    error::{exists, taken, unavailable},
    lists, projects,
    requests::Request,
    subscriptions,
    transaction::{Transaction, random},
};

const WHAT: &str = "endpoint";

/// The scope that shows signing secrets, and so all values that are used as secrets.
const SHOWS_SECRETS: Scope = Scope::EndpointsWrite;

/// An endpoint to be created.
#[derive(Debug, Clone)]
pub struct NewEndpoint {
    /// Made when absent.
    pub id: Option<EndpointId>,
    pub target: Target,
    pub description: String,
    pub state: EndpointState,
    pub timeout: Duration,
    pub max_in_flight: u32,
    pub headers: Headers,
    pub metadata: BTreeMap<String, String>,
    pub owner: Option<String>,
    /// Kept encrypted. It is no part of what makes two requests with one request id the same,
    /// because one that was not given is made anew for each.
    pub secret: SigningSecret,
}

/// What of an endpoint is to change.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EndpointChange {
    pub target: Option<Target>,
    pub description: Option<String>,
    pub state: Option<EndpointState>,
    pub timeout: Option<Duration>,
    pub max_in_flight: Option<u32>,
    pub headers: Option<Headers>,
    pub metadata: Option<BTreeMap<String, String>>,
    /// `Some(None)`: it shall have none.
    pub owner: Option<Option<String>>,
}

impl Store {
    /// Creates an endpoint and its secret. A principal that is bound to an owner creates endpoints
    /// of that owner. Errors: `NOT_FOUND` for the project and when the given id is taken by what
    /// the principal does not reach, `ALREADY_EXISTS`, `IDEMPOTENCY_CONFLICT`, `BEYOND_OWN_SCOPE`
    /// for another owner.
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
        let (endpoint, secret) = rows::build(new, id, project, transaction.now);
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

    /// One endpoint; masked unless the principal may see signing secrets, too. Errors: `NOT_FOUND`.
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

    /// The endpoints of a project, of one owner when one is named; masked. Errors: `NOT_FOUND` for
    /// the project.
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

    /// Changes what is given. Errors: `NOT_FOUND`, `BEYOND_OWN_SCOPE` for another owner than the
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
        let mut after = rows::changed(before.clone(), change);
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
        subscriptions::delete_of_endpoint(&transaction, project, id).await?;
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

    /// The secret with which an endpoint's webhooks are signed, the newest. Errors: `NOT_FOUND`.
    pub async fn endpoint_secret(
        &self,
        principal: &Principal,
        project: ProjectId,
        id: EndpointId,
    ) -> Result<SigningSecret> {
        find(&self.reach(principal, project).await?, principal, project, id).await?;
        let secrets = endpoint_secrets::load(
            &self.asked_within(principal, project),
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

/// The endpoint, masked, when it exists in the project and the principal reaches it. That the
/// principal reaches the project was checked.
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

/// The endpoint with its values, whoever asks; none when it does not exist or was deleted. Whether
/// its project exists is for the caller to see, except where the values were forgotten with it.
/// With masks in place of its values, and false, when these cannot be opened.
pub(crate) async fn load(
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

/// Refuses an id that an endpoint has or had. Callers who reach that endpoint are told that it
/// exists; others are told nothing about it. Changes of configuration are serialised, so a free id
/// stays free until the transaction ends.
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

pub(crate) fn within_reach(principal: &Principal, project: ProjectId) -> Select<endpoint::Entity> {
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

/// What tells one request from another.
fn content(new: &NewEndpoint) -> Value {
    json!({
        "id": new.id.map(|id| id.to_string()), "target_kind": new.target.kind(), "target": rows::target(&new.target),
        "description": new.description, "state": new.state as i16, "timeout": new.timeout.as_nanos().to_string(),
        "max_in_flight": new.max_in_flight, "headers": *new.headers, "metadata": new.metadata, "owner": new.owner,
    })
}

/// For the feed: without what may be credentials, the values of headers and the query of the URL.
fn describe(endpoint: &Endpoint) -> Value {
    json!({
        "endpoint_id": endpoint.id.to_string(),
        "target_kind": endpoint.target.kind(),
        "target": rows::target(&endpoint.target.clone().masked()),
        "description": endpoint.description,
        "state": match endpoint.state { EndpointState::Active => "active", EndpointState::Paused => "paused" },
        "timeout_micros": rows::micros(endpoint.timeout),
        "max_in_flight": endpoint.max_in_flight,
        "header_names": endpoint.headers.keys().collect::<Vec<_>>(),
        "metadata": endpoint.metadata,
        "owner_id": endpoint.owner,
    })
}
