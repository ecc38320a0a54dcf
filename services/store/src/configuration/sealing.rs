//! Encrypts what is stored in plain text, which are values of endpoints that earlier versions
//! wrote, and encrypts everything again after a change of the master key. It looks for work without
//! a lock, and does it in batches under the lock of all changes. So it may run while servers run,
//! and in several processes at once.

use std::collections::HashSet;

use outrider_model::{Endpoint, EndpointId, EndpointState, Result, SecretId, Target};
use sea_orm::{
    ActiveValue::{NotSet, Set, Unchanged},
    ColumnTrait, ConnectionTrait, DatabaseTransaction, DbErr, EntityTrait, QueryFilter,
    QuerySelect, Statement, Value,
};
use serde_json::Value as Json;
use uuid::Uuid;

use super::{
    changes, endpoint_rows as rows,
    entity::{change, endpoint, endpoint_secret, project},
    master_key_check,
};
use crate::{
    Backend, Failure, FailureKind, Store,
    cipher::MasterKeys,
    connection::{error::unavailable, transaction},
};

/// Number of rows in one transaction.
const BATCH: usize = 200;
/// Number of rows that one statement examines, in the order of their keys.
const LOOKED_AT: usize = 1_000;
/// Number of entries of the change feed that one transaction examines.
const WINDOW: i64 = 2_000;

/// The rows of a table that need work.
#[derive(Clone, Copy)]
struct Todo {
    table: &'static str,
    /// The condition for such a row. $1 and $2 are the length and the text of the prefix of all
    /// ciphertexts of the current key.
    which: &'static str,
}

/// Endpoints with values to encrypt, to encrypt again, or to remove: endpoints of a deleted project
/// are deleted with it.
const ENDPOINTS: Todo = Todo {
    table: "endpoints",
    which: "((target_kind = 'http' AND (headers <> '{}' OR target LIKE '%?%')) \
         OR (sealed IS NOT NULL AND (substr(sealed, 1, $1) <> $2 OR deleted_at IS NOT NULL \
             OR EXISTS (SELECT 1 FROM projects WHERE projects.id = endpoints.project_id \
                 AND projects.deleted_at IS NOT NULL))))",
};
/// Endpoints entirely in plain text.
const IN_PLAIN_TEXT: Todo = Todo {
    table: "endpoints",
    which: "(target_kind = 'http' AND (headers <> '{}' OR target LIKE '%?%') \
         AND substr(headers, 1, $1) = $2)",
};
const SECRETS: Todo =
    Todo { table: "endpoint_secrets", which: "(substr(ciphertext, 1, $1) <> $2)" };
/// Changes in a part of the feed that may contain the query of a URL. JSON is written without
/// spaces.
const CHANGES: &str = "SELECT * FROM changes WHERE seq > $1 AND seq <= $2 AND kind = 'endpoint' \
     AND (before LIKE '%\"target\":{\"url\":\"%?%' OR after LIKE '%\"target\":{\"url\":\"%?%') \
     ORDER BY seq";
const FIRST_CHANGE: &str = "SELECT min(seq) FROM changes";
/// Endpoints with sealed values, also in the schema of [`MIGRATION`], which has no settings.
const SEALED_ENDPOINTS: &str = "SELECT id, project_id, target_kind, target, description, state, \
     timeout_micros, max_in_flight, headers, metadata, owner, created_at, updated_at, deleted_at, \
     sealed, NULL AS settings FROM endpoints \
     WHERE id > $1 AND target_kind = 'http-sealed' ORDER BY id LIMIT 200";

/// The number of rows that sealing changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sealed {
    /// Endpoints whose values were encrypted, encrypted again, or removed with the endpoint.
    pub endpoints: u64,
    /// Signing secrets that were encrypted again.
    pub secrets: u64,
    /// Entries of the change feed in which the query of a URL was masked.
    pub changes: u64,
    /// Rows that could not be decrypted, and stay as they are. Rows of keys that are known to be
    /// lost are not counted. The log names the endpoints.
    pub unreadable: u64,
}

/// The outcome for a batch of rows.
#[derive(Default)]
struct Batch {
    done: u64,
    unreadable: u64,
}

