//! Encrypting what is stored in the clear, and again what an older master key encrypted: values of
//! endpoints that versions before this one wrote, and everything after a change of the master key.
//! What there is to do is looked for without a lock, and done in batches under the lock of all
//! changes, so that it may be done while servers run, and by several at once.

use std::collections::HashSet;

use outrider_model::{Endpoint, EndpointId, EndpointState, Result, SecretId, Target};
use sea_orm::{
    ActiveValue::{NotSet, Set, Unchanged},
    ColumnTrait, ConnectionTrait, DatabaseTransaction, DbErr, EntityTrait, QueryFilter,
    QuerySelect, Statement, Value,
};
use serde_json::Value as Json;
use uuid::Uuid;

use crate::{
    Backend, Failure, FailureKind, MasterKeys, Store, changes,
    endpoints::rows,
    entity::{change, endpoint, endpoint_secret, project},
    error::unavailable,
    master_key_check, transaction,
};

/// Rows in one transaction.
const BATCH: usize = 200;
/// Rows that one statement looks at, in the order of their keys.
const LOOKED_AT: usize = 1_000;
/// Entries of the feed of changes that are looked at in one transaction.
const WINDOW: i64 = 2_000;

/// Rows of a table of which something is to be done.
#[derive(Clone, Copy)]
struct Todo {
    table: &'static str,
    /// Which they are. $1 and $2: how the current key begins.
    which: &'static str,
}

/// Endpoints of which something is to be encrypted, encrypted again or forgotten: those of a
/// deleted project are deleted with it.
const ENDPOINTS: Todo = Todo {
    table: "endpoints",
    which: "((target_kind = 'http' AND (headers <> '{}' OR target LIKE '%?%')) \
         OR (sealed IS NOT NULL AND (substr(sealed, 1, $1) <> $2 OR deleted_at IS NOT NULL OR EXISTS ( \
             SELECT 1 FROM projects WHERE projects.id = endpoints.project_id AND projects.deleted_at IS NOT NULL))))",
};
/// Endpoints that are wholly in the clear.
const IN_THE_CLEAR: Todo = Todo {
    table: "endpoints",
    which: "(target_kind = 'http' AND (headers <> '{}' OR target LIKE '%?%') AND substr(headers, 1, $1) = $2)",
};
const SECRETS: Todo =
    Todo { table: "endpoint_secrets", which: "(substr(ciphertext, 1, $1) <> $2)" };
/// Changes that may tell the query of a URL, in a part of the feed. JSON is written without spaces.
const CHANGES: &str = "SELECT * FROM changes WHERE seq > $1 AND seq <= $2 AND kind = 'endpoint' \
     AND (before LIKE '%\"target\":{\"url\":\"%?%' OR after LIKE '%\"target\":{\"url\":\"%?%') ORDER BY seq";
const FIRST_CHANGE: &str = "SELECT min(seq) FROM changes";
const SEALED_ENDPOINTS: &str =
    "SELECT * FROM endpoints WHERE id > $1 AND target_kind = 'http-sealed' ORDER BY id LIMIT 200";

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sealed {
    /// Endpoints whose values were encrypted, or encrypted again, or forgotten with the endpoint.
    pub endpoints: u64,
    /// Signing secrets that were encrypted again.
    pub secrets: u64,
    /// Entries of the feed of changes in which the query of a URL was masked.
    pub changes: u64,
    /// Rows that could not be opened, and stay as they are, without those of keys that are known to
    /// be lost. The log names the endpoints.
    pub unreadable: u64,
}

/// What became of some rows of a table.
#[derive(Default)]
struct Batch {
    done: u64,
    unreadable: u64,
}

impl Store {
    /// Encrypts with the current key what is in the clear or under another key: values of
    /// endpoints, and signing secrets. Checks the keys first ([`Store::check_master_keys`]).
    /// Without a key it fails when there is something to encrypt. The database may keep what was
    /// there before until it is vacuumed.
    pub async fn seal(&self) -> Result<Sealed, Failure> {
        if self.master_keys().is_none() {
            return self.nothing_to_seal().await;
        }
        self.require_master_keys().await?;
        self.seal_all().await.map_err(not_sealed)
    }

