//! Endpoints of a project. A principal that is bound to an owner sees only those of that owner.
//! Deleted endpoints count as not existing.

use outrider_model::{
    Endpoint, EndpointFixed, EndpointId, EndpointSpec, EndpointState, Error, Page, PageRequest,
    Principal, ProjectId, Reason, Result, Scope, SigningSecret, SubscriptionSpec,
};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, Condition, ConnectionTrait, EntityTrait, QueryFilter,
    QueryOrder, Select,
};
use serde_json::{Value, json};

use super::{
    endpoint_rows as rows, endpoint_secrets,
    entity::{
        endpoint::{ActiveModel, Column, Entity, Model},
        subscription,
    },
    projects,
    resource::{
        self, New, Resource, Values, by_id, insert_row, remove, row_of_anybody, update_row,
    },
    settings,
    transaction::Transaction,
};
use crate::{
    ChangeKind, Store,
    cipher::MasterKeys,
    connection::error::{taken, unavailable},
};

/// The scope that reveals signing secrets, and so all values that are used as secrets.
const SHOWS_SECRETS: Scope = Scope::EndpointsWrite;

/// An endpoint to create.
#[derive(Debug, Clone)]
pub struct NewEndpoint {
    /// Generated if absent.
    pub id: Option<EndpointId>,
    pub spec: EndpointSpec,
    /// Stored encrypted. Two requests with the same request id are compared without it, because a
    /// secret that is not given is generated for each.
    pub secret: SigningSecret,
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
        new: NewEndpoint,
        request_id: Option<&str>,
    ) -> Result<Endpoint> {
        let NewEndpoint { id, mut spec, secret } = new;
        spec.owner = spec.owner.or_else(|| principal.owner.clone());
        let content = content(id, &spec);
        spec.limits.timeout = rows::stored_timeout(spec.limits.timeout);
        let new = New { id, fixed: EndpointFixed { project }, spec, secret };
        resource::create(self, principal, project, new, &content, request_id)
            .await
            .map(|created| created.noun)
    }

    /// An endpoint. Masked unless the principal may see signing secrets. Errors: `NOT_FOUND`.
    pub async fn get_endpoint(
        &self,
        principal: &Principal,
        project: ProjectId,
        id: EndpointId,
    ) -> Result<Endpoint> {
        let values = if principal.scopes.permits(SHOWS_SECRETS) {
            Values::Opened(self.master_keys())
        } else {
            Values::Masked
        };
        resource::get(self, principal, project, by_id::<EndpointSpec>(id), values).await
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
        let wanted = Condition::all().add_option(owner.map(|owner| Column::Owner.eq(owner)));
        resource::list(self, principal, project, wanted, page).await
    }

    /// Changes the spec. Errors: `NOT_FOUND`, `BEYOND_OWN_SCOPE` for another owner than the
    /// principal is bound to.
    pub async fn update_endpoint(
        &self,
        principal: &Principal,
        project: ProjectId,
        id: EndpointId,
        change: impl FnOnce(&mut EndpointSpec) + Send,
    ) -> Result<Endpoint> {
        resource::update(self, principal, project, by_id::<EndpointSpec>(id), change).await
    }

    /// Deletes an endpoint, its values and its subscriptions. Errors: `NOT_FOUND`.
    pub async fn delete_endpoint(
        &self,
        principal: &Principal,
        project: ProjectId,
        id: EndpointId,
    ) -> Result<()> {
        let which = by_id::<EndpointSpec>(id);
        resource::delete::<EndpointSpec>(self, principal, project, which).await
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

impl Resource for EndpointSpec {
    const WHAT: &'static str = "endpoint";
    const KIND: ChangeKind = ChangeKind::Endpoint;
    type Entity = Entity;
    const ID: Column = Column::Id;
    type Parent = ProjectId;
    type Secret = SigningSecret;

    fn from_row(row: Model, values: Values<'_>) -> Result<Endpoint> {
        match values {
            Values::Opened(keys) => rows::from_row(row, keys),
            Values::Masked => rows::masked(row),
        }
    }

    fn to_row(endpoint: &Endpoint, keys: &MasterKeys) -> Result<ActiveModel> {
        rows::to_row(endpoint, keys)
    }

    fn within_reach(principal: &Principal, project: ProjectId) -> Select<Entity> {
        let own = principal.owner.as_deref().map(|owner| Column::Owner.eq(owner));
        Entity::find()
            .filter(Column::ProjectId.eq(project.0))
            .filter(Column::DeletedAt.is_null())
            .filter(Condition::all().add_option(own))
    }

    /// Endpoints of other owners are beyond the scope of a key that is bound to an owner.
    fn permit(principal: &Principal, after: Option<&Endpoint>) -> Result<()> {
        match (&principal.owner, after) {
            (Some(own), Some(endpoint)) if endpoint.spec.owner.as_ref() != Some(own) => {
                Err(Error::new(
                    Reason::BeyondOwnScope,
                    "the API key is bound to another owner of endpoints",
                ))
            }
            _ => Ok(()),
        }
    }

    /// Callers that reach the endpoint that has or had this id learn that it exists. Others learn
    /// nothing about it.
    async fn admit(
        transaction: &Transaction<'_>,
        principal: &Principal,
        endpoint: &Endpoint,
    ) -> Result<()> {
        let database = &transaction.database;
        let Some(row) = row_of_anybody::<Self>(database, endpoint.id).await? else {
            return Ok(());
        };
        let is_own = principal.owner.is_none() || principal.owner == row.owner;
        match projects::find(database, principal, ProjectId(row.project_id)).await {
            Ok(_) => Err(taken(Self::WHAT, is_own)),
            Err(error) if error.reason == Reason::NotFound => Err(taken(Self::WHAT, false)),
            Err(error) => Err(error),
        }
    }

    async fn insert(
        transaction: &Transaction<'_>,
        endpoint: &Endpoint,
        secret: &SigningSecret,
    ) -> Result<()> {
        let (keys, project) = (transaction.store.master_keys(), endpoint.fixed.project);
        insert_row::<Self>(transaction, Self::to_row(endpoint, keys)?).await?;
        endpoint_secrets::insert(transaction, keys, project, endpoint.id, secret).await
    }

    /// Its values are removed with it.
    async fn remove(transaction: &Transaction<'_>, endpoint: &Endpoint) -> Result<()> {
        remove_subscriptions(transaction, endpoint).await?;
        let row = ActiveModel {
            id: Set(endpoint.id.0),
            deleted_at: Set(Some(transaction.now.0)),
            ..rows::forgotten(endpoint.clone())?
        };
        update_row::<Self>(transaction, row).await
    }

    fn project(endpoint: &Endpoint) -> Option<ProjectId> {
        Some(endpoint.fixed.project)
    }

    /// Without values that may be credentials, which are those of headers and the query of the URL.
    fn describe(endpoint: &Endpoint) -> Value {
        let spec = &endpoint.spec;
        let columns = json!({
            "endpoint_id": endpoint.id.to_string(),
            "target_kind": spec.target.kind(),
            "target": rows::target(&spec.target.clone().masked()),
            "description": spec.description,
            "state": match spec.state {
                EndpointState::Active => "active",
                EndpointState::Paused => "paused",
            },
            "timeout_micros": rows::micros(spec.limits.timeout),
            "max_in_flight": spec.limits.max_in_flight,
            "header_names": spec.headers.keys().collect::<Vec<_>>(),
            "metadata": spec.metadata,
            "owner_id": spec.owner,
        });
        settings::describe(spec, columns)
    }
}

/// What distinguishes one request to create an endpoint from another.
fn content(id: Option<EndpointId>, spec: &EndpointSpec) -> Value {
    let columns = json!({
        "id": id.map(|id| id.to_string()),
        "target_kind": spec.target.kind(),
        "target": rows::target(&spec.target),
        "description": spec.description,
        "state": spec.state as i16,
        "timeout": spec.limits.timeout.as_nanos().to_string(),
        "max_in_flight": spec.limits.max_in_flight,
        "headers": *spec.headers,
        "metadata": spec.metadata,
        "owner": spec.owner,
    });
    settings::describe(spec, columns)
}

async fn remove_subscriptions(transaction: &Transaction<'_>, endpoint: &Endpoint) -> Result<()> {
    let rows = subscription::Entity::find()
        .filter(subscription::Column::ProjectId.eq(endpoint.fixed.project.0))
        .filter(subscription::Column::EndpointId.eq(endpoint.id.0))
        .order_by_asc(subscription::Column::Id)
        .all(&transaction.database)
        .await
        .map_err(unavailable)?;
    for row in rows {
        remove(transaction, &SubscriptionSpec::from_row(row, Values::Masked)?).await?;
    }
    Ok(())
}

/// The endpoint, masked, if it exists in the project and the principal reaches it. The caller has
/// checked that the principal reaches the project.
pub(crate) async fn find(
    database: &impl ConnectionTrait,
    principal: &Principal,
    project: ProjectId,
    id: EndpointId,
) -> Result<Endpoint> {
    let which = by_id::<EndpointSpec>(id);
    resource::find(database, principal, project, which, Values::Masked).await
}

/// The endpoint with its values, for any caller. None if it does not exist or was deleted. The
/// caller must check whether its project exists, except where the values were removed with the
/// project. If the values cannot be decrypted, returns masks in their place, and false.
pub(super) async fn load(
    database: &impl ConnectionTrait,
    keys: &MasterKeys,
    id: EndpointId,
) -> Result<Option<(Endpoint, bool)>> {
    let existing = Entity::find_by_id(id.0).filter(Column::DeletedAt.is_null());
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
