//! Reads, writes and deletes the rows of subscriptions.

use outrider_model::{
    EndpointId, EventTypePattern, ProjectId, Result, Subscription, SubscriptionId, Timestamp,
};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder,
    QuerySelect, QueryTrait,
};
use serde_json::{Value, json};

use super::{
    entity::{endpoint, subscription},
    json::{parse_json, to_json},
    transaction::Transaction,
};
use crate::{
    ChangeKind,
    connection::error::{malformed_row, unavailable},
};

const TABLE: &str = "subscriptions";

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
    let rows = subscription::Entity::find()
        .filter(subscription::Column::ProjectId.eq(project.0))
        .filter(subscription::Column::EndpointId.in_subquery(existing))
        .order_by_asc(subscription::Column::Id)
        .all(database)
        .await
        .map_err(unavailable)?;
    rows.into_iter().map(from_row).collect()
}

/// Deletes all subscriptions of an endpoint that is being deleted.
pub(super) async fn delete_of_endpoint(
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

pub(super) async fn delete(transaction: &Transaction, subscription: &Subscription) -> Result<()> {
    let delete = subscription::Entity::delete_by_id(subscription.id.0);
    delete.exec(&transaction.database).await.map_err(unavailable)?;
    let (project, id) = (Some(subscription.project), subscription.id.0);
    transaction
        .record(ChangeKind::Subscription, project, id, Some(describe(subscription)), None)
        .await
}

pub(super) fn texts(patterns: &[EventTypePattern]) -> Vec<String> {
    patterns.iter().map(ToString::to_string).collect()
}

pub(super) fn to_row(subscription: &Subscription) -> Result<subscription::ActiveModel> {
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

pub(super) fn from_row(row: subscription::Model) -> Result<Subscription> {
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

pub(super) fn describe(subscription: &Subscription) -> Value {
    json!({
        "subscription_id": subscription.id.to_string(),
        "endpoint_id": subscription.endpoint.to_string(),
        "name": subscription.name,
        "event_types": texts(&subscription.event_types),
    })
}