impl Store {
    /// Encrypts values of endpoints and signing secrets with the current key if they are in plain
    /// text or encrypted with another key. Checks the keys first ([`Store::check_master_keys`]).
    /// Without a key, fails if there is something to encrypt. The database may keep the previous
    /// content until it is vacuumed.
    pub async fn seal(&self) -> Result<Sealed, Failure> {
        if self.master_keys().is_none() {
            return self.nothing_to_seal().await;
        }
        self.require_master_keys().await?;
        self.seal_all().await.map_err(not_sealed)
    }

    /// Fails if there is something to encrypt.
    async fn nothing_to_seal(&self) -> Result<Sealed, Failure> {
        let nothing = vec![0_i32.into(), String::new().into()];
        let mut from = Some(Uuid::nil());
        while let Some(after) = from {
            let (found, next) =
                self.find_rows(IN_PLAIN_TEXT, &nothing, after).await.map_err(not_sealed)?;
            if !found.is_empty() {
                return Err(master_key_check::missing(
                    "endpoints have headers or queries that must be encrypted",
                ));
            }
            from = next;
        }
        Ok(Sealed::default())
    }

    async fn seal_all(&self) -> Result<Sealed> {
        let mut sealed = Sealed::default();
        let mark = marked(self.master_keys());
        let mut from = Some(Uuid::nil());
        while let Some(after) = from {
            let (found, next) = self.find_rows(ENDPOINTS, &mark, after).await?;
            for ids in found.chunks(BATCH) {
                let batch = self.seal_endpoints(ids, &mark).await?;
                (sealed.endpoints, sealed.unreadable) =
                    (sealed.endpoints + batch.done, sealed.unreadable + batch.unreadable);
            }
            from = next;
        }
        let mut from = Some(Uuid::nil());
        while let Some(after) = from {
            let (found, next) = self.find_rows(SECRETS, &mark, after).await?;
            for ids in found.chunks(BATCH) {
                let batch = self.seal_secrets(ids, &mark).await?;
                (sealed.secrets, sealed.unreadable) =
                    (sealed.secrets + batch.done, sealed.unreadable + batch.unreadable);
            }
            from = next;
        }
        let end = changes::last_seq(self.write()).await?;
        let mut from = self.first_change().await? - 1;
        while from < end {
            sealed.changes += self.mask_changes(from).await?;
            from += WINDOW;
        }
        Ok(sealed)
    }

    /// The rows that need work among the next thousand after `after`, and where to continue: None
    /// at the end. Takes no lock.
    async fn find_rows(
        &self,
        todo: Todo,
        mark: &[Value],
        after: Uuid,
    ) -> Result<(Vec<Uuid>, Option<Uuid>)> {
        let Todo { table, which } = todo;
        let sql = format!(
            "SELECT id, CASE WHEN {which} THEN 1 ELSE 0 END FROM {table} WHERE id > $3 \
             ORDER BY id LIMIT {LOOKED_AT}"
        );
        let statement = select(self, &sql, [mark, &[after.into()]].concat());
        let rows = match self.backend() {
            // On SQLite, a transaction that may write takes the lock.
            Backend::Sqlite => self.write().query_all_raw(statement).await,
            Backend::Postgres => {
                transaction::begin_unhurried_beside(self).await?.query_all_raw(statement).await
            }
        };
        let (mut found, mut last, count) = (Vec::new(), None, rows.as_ref().map_or(0, Vec::len));
        for row in rows.map_err(unavailable)? {
            let id = row.try_get_by_index::<Uuid>(0).map_err(unavailable)?;
            if row.try_get_by_index::<i32>(1).map_err(unavailable)? == 1 {
                found.push(id);
            }
            last = Some(id);
        }
        Ok((found, last.filter(|_| count == LOOKED_AT)))
    }

    /// Seals those of these endpoints that still need it.
    async fn seal_endpoints(&self, ids: &[Uuid], mark: &[Value]) -> Result<Batch> {
        let (transaction, keys) = (transaction::begin_unhurried(self).await?, self.master_keys());
        let rows = endpoint::Entity::find().from_raw_sql(select_again(self, ENDPOINTS, mark, ids));
        let rows = rows.all(&transaction).await.map_err(unavailable)?;
        let deleted = deleted(&transaction, &rows).await.map_err(unavailable)?;
        let mut batch = Batch::default();
        for row in rows {
            let (id, is_lost) =
                (row.id, row.sealed.as_deref().is_some_and(|sealed| keys.was_of_lost_key(sealed)));
            let columns = if deleted.contains(&id) {
                rows::masked(row).and_then(rows::forgotten)
            } else {
                rows::from_row(row, keys).and_then(|endpoint| rows::sealed(&endpoint, keys))
            };
            let Ok(columns) = columns else {
                batch.unreadable += unreadable(id, "values", is_lost);
                continue;
            };
            let row = endpoint::ActiveModel { id: Unchanged(id), ..columns };
            endpoint::Entity::update(row).exec(&transaction).await.map_err(unavailable)?;
            batch.done += 1;
        }
        transaction.commit().await.map_err(unavailable)?;
        Ok(batch)
    }

