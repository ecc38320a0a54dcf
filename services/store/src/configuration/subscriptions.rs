//! Subscriptions of a project. A principal that is bound to an owner of endpoints sees only those
//! of that owner's endpoints. Deleted subscriptions are removed; the change feed keeps their
//! content.

use outrider_model::{
    EndpointId, EndpointSpec, EventTypePattern, Meta, Noun, Page, PageRequest, Principal,
    ProjectId, Reason, Result, Subscription, SubscriptionFixed, SubscriptionId, SubscriptionSpec,
    Timestamp,
};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, Condition, ConnectionTrait, EntityTrait, QueryFilter,
    QueryOrder, QuerySelect, QueryTrait, Select,
};
use serde_json::{Value, json};

use super::{
    endpoints,
    entity::{
        endpoint,
        subscription::{ActiveModel, Column, Entity, Model},
    },
    json::{parse_json, to_json},
    projects,
    resource::{self, New, Resource, Values, by_id, row_of_anybody},
    transaction::Transaction,
};
use crate::{
    ChangeKind, Store,
    cipher::MasterKeys,
    connection::error::{malformed_row, taken, unavailable},
};

const TABLE: &str = "subscriptions";

/// A subscription to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSubscription {
    /// Generated if absent.
    pub id: Option<SubscriptionId>,
    pub endpoint: EndpointId,
    pub spec: SubscriptionSpec,
}

impl Store {
    /// Creates a subscription. Errors: `NOT_FOUND` for the project, for the endpoint, and for an id
    /// of a subscription that the principal does not reach; `ALREADY_EXISTS`;
    /// `IDEMPOTENCY_CONFLICT`.
    pub async fn create_subscription(
        &self,
        principal: &Principal,
        project: ProjectId,
        new: NewSubscription,
        request_id: Option<&str>,
    ) -> Result<Subscription> {
        let NewSubscription { id, endpoint, spec } = new;
        let content = json!({
            "id": id.map(|id| id.to_string()), "endpoint": endpoint.to_string(),
            "name": spec.name, "event_types": texts(&spec.event_types),
        });
        let fixed = SubscriptionFixed { project, endpoint };
        let new = New { id, fixed, spec, secret: () };
        resource::create(self, principal, project, new, &content, request_id)
            .await
            .map(|created| created.noun)
    }

    /// A subscription. Errors: `NOT_FOUND`.
    pub async fn get_subscription(
        &self,
        principal: &Principal,
        project: ProjectId,
        id: SubscriptionId,
    ) -> Result<Subscription> {
        let which = by_id::<SubscriptionSpec>(id);
        resource::get(self, principal, project, which, Values::Masked).await
    }

    /// The subscriptions of a project, or of the given endpoint in it. Errors: `NOT_FOUND` for the
    /// project and for the endpoint.
    pub async fn list_subscriptions(
        &self,
        principal: &Principal,
        project: ProjectId,
        endpoint: Option<EndpointId>,
        page: PageRequest,
    ) -> Result<Page<Subscription>> {
        let database = self.reach(principal, project).await?;
        if let Some(endpoint) = endpoint {
            endpoints::find(&database, principal, project, endpoint).await?;
        }
        let wanted = endpoint.map(|endpoint| Column::EndpointId.eq(endpoint.0));
        let wanted = Condition::all().add_option(wanted);
        resource::page(&database, principal, project, wanted, page).await
    }

    /// Changes the spec. Errors: `NOT_FOUND`.
    pub async fn update_subscription(
        &self,
        principal: &Principal,
        project: ProjectId,
        id: SubscriptionId,
        change: impl FnOnce(&mut SubscriptionSpec) + Send,
    ) -> Result<Subscription> {
        resource::update(self, principal, project, by_id::<SubscriptionSpec>(id), change).await
    }

    /// Deletes a subscription. Errors: `NOT_FOUND`.
    pub async fn delete_subscription(
        &self,
        principal: &Principal,
        project: ProjectId,
        id: SubscriptionId,
    ) -> Result<()> {
        let which = by_id::<SubscriptionSpec>(id);
        resource::delete::<SubscriptionSpec>(self, principal, project, which).await
    }
}

