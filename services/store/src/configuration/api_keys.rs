//! API keys. Only the hash of a token is stored. A key grants only what it has itself.

use outrider_model::{
    ApiKey, ApiKeyId, Error, OrganizationId, Page, PageRequest, Principal, ProjectId, Reason,
    Result, ScopeSet, Timestamp, Token,
};
use rand::RngExt;
use sea_orm::{
    ActiveValue::{Set, Unchanged},
    ColumnTrait, Condition, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
    QueryTrait, Select,
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    entity::{api_key, project},
    lists, projects,
    requests::Request,
    transaction::{Transaction, random},
};
use crate::{
    ChangeKind, Store,
    connection::error::{exists, unavailable},
};

const WHAT: &str = "api key";

/// An API key to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewApiKey {
    /// The project that the key is bound to. Absent for a key of the whole organization.
    pub project: Option<ProjectId>,
    pub name: String,
    pub scopes: ScopeSet,
    /// The time from which the key is refused.
    pub expires_at: Option<Timestamp>,
}

/// A change of an API key. Absent fields stay as they are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ApiKeyChange {
    pub name: Option<String>,
    pub scopes: Option<ScopeSet>,
    /// `Some(None)` removes it.
    pub expires_at: Option<Option<Timestamp>>,
}

impl Store {
    /// Creates a key. The token is absent if `request_id` repeats an earlier request, which was
    /// answered with it. Errors: `NOT_FOUND` for the project, `BEYOND_OWN_SCOPE`,
    /// `IDEMPOTENCY_CONFLICT`.
    pub async fn create_api_key(
        &self,
        principal: &Principal,
        new: NewApiKey,
        request_id: Option<&str>,
    ) -> Result<(ApiKey, Option<Token>)> {
        require_within_own(principal, new.project, new.scopes)?;
        let content = json!({
            "project": new.project.map(|id| id.to_string()), "name": new.name,
            "scopes": new.scopes.bits(), "expires_at": new.expires_at.map(|at| at.0),
        });
        let scope = principal.project.map_or(principal.organization.0, |project| project.0);
        let request = Request::new(scope, request_id, "create_api_key", &content);
        let transaction = Transaction::begin(self, principal).await?;
        if let Some(first) = Request::find(request.as_ref(), &transaction).await? {
            return Ok((find(&transaction.database, principal, ApiKeyId(first)).await?, None));
        }
        if let Some(project) = new.project {
            projects::find(&transaction.database, principal, project).await?;
        }
        let (key, token) = insert(&transaction, principal.organization, new).await?;
        Request::remember(request.as_ref(), &transaction, key.id.0).await?;
        transaction.commit().await?;
        Ok((key, Some(token)))
    }

    /// A key. Errors: `NOT_FOUND`.
    pub async fn get_api_key(&self, principal: &Principal, id: ApiKeyId) -> Result<ApiKey> {
        find(&self.connection_of(principal), principal, id).await
    }

    /// The keys of the organization, or of the project that the principal is bound to.
    pub async fn list_api_keys(
        &self,
        principal: &Principal,
        page: PageRequest,
    ) -> Result<Page<ApiKey>> {
        let rows = lists::page(
            &self.connection_of(principal),
            within_reach(principal),
            api_key::Column::Id,
            page,
            |row| row.id,
        )
        .await?;
        Ok(rows.map(from_row))
    }

    /// Changes the given fields. Errors: `NOT_FOUND`; `BEYOND_OWN_SCOPE` if the key has, or would
    /// have, more rights than the principal.
    pub async fn update_api_key(
        &self,
        principal: &Principal,
        id: ApiKeyId,
        change: ApiKeyChange,
    ) -> Result<ApiKey> {
        let transaction = Transaction::begin(self, principal).await?;
        let before = find(&transaction.database, principal, id).await?;
        let mut after = before.clone();
        after.name = change.name.unwrap_or(after.name);
        after.scopes = change.scopes.unwrap_or(after.scopes);
        after.expires_at = change.expires_at.unwrap_or(after.expires_at);
        // Also when only its lifetime changes: extending a more powerful key would grant rights
        // that the principal does not have.
        require_within_own(principal, after.project, after.scopes)?;
        if after == before {
            return Ok(before);
        }
        after.updated_at = transaction.now;
        let row = api_key::ActiveModel {
            id: Unchanged(id.0),
            name: Set(after.name.clone()),
            scopes: Set(after.scopes.bits()),
            expires_at: Set(after.expires_at.map(|at| at.0)),
            updated_at: Set(after.updated_at.0),
            ..Default::default()
        };
        api_key::Entity::update(row).exec(&transaction.database).await.map_err(unavailable)?;
        let (old, new) = (describe(&before), describe(&after));
        transaction.record(ChangeKind::ApiKey, after.project, id.0, Some(old), Some(new)).await?;
        transaction.commit().await?;
        Ok(after)
    }

    /// Revokes a key. Errors: `NOT_FOUND`.
    pub async fn delete_api_key(&self, principal: &Principal, id: ApiKeyId) -> Result<()> {
        let transaction = Transaction::begin(self, principal).await?;
        let before = find(&transaction.database, principal, id).await?;
        let row = api_key::ActiveModel {
            id: Unchanged(id.0),
            deleted_at: Set(Some(transaction.now.0)),
            ..Default::default()
        };
        api_key::Entity::update(row).exec(&transaction.database).await.map_err(unavailable)?;
        transaction
            .record(ChangeKind::ApiKey, before.project, id.0, Some(describe(&before)), None)
            .await?;
        transaction.commit().await
    }
}

