//! Subscriptions of a project. A principal that is bound to an owner of endpoints sees those of
//! that owner's endpoints only. Deleted ones are gone; the feed of changes keeps what they were.

use outrider_model::{
    EndpointId, Error, EventTypePattern, Page, PageRequest, Principal, ProjectId, Reason, Result,
    Subscription, SubscriptionId, Timestamp,
};
use sea_orm::{
    ActiveValue::{Set, Unchanged},
    ColumnTrait, Condition, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
    QueryTrait, Select,
};
use serde_json::{Value, json};

use crate::{
    ChangeKind, Store,
    changes::{parse_json, to_json},
    endpoints,
    entity::{endpoint, subscription},
    error::{exists, malformed_row, taken, unavailable},
    lists, projects,
    requests::Request,
    transaction::{Transaction, random},
};

const WHAT: &str = "subscription";
const TABLE: &str = "subscriptions";

/// A subscription to be created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSubscription {
    /// Made when absent.
    pub id: Option<SubscriptionId>,
    pub endpoint: EndpointId,
    pub name: String,
    pub event_types: Vec<EventTypePattern>,
}

/// What of a subscription is to change.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SubscriptionChange {
    pub name: Option<String>,
    pub event_types: Option<Vec<EventTypePattern>>,
}

impl Store {
    /// Creates a subscription. Errors: `NOT_FOUND` for the project, for the endpoint and when the
    /// given id is taken by what the principal does not reach, `ALREADY_EXISTS`,
    /// `IDEMPOTENCY_CONFLICT`.
    pub async fn create_subscription(
        &self,
        principal: &Principal,
        project: ProjectId,
        new: NewSubscription,
        request_id: Option<&str>,
    ) -> Result<Subscription> {
        let content = json!({
            "id": new.id.map(|id| id.to_string()), "endpoint": new.endpoint.to_string(), "name": new.name,
            "event_types": texts(&new.event_types),
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

    /// One subscription. Errors: `NOT_FOUND`.
    pub async fn get_subscription(
        &self,
        principal: &Principal,
        project: ProjectId,
        id: SubscriptionId,
    ) -> Result<Subscription> {
        let database = self.reach(principal, project).await?;
        find(&database, principal, project, id).await
    }

    /// The subscriptions of a project, of one endpoint when one is named. Errors: `NOT_FOUND` for
    /// the project and for the endpoint.
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

    /// Changes what is given. Errors: `NOT_FOUND`.
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

/// All subscriptions of a project whose endpoint exists, oldest first.
pub(crate) async fn load(
    database: &impl ConnectionTrait,
    project: ProjectId,
) -> Result<Vec<Subscription>> {
    let existing = endpoint::Entity::find()
        .select_only()
        .column(endpoint::Column::Id)
        .filter(endpoint::Column::ProjectId.eq(project.0))
        .filter(endpoint::Column::DeletedAt.is_null())
        .into_query();
    let rows = subscription::Entity::find()
        .filter(subscription::Column::ProjectId.eq(project.0))
        .filter(subscription::Column::EndpointId.in_subquery(existing))
        .order_by_asc(subscription::Column::Id)
        .all(database)
        .await
        .map_err(unavailable)?;
    rows.into_iter().map(from_row).collect()
}

/// Deletes the subscriptions of an endpoint that is being deleted, whoever made them.
pub(crate) async fn delete_of_endpoint(
    transaction: &Transaction,
    project: ProjectId,
    endpoint: EndpointId,
) -> Result<()> {
    let rows = subscription::Entity::find()
        .filter(subscription::Column::ProjectId.eq(project.0))
        .filter(subscription::Column::EndpointId.eq(endpoint.0))
        .order_by_asc(subscription::Column::Id)
        .all(&transaction.database)
        .await
        .map_err(unavailable)?;
    for row in rows {
        delete(transaction, &from_row(row)?).await?;
    }
    Ok(())
}

async fn delete(transaction: &Transaction, subscription: &Subscription) -> Result<()> {
    let delete = subscription::Entity::delete_by_id(subscription.id.0);
    delete.exec(&transaction.database).await.map_err(unavailable)?;
    let (project, id) = (Some(subscription.project), subscription.id.0);
    transaction
        .record(ChangeKind::Subscription, project, id, Some(describe(subscription)), None)
        .await
}

/// Refuses an id that a subscription has. Callers who do not reach it are told nothing about it.
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

fn texts(patterns: &[EventTypePattern]) -> Vec<String> {
    patterns.iter().map(ToString::to_string).collect()
}

fn to_row(subscription: &Subscription) -> Result<subscription::ActiveModel> {
    Ok(subscription::ActiveModel {
        id: Set(subscription.id.0),
        project_id: Set(subscription.project.0),
        endpoint_id: Set(subscription.endpoint.0),
        name: Set(subscription.name.clone()),
        event_types: Set(to_json(&texts(&subscription.event_types))?),
        created_at: Set(subscription.created_at.0),
        updated_at: Set(subscription.updated_at.0),
    })
}

fn from_row(row: subscription::Model) -> Result<Subscription> {
    let patterns: Vec<String> = parse_json(TABLE, "event_types", &row.event_types)?;
    let patterns =
        patterns.iter().map(|text| text.parse().map_err(|_| malformed_row(TABLE, "event_types")));
    Ok(Subscription {
        id: SubscriptionId(row.id),
        project: ProjectId(row.project_id),
        endpoint: EndpointId(row.endpoint_id),
        name: row.name,
        event_types: patterns.collect::<Result<_>>()?,
        created_at: Timestamp(row.created_at),
        updated_at: Timestamp(row.updated_at),
    })
}

fn describe(subscription: &Subscription) -> Value {
    json!({
        "subscription_id": subscription.id.to_string(),
        "endpoint_id": subscription.endpoint.to_string(),
        "name": subscription.name,
        "event_types": texts(&subscription.event_types),
    })
}