    /// Encrypts those of these secrets again that another key encrypted.
    async fn seal_secrets(&self, ids: &[Uuid], mark: &[Value]) -> Result<Batch> {
        let (transaction, keys) = (transaction::begin_unhurried(self).await?, self.master_keys());
        let rows =
            endpoint_secret::Entity::find().from_raw_sql(select_again(self, SECRETS, mark, ids));
        let rows = rows.all(&transaction).await.map_err(unavailable)?;
        let mut batch = Batch::default();
        for row in rows {
            let (endpoint, id) = (EndpointId(row.endpoint_id), SecretId(row.id));
            let Ok(secret) = keys.open_secret(endpoint, id, &row.ciphertext) else {
                batch.unreadable += unreadable(
                    row.endpoint_id,
                    "signing secret",
                    keys.was_of_lost_key(&row.ciphertext),
                );
                continue;
            };
            let ciphertext = Set(keys.seal_secret(endpoint, id, &secret)?);
            let row = endpoint_secret::ActiveModel {
                id: Unchanged(row.id),
                ciphertext,
                ..Default::default()
            };
            endpoint_secret::Entity::update(row).exec(&transaction).await.map_err(unavailable)?;
            batch.done += 1;
        }
        transaction.commit().await.map_err(unavailable)?;
        Ok(batch)
    }

    async fn first_change(&self) -> Result<i64> {
        let first = self
            .write()
            .query_one_raw(select(self, FIRST_CHANGE, Vec::new()))
            .await
            .map_err(unavailable)?;
        let first = first
            .map(|row| row.try_get_by_index::<Option<i64>>(0))
            .transpose()
            .map_err(unavailable)?;
        Ok(first.flatten().unwrap_or(1))
    }

    /// Masks queries of URLs in the part of the feed after this position. Needs no lock, because
    /// nobody else changes entries of the feed.
    async fn mask_changes(&self, from: i64) -> Result<u64> {
        let transaction = transaction::begin_unhurried_beside(self).await?;
        let rows = select(self, CHANGES, vec![from.into(), (from + WINDOW).into()]);
        let rows = change::Entity::find()
            .from_raw_sql(rows)
            .all(&transaction)
            .await
            .map_err(unavailable)?;
        let mut done = 0;
        for row in rows {
            done += mask_change(&transaction, row).await.map_err(unavailable)?;
        }
        transaction.commit().await.map_err(unavailable)?;
        Ok(done)
    }
}

/// Masks the query of a URL in an entry of the feed. Returns the number of changed entries: 0 if
/// the entry contains no query, or if retention has removed it meanwhile.
pub(super) async fn mask_change(
    database: &impl ConnectionTrait,
    row: change::Model,
) -> Result<u64, DbErr> {
    let (before, after) =
        (row.before.as_deref().map(without_query), row.after.as_deref().map(without_query));
    if (&before, &after) == (&row.before, &row.after) {
        return Ok(0);
    }
    let masked =
        change::ActiveModel { before: Set(before), after: Set(after), ..Default::default() };
    let masked = change::Entity::update_many().set(masked).filter(change::Column::Seq.eq(row.seq));
    Ok(masked.exec(database).await?.rows_affected)
}

