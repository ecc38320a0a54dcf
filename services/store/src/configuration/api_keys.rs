//! API keys. Only the hash of a token is stored. A key grants only what it has itself.

use outrider_model::{
    ApiKey, ApiKeyFixed, ApiKeyId, ApiKeySpec, Error, Meta, Noun, OrganizationId, Page,
    PageRequest, Principal, ProjectId, Reason, Result, ScopeSet, Timestamp, Token,
};
use rand::RngExt;
use sea_orm::{
    ActiveValue::Set, ColumnTrait, Condition, ConnectionTrait, EntityTrait, QueryFilter,
    QueryOrder, QuerySelect, QueryTrait, Select,
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    entity::{
        api_key::{ActiveModel, Column, Entity, Model},
        project,
    },
    projects,
    resource::{self, New, OwnOrganization, Resource, Values, by_id, insert_row, update_row},
    transaction::Transaction,
};
use crate::{ChangeKind, Store, cipher::MasterKeys, connection::error::unavailable};

/// An API key to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewApiKey {
    /// The project that the key is bound to. Absent for a key of the whole organization.
    pub project: Option<ProjectId>,
    pub spec: ApiKeySpec,
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
        let NewApiKey { project, spec } = new;
        require_within_own(principal, project, spec.scopes)?;
        let content = json!({
            "project": project.map(|id| id.to_string()), "name": spec.name,
            "scopes": spec.scopes.bits(), "expires_at": spec.expires_at.map(|at| at.0),
        });
        let fixed = ApiKeyFixed { organization: principal.organization, project };
        let secret = KeySecret::random();
        let new = New { id: None, fixed, spec, secret };
        let created =
            resource::create(self, principal, OwnOrganization, new, &content, request_id).await?;
        let token = (!created.is_repeated).then(|| secret.token(created.noun.id));
        Ok((created.noun, token))
    }

    /// A key. Errors: `NOT_FOUND`.
    pub async fn get_api_key(&self, principal: &Principal, id: ApiKeyId) -> Result<ApiKey> {
        let which = by_id::<ApiKeySpec>(id);
        resource::get(self, principal, OwnOrganization, which, Values::Masked).await
    }

    /// The keys of the organization, or of the project that the principal is bound to.
    pub async fn list_api_keys(
        &self,
        principal: &Principal,
        page: PageRequest,
    ) -> Result<Page<ApiKey>> {
        resource::list(self, principal, OwnOrganization, Condition::all(), page).await
    }

    /// Changes the spec. Errors: `NOT_FOUND`; `BEYOND_OWN_SCOPE` if the key has, or would have,
    /// more rights than the principal.
    pub async fn update_api_key(
        &self,
        principal: &Principal,
        id: ApiKeyId,
        change: impl FnOnce(&mut ApiKeySpec) + Send,
    ) -> Result<ApiKey> {
        let which = by_id::<ApiKeySpec>(id);
        resource::update(self, principal, OwnOrganization, which, change).await
    }

    /// Revokes a key. Errors: `NOT_FOUND`.
    pub async fn delete_api_key(&self, principal: &Principal, id: ApiKeyId) -> Result<()> {
        let which = by_id::<ApiKeySpec>(id);
        resource::delete::<ApiKeySpec>(self, principal, OwnOrganization, which).await
    }
}

/// The random part of a token.
#[derive(Clone, Copy)]
pub(super) struct KeySecret([u8; 32]);

impl KeySecret {
    pub fn random() -> Self {
        Self(rand::rng().random())
    }

    /// The token of the key with this id.
    pub fn token(self, id: ApiKeyId) -> Token {
        Token::new(id, self.0)
    }
}

impl Resource for ApiKeySpec {
    const WHAT: &'static str = "api key";
    const KIND: ChangeKind = ChangeKind::ApiKey;
    type Entity = Entity;
    const ID: Column = Column::Id;
    type Parent = OwnOrganization;
    type Secret = KeySecret;

    fn from_row(row: Model, _: Values<'_>) -> Result<ApiKey> {
        let meta = Meta {
            id: ApiKeyId(row.id),
            fixed: ApiKeyFixed {
                organization: OrganizationId(row.organization_id),
                project: row.project_id.map(ProjectId),
            },
            created_at: Timestamp(row.created_at),
            updated_at: Timestamp(row.updated_at),
        };
        let spec = Self {
            name: row.name,
            scopes: ScopeSet::from_bits(row.scopes),
            expires_at: row.expires_at.map(Timestamp),
        };
        Ok(Noun { meta, spec })
    }