    /// OK when nothing waits for a key.
    async fn nothing_to_seal(&self) -> Result<Sealed, Failure> {
        let nothing = vec![0_i32.into(), String::new().into()];
        let mut from = Some(Uuid::nil());
        while let Some(after) = from {
            let (found, next) =
                self.look(IN_THE_CLEAR, &nothing, after).await.map_err(not_sealed)?;
            if !found.is_empty() {
                return Err(master_key_check::missing(
                    "endpoints have headers or queries that are to be encrypted",
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
            let (found, next) = self.look(ENDPOINTS, &mark, after).await?;
            for ids in found.chunks(BATCH) {
                let batch = self.seal_endpoints(ids, &mark).await?;
                (sealed.endpoints, sealed.unreadable) =
                    (sealed.endpoints + batch.done, sealed.unreadable + batch.unreadable);
            }
            from = next;
        }
        let mut from = Some(Uuid::nil());
        while let Some(after) = from {
            let (found, next) = self.look(SECRETS, &mark, after).await?;
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

    /// The rows after this one of which something is to be done, among the next thousand, and where
    /// to go on; none at the end. It takes no lock.
    async fn look(
        &self,
        todo: Todo,
        mark: &[Value],
        after: Uuid,
    ) -> Result<(Vec<Uuid>, Option<Uuid>)> {
        let Todo { table, which } = todo;
        let sql = format!(
            "SELECT id, CASE WHEN {which} THEN 1 ELSE 0 END FROM {table} WHERE id > $3 ORDER BY id LIMIT {LOOKED_AT}"
        );
        let statement = select(self, &sql, [mark, &[after.into()]].concat());
        let rows = match self.backend() {
            // A transaction of SQLite that may write is a lock.
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

    /// Those of these endpoints of which something is still to be done.
    async fn seal_endpoints(&self, ids: &[Uuid], mark: &[Value]) -> Result<Batch> {
        let (transaction, keys) = (transaction::begin_unhurried(self).await?, self.master_keys());
        let rows = endpoint::Entity::find().from_raw_sql(again(self, ENDPOINTS, mark, ids));
        let rows = rows.all(&transaction).await.map_err(unavailable)?;
        let gone = gone(&transaction, &rows).await.map_err(unavailable)?;
        let mut batch = Batch::default();
        for row in rows {
            let (id, is_lost) =
                (row.id, row.sealed.as_deref().is_some_and(|sealed| keys.was_of_lost_key(sealed)));
            let columns = if gone.contains(&id) {
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

    /// Those of these secrets that another key still encrypts.
    async fn seal_secrets(&self, ids: &[Uuid], mark: &[Value]) -> Result<Batch> {
        let (transaction, keys) = (transaction::begin_unhurried(self).await?, self.master_keys());
        let rows = endpoint_secret::Entity::find().from_raw_sql(again(self, SECRETS, mark, ids));
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

    /// In the part of the feed after this place. It needs no lock: nobody else changes what is in
    /// the feed.
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

/// How many entries of the feed it masked: none that tells no query, or that retention has removed
/// meanwhile.
pub(crate) async fn mask_change(
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

/// Puts all values back in the clear, for a schema before [`STEP`]. Of deleted endpoints there are
/// none any more. Endpoints whose values a lost key encrypted are paused, so that nothing is sent
/// to them without.
pub(crate) async fn unseal(
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
        let gone = gone(transaction, &rows).await.map_err(unread)?;
        for row in rows {
            let (id, is_gone) = (row.id, gone.contains(&row.id));
            let is_lost = !is_gone
                && row.sealed.as_deref().is_some_and(|sealed| keys.was_of_lost_key(sealed));
            if !is_gone && keys.is_none() {
                return Err(master_key_check::missing(
                    "the schema before this one has headers and queries in the clear",
                ));
            }
            let endpoint =
                if is_gone || is_lost { rows::masked(row) } else { rows::from_row(row, keys) };
            let columns = endpoint
                .and_then(|endpoint: Endpoint| rows::plain(&endpoint))
                .map_err(not_sealed)?;
            let state = if is_lost { Set(EndpointState::Paused as i16) } else { NotSet };
            if is_lost {
                tracing::warn!(endpoint = %EndpointId(id), "paused: a lost master key encrypted the values of an endpoint");
            }
            let row = endpoint::ActiveModel { id: Unchanged(id), state, ..columns };
            let updated = endpoint::Entity::update(row).exec(transaction).await;
            updated.map_err(|error| Failure::of_data("an endpoint was not written", &error))?;
        }
    }
    Ok(())
}

/// Those of the endpoints that were deleted, themselves or with their project.
async fn gone(
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
    let gone =
        rows.iter().filter(|row| row.deleted_at.is_some() || deleted.contains(&row.project_id));
    Ok(gone.map(|row| row.id).collect())
}

/// One row that stays as it is, unless it is of a key that is known to be lost. An operator is told
/// of each.
fn unreadable(endpoint: Uuid, what: &'static str, is_lost: bool) -> u64 {
    if !is_lost {
        tracing::error!(endpoint = %EndpointId(endpoint), "what cannot be decrypted stays as it is: the {what} of an endpoint");
    }
    u64::from(!is_lost)
}

/// The step of the schema from which on values are encrypted.
pub(crate) const STEP: &str = "m0009_sealed_endpoints";

fn not_sealed(error: outrider_model::Error) -> Failure {
    Failure::new(FailureKind::Refused, "what is encrypted was not written anew", error.to_string())
}

fn select(store: &Store, sql: &str, values: Vec<Value>) -> Statement {
    Statement::from_sql_and_values(store.backend().into(), sql, values)
}

/// How the current key begins.
fn marked(keys: &MasterKeys) -> Vec<Value> {
    let mark = keys.current_mark();
    vec![i32::try_from(mark.len()).unwrap_or(i32::MAX).into(), mark.into()]
}

/// Those of these rows of which something is still to be done.
fn again(store: &Store, todo: Todo, mark: &[Value], ids: &[Uuid]) -> Statement {
    let Todo { table, which } = todo;
    let places: Vec<String> =
        (0..ids.len()).map(|index| format!("${}", mark.len() + index + 1)).collect();
    let sql = format!("SELECT * FROM {table} WHERE {which} AND id IN ({})", places.join(", "));
    let ids = ids.iter().map(|id| Value::from(*id));
    select(store, &sql, mark.iter().cloned().chain(ids).collect())
}

/// What the feed tells of an endpoint, with the query of its URL masked.
fn without_query(told: &str) -> String {
    let Ok(mut json) = serde_json::from_str::<Json>(told) else { return told.to_owned() };
    let Some(url) = json.pointer_mut("/target/url") else { return told.to_owned() };
    let Some(text) = url.as_str() else { return told.to_owned() };
    let Target::Http { url: masked } = Target::Http { url: text.to_owned() }.masked();
    *url = masked.into();
    json.to_string()
}
