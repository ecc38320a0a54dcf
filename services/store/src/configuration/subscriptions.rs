//! Subscriptions of a project. A principal that is bound to an owner of endpoints sees only those
//! of that owner's endpoints. Deleted subscriptions are removed; the change feed keeps their
//! content.

use outrider_model::{
    EndpointId, Error, EventTypePattern, Page, PageRequest, Principal, ProjectId, Reason, Result,
    Subscription, SubscriptionId,
};
use sea_orm::{
    ActiveValue::Unchanged, ColumnTrait, Condition, ConnectionTrait, EntityTrait, QueryFilter,
    QuerySelect, QueryTrait, Select,
};
use serde_json::json;

use super::{
    endpoints,
    entity::{endpoint, subscription},
    lists, projects,
    requests::Request,
    subscription_rows::{delete, describe, from_row, texts, to_row},
    transaction::{Transaction, random},
};
use crate::{
    ChangeKind, Store,
    connection::error::{exists, taken, unavailable},
};

const WHAT: &str = "subscription";

/// A subscription to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSubscription {
    /// Generated if absent.
    pub id: Option<SubscriptionId>,
    pub endpoint: EndpointId,
    pub name: String,
    pub event_types: Vec<EventTypePattern>,
}

/// A change of a subscription. Absent fields stay as they are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SubscriptionChange {
    pub name: Option<String>,
    pub event_types: Option<Vec<EventTypePattern>>,
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
        let content = json!({
            "id": new.id.map(|id| id.to_string()), "endpoint": new.endpoint.to_string(),
            "name": new.name, "event_types": texts(&new.event_types),
        });
        let request = Request::new(project.0, request_id, "create_subscription", &content);
        let transaction = Transaction::begin(self, principal).await?;
        projects::find(&transaction.database, principal, project).await?;
        if let Some(first) = Request::find(request.as_ref(), &transaction).await? {
            return find(&transaction.database, principal, project, SubscriptionId(first)).await;
        }
        endpoints::find(&transaction.database, principal, project, new.endpoint).await?;
        let now = transaction.now;
        let id = new.id.unwrap_or_else(|| SubscriptionId::new(now, random()));
        require_free(&transaction.database, principal, id).await?;
        let NewSubscription { endpoint, name, event_types, .. } = new;
        let subscription = Subscription {
            id,
            project,
            endpoint,
            name,
            event_types,
            created_at: now,
            updated_at: now,
        };
        let insert = subscription::Entity::insert(to_row(&subscription)?);
        insert.exec_without_returning(&transaction.database).await.map_err(exists(WHAT))?;
        transaction
            .record(
                ChangeKind::Subscription,
                Some(project),
                id.0,
                None,
                Some(describe(&subscription)),
            )
            .await?;
        Request::remember(request.as_ref(), &transaction, id.0).await?;
        transaction.commit().await?;
        Ok(subscription)
    }

    /// A subscription. Errors: `NOT_FOUND`.
    pub async fn get_subscription(
        &self,
        principal: &Principal,
        project: ProjectId,
        id: SubscriptionId,
    ) -> Result<Subscription> {
        let database = self.reach(principal, project).await?;
        find(&database, principal, project, id).await
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
        let wanted = Condition::all()
            .add_option(endpoint.map(|endpoint| subscription::Column::EndpointId.eq(endpoint.0)));
        let select = within_reach(principal, project).filter(wanted);
        let rows =
            lists::page(&database, select, subscription::Column::Id, page, |row| row.id).await?;
        lists::convert(rows, from_row)
    }

    /// Changes the given fields. Errors: `NOT_FOUND`.
    pub async fn update_subscription(
        &self,
        principal: &Principal,
        project: ProjectId,
        id: SubscriptionId,
        change: SubscriptionChange,
    ) -> Result<Subscription> {
        let transaction = Transaction::begin(self, principal).await?;
        projects::find(&transaction.database, principal, project).await?;
        let before = find(&transaction.database, principal, project, id).await?;
        let mut after = before.clone();
        after.name = change.name.unwrap_or(after.name);
        after.event_types = change.event_types.unwrap_or(after.event_types);
        if after == before {
            return Ok(before);
        }
        after.updated_at = transaction.now;
        let mut row = to_row(&after)?;
        row.id = Unchanged(id.0);
        subscription::Entity::update(row).exec(&transaction.database).await.map_err(unavailable)?;
        let (old, new) = (describe(&before), describe(&after));
        transaction
            .record(ChangeKind::Subscription, Some(project), id.0, Some(old), Some(new))
            .await?;
        transaction.commit().await?;
        Ok(after)
    }

    /// Deletes a subscription. Errors: `NOT_FOUND`.
    pub async fn delete_subscription(
        &self,
        principal: &Principal,
        project: ProjectId,
        id: SubscriptionId,
    ) -> Result<()> {
        let transaction = Transaction::begin(self, principal).await?;
        projects::find(&transaction.database, principal, project).await?;
        let before = find(&transaction.database, principal, project, id).await?;
        delete(&transaction, &before).await?;
        transaction.commit().await
    }
}

/// Refuses an id that a subscription has. Callers that do not reach it learn nothing about it.
async fn require_free(
    database: &impl ConnectionTrait,
    principal: &Principal,
    id: SubscriptionId,
) -> Result<()> {
    let Some(row) =
        subscription::Entity::find_by_id(id.0).one(database).await.map_err(unavailable)?
    else {
        return Ok(());
    };
    let project = ProjectId(row.project_id);
    let reached = async {
        projects::find(database, principal, project).await?;
        find(database, principal, project, id).await
    };
    match reached.await {
        Ok(_) => Err(taken(WHAT, true)),
        Err(error) if error.reason == Reason::NotFound => Err(taken(WHAT, false)),
        Err(error) => Err(error),
    }
}

async fn find(
    database: &impl ConnectionTrait,
    principal: &Principal,
    project: ProjectId,
    id: SubscriptionId,
) -> Result<Subscription> {
    let row = within_reach(principal, project)
        .filter(subscription::Column::Id.eq(id.0))
        .one(database)
        .await
        .map_err(unavailable)?;
    from_row(row.ok_or_else(|| Error::not_found(WHAT))?)
}

fn within_reach(principal: &Principal, project: ProjectId) -> Select<subscription::Entity> {
    let all = subscription::Entity::find().filter(subscription::Column::ProjectId.eq(project.0));
    if principal.owner.is_none() {
        return all;
    }
    let own = endpoints::within_reach(principal, project)
        .select_only()
        .column(endpoint::Column::Id)
        .into_query();
    all.filter(subscription::Column::EndpointId.in_subquery(own))
}
