//! Signing secrets of endpoints, encrypted at rest.

use outrider_model::{EndpointId, Error, ProjectId, Result, SecretId, SigningSecret, Timestamp};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, Condition, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder,
};

use super::{
    entity::endpoint_secret,
    transaction::{Transaction, random},
};
use crate::{cipher::MasterKeys, connection::error::unavailable};

/// A secret in use.
pub(super) struct StoredSecret {
    pub secret: SigningSecret,
    /// The time from which it is no longer used.
    pub expires_at: Option<Timestamp>,
}

/// Writes the first secret of an endpoint.
pub(super) async fn insert(
    transaction: &Transaction<'_>,
    keys: &MasterKeys,
    project: ProjectId,
    endpoint: EndpointId,
    secret: &SigningSecret,
) -> Result<()> {
    let id = SecretId::new(transaction.now, random());
    let row = endpoint_secret::ActiveModel {
        id: Set(id.0),
        endpoint_id: Set(endpoint.0),
        project_id: Set(project.0),
        ciphertext: Set(keys.seal_secret(endpoint, id, secret)?),
        created_at: Set(transaction.now.0),
        expires_at: Set(None),
    };
    endpoint_secret::Entity::insert(row)
        .exec_without_returning(&transaction.database)
        .await
        .map_err(unavailable)?;
    Ok(())
}

/// The secrets of an endpoint that are in use at `now`, newest first. At least one.
pub(super) async fn load(
    database: &impl ConnectionTrait,
    keys: &MasterKeys,
    endpoint: EndpointId,
    now: Timestamp,
) -> Result<Vec<StoredSecret>> {
    let unexpired = Condition::any()
        .add(endpoint_secret::Column::ExpiresAt.is_null())
        .add(endpoint_secret::Column::ExpiresAt.gt(now.0));
    let rows = endpoint_secret::Entity::find()
        .filter(endpoint_secret::Column::EndpointId.eq(endpoint.0))
        .filter(unexpired)
        .order_by_desc(endpoint_secret::Column::Id)
        .all(database)
        .await
        .map_err(unavailable)?;
    let open = |row: endpoint_secret::Model| {
        let secret = keys.open_secret(endpoint, SecretId(row.id), &row.ciphertext)?;
        Ok(StoredSecret { secret, expires_at: row.expires_at.map(Timestamp) })
    };
    let secrets = rows.into_iter().map(open).collect::<Result<Vec<_>>>()?;
    if secrets.is_empty() {
        tracing::error!(%endpoint, "an endpoint has no secret");
        return Err(Error::internal("the endpoint has no secret"));
    }
    Ok(secrets)
}