impl Resource for SubscriptionSpec {
    const WHAT: &'static str = "subscription";
    const KIND: ChangeKind = ChangeKind::Subscription;
    type Entity = Entity;
    const ID: Column = Column::Id;
    type Parent = ProjectId;
    type Secret = ();

    fn from_row(row: Model, _: Values<'_>) -> Result<Subscription> {
        let patterns: Vec<String> = parse_json(TABLE, "event_types", &row.event_types)?;
        let patterns = patterns
            .iter()
            .map(|text| text.parse().map_err(|_| malformed_row(TABLE, "event_types")));
        let fixed = SubscriptionFixed {
            project: ProjectId(row.project_id),
            endpoint: EndpointId(row.endpoint_id),
        };
        let meta = Meta {
            id: SubscriptionId(row.id),
            fixed,
            created_at: Timestamp(row.created_at),
            updated_at: Timestamp(row.updated_at),
        };
        let spec = Self { name: row.name, event_types: patterns.collect::<Result<_>>()? };
        Ok(Noun { meta, spec })
    }

    fn to_row(subscription: &Subscription, _: &MasterKeys) -> Result<ActiveModel> {
        Ok(ActiveModel {
            id: Set(subscription.id.0),
            project_id: Set(subscription.fixed.project.0),
            endpoint_id: Set(subscription.fixed.endpoint.0),
            name: Set(subscription.spec.name.clone()),
            event_types: Set(to_json(&texts(&subscription.spec.event_types))?),
            created_at: Set(subscription.created_at.0),
            updated_at: Set(subscription.updated_at.0),
        })
    }

    fn within_reach(principal: &Principal, project: ProjectId) -> Select<Entity> {
        let all = Entity::find().filter(Column::ProjectId.eq(project.0));
        if principal.owner.is_none() {
            return all;
        }
        let own = EndpointSpec::within_reach(principal, project)
            .select_only()
            .column(endpoint::Column::Id)
            .into_query();
        all.filter(Column::EndpointId.in_subquery(own))
    }

    /// The endpoint must exist. Callers that do not reach the subscription that has this id learn
    /// nothing about it.
    async fn admit(
        transaction: &Transaction<'_>,
        principal: &Principal,
        subscription: &Subscription,
    ) -> Result<()> {
        let (database, id) = (&transaction.database, subscription.id);
        let SubscriptionFixed { project, endpoint } = subscription.fixed;
        endpoints::find(database, principal, project, endpoint).await?;
        let Some(row) = row_of_anybody::<Self>(database, id).await? else { return Ok(()) };
        let project = ProjectId(row.project_id);
        let reached = async {
            projects::find(database, principal, project).await?;
            let which = by_id::<Self>(id);
            resource::find::<Self>(database, principal, project, which, Values::Masked).await
        };
        match reached.await {
            Ok(_) => Err(taken(Self::WHAT, true)),
            Err(error) if error.reason == Reason::NotFound => Err(taken(Self::WHAT, false)),
            Err(error) => Err(error),
        }
    }

    fn project(subscription: &Subscription) -> Option<ProjectId> {
        Some(subscription.fixed.project)
    }

    fn describe(subscription: &Subscription) -> Value {
        json!({
            "subscription_id": subscription.id.to_string(),
            "endpoint_id": subscription.fixed.endpoint.to_string(),
            "name": subscription.spec.name,
            "event_types": texts(&subscription.spec.event_types),
        })
    }
}

/// All subscriptions of a project whose endpoint exists, oldest first.
pub(super) async fn load(
    database: &impl ConnectionTrait,
    project: ProjectId,
) -> Result<Vec<Subscription>> {
    let existing = endpoint::Entity::find()
        .select_only()
        .column(endpoint::Column::Id)
        .filter(endpoint::Column::ProjectId.eq(project.0))
        .filter(endpoint::Column::DeletedAt.is_null())
        .into_query();
    let rows = Entity::find()
        .filter(Column::ProjectId.eq(project.0))
        .filter(Column::EndpointId.in_subquery(existing))
        .order_by_asc(Column::Id)
        .all(database)
        .await
        .map_err(unavailable)?;
    rows.into_iter().map(|row| SubscriptionSpec::from_row(row, Values::Masked)).collect()
}

fn texts(patterns: &[EventTypePattern]) -> Vec<String> {
    patterns.iter().map(ToString::to_string).collect()
}