/// Puts all values back in plain text, for a schema before [`MIGRATION`]. Deleted endpoints have no
/// values any more. Endpoints whose values were encrypted with a lost key are paused, so that
/// nothing is sent to them without these values.
pub(super) async fn unseal(
    store: &Store,
    transaction: &DatabaseTransaction,
) -> Result<(), Failure> {
    let keys = store.master_keys();
    let unread = |error: DbErr| Failure::of_data("the endpoints were not read", &error);
    let mut from = Some(Uuid::nil());
    while let Some(id) = from {
        let rows =
            endpoint::Entity::find().from_raw_sql(select(store, SEALED_ENDPOINTS, vec![id.into()]));
        let rows = rows.all(transaction).await.map_err(unread)?;
        from = rows.last().filter(|_| rows.len() == BATCH).map(|row| row.id);
        let deleted = deleted(transaction, &rows).await.map_err(unread)?;
        for row in rows {
            let (id, is_deleted) = (row.id, deleted.contains(&row.id));
            let is_lost = !is_deleted
                && row.sealed.as_deref().is_some_and(|sealed| keys.was_of_lost_key(sealed));
            if !is_deleted && keys.is_none() {
                return Err(master_key_check::missing(
                    "the schema before this one has headers and queries in plain text",
                ));
            }
            let endpoint =
                if is_deleted || is_lost { rows::masked(row) } else { rows::from_row(row, keys) };
            let columns = endpoint
                .and_then(|endpoint: Endpoint| rows::plain(&endpoint))
                .map_err(not_sealed)?;
            let state = if is_lost { Set(EndpointState::Paused as i16) } else { NotSet };
            if is_lost {
                tracing::warn!(
                    endpoint = %EndpointId(id),
                    "paused an endpoint whose values were encrypted with a lost master key"
                );
            }
            let row = endpoint::ActiveModel { id: Unchanged(id), state, ..columns };
            let updated = endpoint::Entity::update(row).exec_without_returning(transaction).await;
            updated.map_err(|error| Failure::of_data("an endpoint was not written", &error))?;
        }
    }
    Ok(())
}

/// The ids of those endpoints that were deleted, themselves or with their project.
async fn deleted(
    database: &impl ConnectionTrait,
    rows: &[endpoint::Model],
) -> Result<HashSet<Uuid>, DbErr> {
    let projects: HashSet<Uuid> = rows.iter().map(|row| row.project_id).collect();
    let deleted = project::Entity::find()
        .select_only()
        .column(project::Column::Id)
        .filter(project::Column::Id.is_in(projects))
        .filter(project::Column::DeletedAt.is_not_null());
    let deleted: HashSet<Uuid> =
        deleted.into_tuple::<Uuid>().all(database).await?.into_iter().collect();
    let rows =
        rows.iter().filter(|row| row.deleted_at.is_some() || deleted.contains(&row.project_id));
    Ok(rows.map(|row| row.id).collect())
}

/// Reports a row that cannot be decrypted and stays as it is. Returns 1, or 0 without a report for
/// a row of a key that is known to be lost.
fn unreadable(endpoint: Uuid, what: &'static str, is_lost: bool) -> u64 {
    if !is_lost {
        tracing::error!(
            endpoint = %EndpointId(endpoint),
            "the {what} of an endpoint cannot be decrypted and stays as it is"
        );
    }
    u64::from(!is_lost)
}

/// The migration from which on values are encrypted.
pub(super) const MIGRATION: &str = "m0009_sealed_endpoints";

fn not_sealed(error: outrider_model::Error) -> Failure {
    Failure::new(FailureKind::Refused, "the encrypted values were not written", error.to_string())
}

fn select(store: &Store, sql: &str, values: Vec<Value>) -> Statement {
    Statement::from_sql_and_values(store.backend().into(), sql, values)
}

/// The length and the text of the prefix of all ciphertexts of the current key.
fn marked(keys: &MasterKeys) -> Vec<Value> {
    let mark = keys.current_mark();
    vec![i32::try_from(mark.len()).unwrap_or(i32::MAX).into(), mark.into()]
}

/// Selects those of these rows that still need work.
fn select_again(store: &Store, todo: Todo, mark: &[Value], ids: &[Uuid]) -> Statement {
    let Todo { table, which } = todo;
    let places: Vec<String> =
        (0..ids.len()).map(|index| format!("${}", mark.len() + index + 1)).collect();
    let sql = format!("SELECT * FROM {table} WHERE {which} AND id IN ({})", places.join(", "));
    let ids = ids.iter().map(|id| Value::from(*id));
    select(store, &sql, mark.iter().cloned().chain(ids).collect())
}

/// The JSON of an endpoint in the feed, with the query of its URL masked.
fn without_query(text: &str) -> String {
    let Ok(mut json) = serde_json::from_str::<Json>(text) else { return text.to_owned() };
    let Some(value) = json.pointer_mut("/target/url") else { return text.to_owned() };
    let Some(url) = value.as_str() else { return text.to_owned() };
    let Target::Http { url: masked } = Target::Http { url: url.to_owned() }.masked();
    *value = masked.into();
    json.to_string()
}