    fn to_row(key: &ApiKey, _: &MasterKeys) -> Result<ActiveModel> {
        Ok(ActiveModel {
            id: Set(key.id.0),
            organization_id: Set(key.fixed.organization.0),
            project_id: Set(key.fixed.project.map(|project| project.0)),
            name: Set(key.spec.name.clone()),
            scopes: Set(key.spec.scopes.bits()),
            expires_at: Set(key.spec.expires_at.map(|at| at.0)),
            created_at: Set(key.created_at.0),
            updated_at: Set(key.updated_at.0),
            ..ActiveModel::default()
        })
    }

    /// Keys of the organization, or of the project that the principal is bound to, that are not
    /// revoked and whose project exists. A principal that is bound to an owner sees none.
    fn within_reach(principal: &Principal, _: OwnOrganization) -> Select<Entity> {
        let projects = project::Entity::find()
            .select_only()
            .column(project::Column::Id)
            .filter(project::Column::OrganizationId.eq(principal.organization.0))
            .filter(project::Column::DeletedAt.is_null())
            .into_query();
        let project_exists = Condition::any()
            .add(Column::ProjectId.is_null())
            .add(Column::ProjectId.in_subquery(projects));
        Entity::find()
            .filter(Column::OrganizationId.eq(principal.organization.0))
            .filter(Column::DeletedAt.is_null())
            .filter(project_exists)
            .filter(
                Condition::all()
                    .add_option(principal.project.map(|bound| Column::ProjectId.eq(bound.0)))
                    .add_option(principal.owner.as_ref().map(|_| Column::Id.is_null())),
            )
    }

    /// Also when only the lifetime of a key changes: extending a more powerful key would grant
    /// rights that the principal does not have. Whoever reaches a key may revoke it.
    fn permit(principal: &Principal, after: Option<&ApiKey>) -> Result<()> {
        match after {
            Some(key) => require_within_own(principal, key.fixed.project, key.spec.scopes),
            None => Ok(()),
        }
    }

    async fn admit(
        transaction: &Transaction<'_>,
        principal: &Principal,
        key: &ApiKey,
    ) -> Result<()> {
        match key.fixed.project {
            Some(project) => {
                projects::find(&transaction.database, principal, project).await.map(drop)
            }
            None => Ok(()),
        }
    }

    async fn insert(transaction: &Transaction<'_>, key: &ApiKey, secret: &KeySecret) -> Result<()> {
        let hash = Set(secret.token(key.id).hash().to_vec());
        let row = Self::to_row(key, transaction.store.master_keys())?;
        insert_row::<Self>(transaction, ActiveModel { hash, ..row }).await
    }

    async fn remove(transaction: &Transaction<'_>, key: &ApiKey) -> Result<()> {
        let row = ActiveModel {
            id: Set(key.id.0),
            deleted_at: Set(Some(transaction.now.0)),
            ..ActiveModel::default()
        };
        update_row::<Self>(transaction, row).await
    }

    fn project(key: &ApiKey) -> Option<ProjectId> {
        key.fixed.project
    }

    fn describe(key: &ApiKey) -> Value {
        json!({
            "api_key_id": key.id.to_string(),
            "project_id": key.fixed.project.map(|project| project.to_string()),
            "name": key.spec.name,
            "scopes": key.spec.scopes.iter().map(|scope| scope.to_string()).collect::<Vec<_>>(),
            "expires_at_micros": key.spec.expires_at.map(|at| at.0),
        })
    }
}

/// A key and the hash of its token, for any caller. None if it does not exist or was revoked. The
/// caller must check whether it expired and whether its project exists.
pub(super) async fn load(
    database: &impl ConnectionTrait,
    id: ApiKeyId,
) -> Result<Option<(ApiKey, Vec<u8>)>> {
    let existing = Entity::find_by_id(id.0).filter(Column::DeletedAt.is_null());
    let Some(mut row) = existing.one(database).await.map_err(unavailable)? else {
        return Ok(None);
    };
    let hash = std::mem::take(&mut row.hash);
    Ok(Some((ApiKeySpec::from_row(row, Values::Masked)?, hash)))
}

/// The ids of up to `most` keys that are not revoked, in order, after the given one.
pub(super) async fn ids(
    database: &impl ConnectionTrait,
    after: Option<ApiKeyId>,
    most: u64,
) -> Result<Vec<ApiKeyId>> {
    let ids = Entity::find()
        .select_only()
        .column(Column::Id)
        .filter(Column::DeletedAt.is_null())
        .filter(Condition::all().add_option(after.map(|after| Column::Id.gt(after.0))))
        .order_by_asc(Column::Id)
        .limit(most)
        .into_tuple::<Uuid>();
    Ok(ids.all(database).await.map_err(unavailable)?.into_iter().map(ApiKeyId).collect())
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