/// A key and the hash of its token, for any caller. None if it does not exist or was revoked. The
/// caller must check whether it expired and whether its project exists.
pub(super) async fn load(
    database: &impl ConnectionTrait,
    id: ApiKeyId,
) -> Result<Option<(ApiKey, Vec<u8>)>> {
    let existing = api_key::Entity::find_by_id(id.0).filter(api_key::Column::DeletedAt.is_null());
    let row = existing.one(database).await.map_err(unavailable)?;
    Ok(row.map(|mut row| {
        let hash = std::mem::take(&mut row.hash);
        (from_row(row), hash)
    }))
}

/// The ids of up to `most` keys that are not revoked, in order, after the given one.
pub(super) async fn ids(
    database: &impl ConnectionTrait,
    after: Option<ApiKeyId>,
    most: u64,
) -> Result<Vec<ApiKeyId>> {
    let ids = api_key::Entity::find()
        .select_only()
        .column(api_key::Column::Id)
        .filter(api_key::Column::DeletedAt.is_null())
        .filter(Condition::all().add_option(after.map(|after| api_key::Column::Id.gt(after.0))))
        .order_by_asc(api_key::Column::Id)
        .limit(most)
        .into_tuple::<Uuid>();
    Ok(ids.all(database).await.map_err(unavailable)?.into_iter().map(ApiKeyId).collect())
}

/// Adds a key of an organization.
pub(super) async fn insert(
    transaction: &Transaction,
    organization: OrganizationId,
    new: NewApiKey,
) -> Result<(ApiKey, Token)> {
    let now = transaction.now;
    let id = ApiKeyId::new(now, random());
    let token = Token::new(id, rand::rng().random());
    let NewApiKey { project, name, scopes, expires_at } = new;
    let key = ApiKey {
        id,
        organization,
        project,
        name,
        scopes,
        expires_at,
        created_at: now,
        updated_at: now,
    };
    let row = api_key::ActiveModel {
        id: Set(id.0),
        organization_id: Set(organization.0),
        project_id: Set(project.map(|project| project.0)),
        name: Set(key.name.clone()),
        scopes: Set(scopes.bits()),
        hash: Set(token.hash().to_vec()),
        expires_at: Set(expires_at.map(|at| at.0)),
        created_at: Set(now.0),
        updated_at: Set(now.0),
        deleted_at: Set(None),
    };
    api_key::Entity::insert(row)
        .exec_without_returning(&transaction.database)
        .await
        .map_err(exists(WHAT))?;
    transaction
        .record(ChangeKind::ApiKey, key.project, key.id.0, None, Some(describe(&key)))
        .await?;
    Ok((key, token))
}

fn require_within_own(
    principal: &Principal,
    project: Option<ProjectId>,
    scopes: ScopeSet,
) -> Result<()> {
    let refused = |message| Err(Error::new(Reason::BeyondOwnScope, message));
    if principal.owner.is_some() {
        return refused("the API key is bound to an owner of endpoints and cannot grant keys");
    }
    if principal.project.is_some() && principal.project != project {
        return refused("the API key is bound to a project and grants only keys of that project");
    }
    if !principal.scopes.covers(scopes) {
        return refused("the API key does not have all scopes of the other key");
    }
    Ok(())
}

async fn find(
    database: &impl ConnectionTrait,
    principal: &Principal,
    id: ApiKeyId,
) -> Result<ApiKey> {
    let row = within_reach(principal)
        .filter(api_key::Column::Id.eq(id.0))
        .one(database)
        .await
        .map_err(unavailable)?;
    row.map(from_row).ok_or_else(|| Error::not_found(WHAT))
}

/// Keys of the organization, or of the project that the principal is bound to, that are not revoked
/// and whose project exists. A principal that is bound to an owner sees none.
fn within_reach(principal: &Principal) -> Select<api_key::Entity> {
    let projects = project::Entity::find()
        .select_only()
        .column(project::Column::Id)
        .filter(project::Column::OrganizationId.eq(principal.organization.0))
        .filter(project::Column::DeletedAt.is_null())
        .into_query();
    let project_exists = Condition::any()
        .add(api_key::Column::ProjectId.is_null())
        .add(api_key::Column::ProjectId.in_subquery(projects));
    api_key::Entity::find()
        .filter(api_key::Column::OrganizationId.eq(principal.organization.0))
        .filter(api_key::Column::DeletedAt.is_null())
        .filter(project_exists)
        .filter(
            Condition::all()
                .add_option(principal.project.map(|bound| api_key::Column::ProjectId.eq(bound.0)))
                .add_option(principal.owner.as_ref().map(|_| api_key::Column::Id.is_null())),
        )
}

fn from_row(row: api_key::Model) -> ApiKey {
    ApiKey {
        id: ApiKeyId(row.id),
        organization: OrganizationId(row.organization_id),
        project: row.project_id.map(ProjectId),
        name: row.name,
        scopes: ScopeSet::from_bits(row.scopes),
        expires_at: row.expires_at.map(Timestamp),
        created_at: Timestamp(row.created_at),
        updated_at: Timestamp(row.updated_at),
    }
}

fn describe(key: &ApiKey) -> Value {
    json!({
        "api_key_id": key.id.to_string(),
        "project_id": key.project.map(|project| project.to_string()),
        "name": key.name,
        "scopes": key.scopes.iter().map(|scope| scope.to_string()).collect::<Vec<_>>(),
        "expires_at_micros": key.expires_at.map(|at| at.0),
    })
}
