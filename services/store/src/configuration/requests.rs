//! Request ids: a repeated request is answered with what the first one created.

use std::time::Duration;

use outrider_model::{Error, Reason, Result};
use ring::digest::{SHA256, digest};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, ConnectionTrait, DatabaseTransaction, EntityTrait, QueryFilter,
    Statement, sea_query::OnConflict,
};
use serde_json::Value;
use uuid::Uuid;

use super::{entity::request, transaction::Transaction};
use crate::{ChangeKind, connection::error::unavailable};

/// How long a request id is kept.
const LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// Number of expired ids that are deleted when one is written, so that the table stays as large as
/// the last day.
const PURGED_AT_ONCE: i64 = 100;

/// A request that may be a repetition.
pub(super) struct Request<'a> {
    /// The project, or the organization for what belongs to no project. Ids of different scopes are
    /// independent.
    scope: Uuid,
    id: &'a str,
    method: String,
    fingerprint: Vec<u8>,
}

impl<'a> Request<'a> {
    /// A request to create a noun of this kind. None without an id. `content` is everything that
    /// the caller asked for.
    pub fn new(
        scope: Uuid,
        id: Option<&'a str>,
        kind: ChangeKind,
        content: &Value,
    ) -> Option<Self> {
        let method = format!("create_{}", kind.as_str());
        let fingerprint = digest(&SHA256, content.to_string().as_bytes()).as_ref().to_vec();
        id.map(|id| Self { scope, id, method, fingerprint })
    }

    /// The object that the first request with this id created. None if this is the first. Errors:
    /// `IDEMPOTENCY_CONFLICT` if the first asked for something else. The transaction's lock
    /// excludes others until the outcome is committed.
    pub async fn find(
        request: Option<&Self>,
        transaction: &Transaction<'_>,
    ) -> Result<Option<Uuid>> {
        let Some(request) = request else { return Ok(None) };
        let row = request::Entity::find_by_id((request.scope, request.id.to_owned()))
            .filter(request::Column::CreatedAt.gt(transaction.now.minus(LIFETIME).0))
            .one(&transaction.database)
            .await
            .map_err(unavailable)?;
        match row {
            None => Ok(None),
            Some(row) if row.method == request.method && row.fingerprint == request.fingerprint => {
                Ok(Some(row.object_id))
            }
            Some(_) => Err(Error::new(
                Reason::IdempotencyConflict,
                "the request id was used with another request",
            )),
        }
    }

    /// Writes down what the request created.
    pub async fn remember(
        request: Option<&Self>,
        transaction: &Transaction<'_>,
        object: Uuid,
    ) -> Result<()> {
        let Some(request) = request else { return Ok(()) };
        purge(&transaction.database, transaction.now.minus(LIFETIME).0).await?;
        let row = request::ActiveModel {
            scope_id: Set(request.scope),
            request_id: Set(request.id.to_owned()),
            method: Set(request.method.clone()),
            fingerprint: Set(request.fingerprint.clone()),
            object_id: Set(object),
            created_at: Set(transaction.now.0),
        };
        // An existing row has expired: `find` did not find it.
        let replace = OnConflict::columns([request::Column::ScopeId, request::Column::RequestId])
            .update_columns([
                request::Column::Method,
                request::Column::Fingerprint,
                request::Column::ObjectId,
                request::Column::CreatedAt,
            ])
            .to_owned();
        let insert = request::Entity::insert(row).on_conflict(replace);
        insert.exec_without_returning(&transaction.database).await.map_err(unavailable)?;
        Ok(())
    }
}

async fn purge(database: &DatabaseTransaction, until: i64) -> Result<()> {
    const PURGE: &str = "DELETE FROM requests WHERE (scope_id, request_id) IN \
         (SELECT scope_id, request_id FROM requests WHERE created_at <= $1 \
          ORDER BY created_at LIMIT $2)";
    let purge = Statement::from_sql_and_values(
        database.get_database_backend(),
        PURGE,
        [until.into(), PURGED_AT_ONCE.into()],
    );
    database.execute_raw(purge).await.map_err(unavailable)?;
    Ok(())
}
