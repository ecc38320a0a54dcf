//! Encrypting what is stored in the clear, and again what an older master key encrypted: values of endpoints that versions before this
//! one wrote, and everything after a change of the master key. It goes in batches under the lock of all changes, so that it may be done
//! while servers run, and by several at once.

use outrider_model::{Endpoint, EndpointId, Result, SecretId, Target};
use sea_orm::{
    ActiveValue::{Set, Unchanged},
    ConnectionTrait, DatabaseTransaction, EntityTrait, Statement, Value,
};
use serde_json::Value as Json;
use uuid::Uuid;

use crate::{
    Failure, FailureKind, MasterKeys, Store, changes,
    endpoints::rows,
    entity::{change, endpoint, endpoint_secret},
    error::unavailable,
    master_key_check, transaction,
};

/// Rows in one transaction.
const BATCH: usize = 200;
/// Entries of the feed of changes that are looked at in one transaction.
const WINDOW: i64 = 2_000;

/// Endpoints of which something is to be encrypted, encrypted again or forgotten. $2 and $3: how the current key begins.
const ENDPOINTS: &str = "SELECT * FROM endpoints WHERE id > $1 AND ( \
     (target_kind = 'http' AND (headers <> '{}' OR target LIKE '%?%')) \
     OR (sealed IS NOT NULL AND (deleted_at IS NOT NULL OR substr(sealed, 1, $2) <> $3))) ORDER BY id LIMIT 200";
const SECRETS: &str = "SELECT * FROM endpoint_secrets WHERE id > $1 AND substr(ciphertext, 1, $2) <> $3 ORDER BY id LIMIT 200";
/// Changes that may tell the query of a URL, in a part of the feed. JSON is written without spaces.
const CHANGES: &str = "SELECT * FROM changes WHERE seq > $1 AND seq <= $2 AND kind = 'endpoint' \
     AND (before LIKE '%\"target\":{\"url\":\"%?%' OR after LIKE '%\"target\":{\"url\":\"%?%') ORDER BY seq";
const FIRST_CHANGE: &str = "SELECT min(seq) FROM changes";
const SEALED_ENDPOINTS: &str = "SELECT * FROM endpoints WHERE id > $1 AND target_kind = 'http-sealed' ORDER BY id LIMIT 200";

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sealed {
    /// Endpoints whose values were encrypted, or encrypted again, or forgotten with the endpoint.
    pub endpoints: u64,
    /// Signing secrets that were encrypted again.
    pub secrets: u64,
    /// Entries of the feed of changes in which the query of a URL was masked.
    pub changes: u64,
    /// Rows that could not be opened, and stay as they are, without those of keys that are known to be lost. The log names the endpoints.
    pub unreadable: u64,
}

/// What became of some rows of a table.
struct Batch<K> {
    /// Where to go on; none at the end.
    next: Option<K>,
    done: u64,
    unreadable: u64,
}

impl Store {
    /// Encrypts with the current key what is in the clear or under another key: values of endpoints, and signing secrets. Checks the keys
    /// first ([`Store::check_master_keys`]). Without a key it fails when there is something to encrypt. The database may keep what was there
    /// before until it is vacuumed.
    pub async fn seal(&self) -> Result<Sealed, Failure> {
        if self.master_keys().is_none() {
            return self.nothing_to_seal().await;
        }
        self.check_master_keys().await?;
        self.seal_all().await.map_err(not_sealed)
    }

    /// OK when nothing waits for a key.
    async fn nothing_to_seal(&self) -> Result<Sealed, Failure> {
        let rows = select(self, ENDPOINTS, vec![Uuid::nil().into(), 0_i32.into(), Vec::<u8>::new().into()]);
        let rows = endpoint::Entity::find().from_raw_sql(rows).all(self.write()).await;
        let rows = rows.map_err(|error| Failure::of_orm("the endpoints were not read", &error))?;
        if rows.is_empty() {
            return Ok(Sealed::default());
        }
        Err(master_key_check::missing("endpoints have headers or queries that are to be encrypted"))
    }

    async fn seal_all(&self) -> Result<Sealed> {
        let mut sealed = Sealed::default();
        let mut from = Some(Uuid::nil());
        while let Some(id) = from {
            let batch = self.seal_endpoints(id).await?;
            (from, sealed.endpoints, sealed.unreadable) =
                (batch.next, sealed.endpoints + batch.done, sealed.unreadable + batch.unreadable);
        }
        let mut from = Some(Uuid::nil());
        while let Some(id) = from {
            let batch = self.seal_secrets(id).await?;
            (from, sealed.secrets, sealed.unreadable) =
                (batch.next, sealed.secrets + batch.done, sealed.unreadable + batch.unreadable);
        }
        let end = changes::last_seq(self.write()).await?;
        let mut from = self.first_change().await? - 1;
        while from < end {
            sealed.changes += self.mask_changes(from).await?;
            from += WINDOW;
        }
        Ok(sealed)
    }

    async fn seal_endpoints(&self, from: Uuid) -> Result<Batch<Uuid>> {
        let (transaction, keys) = (transaction::begin(self).await?, self.master_keys());
        let rows = endpoint::Entity::find().from_raw_sql(select(self, ENDPOINTS, beyond(from, keys)));
        let rows = rows.all(&transaction).await.map_err(unavailable)?;
        let mut batch = Batch { next: last(&rows, |row| row.id), done: 0, unreadable: 0 };
        for row in rows {
            let (id, is_lost) = (row.id, row.sealed.as_deref().is_some_and(|sealed| keys.was_of_lost_key(sealed)));
            let columns = match row.deleted_at {
                Some(_) => rows::masked(row).and_then(rows::forgotten),
                None => rows::from_row(row, keys).and_then(|endpoint| rows::sealed(&endpoint, keys)),
            };
            // Why it is unreadable is in the log.
            let Ok(columns) = columns else {
                batch.unreadable += u64::from(!is_lost);
                continue;
            };
            let row = endpoint::ActiveModel { id: Unchanged(id), ..columns };
            endpoint::Entity::update(row).exec(&transaction).await.map_err(unavailable)?;
            batch.done += 1;
        }
        transaction.commit().await.map_err(unavailable)?;
        Ok(batch)
    }

    async fn seal_secrets(&self, from: Uuid) -> Result<Batch<Uuid>> {
        let (transaction, keys) = (transaction::begin(self).await?, self.master_keys());
        let rows = endpoint_secret::Entity::find().from_raw_sql(select(self, SECRETS, beyond(from, keys)));
        let rows = rows.all(&transaction).await.map_err(unavailable)?;
        let mut batch = Batch { next: last(&rows, |row| row.id), done: 0, unreadable: 0 };
        for row in rows {
            let (endpoint, id) = (EndpointId(row.endpoint_id), SecretId(row.id));
            let Ok(secret) = keys.open_secret(endpoint, id, &row.ciphertext) else {
                batch.unreadable += u64::from(!keys.was_of_lost_key(&row.ciphertext));
                continue;
            };
            let ciphertext = Set(keys.seal_secret(endpoint, id, &secret)?);
            let row = endpoint_secret::ActiveModel { id: Unchanged(row.id), ciphertext, ..Default::default() };
            endpoint_secret::Entity::update(row).exec(&transaction).await.map_err(unavailable)?;
            batch.done += 1;
        }
        transaction.commit().await.map_err(unavailable)?;
        Ok(batch)
    }

    async fn first_change(&self) -> Result<i64> {
        let first = self.write().query_one_raw(select(self, FIRST_CHANGE, Vec::new())).await.map_err(unavailable)?;
        let first = first.map(|row| row.try_get_by_index::<Option<i64>>(0)).transpose().map_err(unavailable)?;
        Ok(first.flatten().unwrap_or(1))
    }

    /// In the part of the feed after this place. It needs no lock: nobody else changes what is in the feed.
    async fn mask_changes(&self, from: i64) -> Result<u64> {
        let transaction = transaction::begin_beside(self).await?;
        let rows = select(self, CHANGES, vec![from.into(), (from + WINDOW).into()]);
        let rows = change::Entity::find().from_raw_sql(rows).all(&transaction).await.map_err(unavailable)?;
        let mut done = 0;
        for row in rows {
            let (before, after) = (row.before.as_deref().map(without_query), row.after.as_deref().map(without_query));
            if (&before, &after) == (&row.before, &row.after) {
                continue;
            }
            let row =
                change::ActiveModel { seq: Unchanged(row.seq), before: Set(before), after: Set(after), ..Default::default() };
            change::Entity::update(row).exec(&transaction).await.map_err(unavailable)?;
            done += 1;
        }
        transaction.commit().await.map_err(unavailable)?;
        Ok(done)
    }
}

/// Puts all values back in the clear, for a schema before [`STEP`].
pub(crate) async fn unseal(store: &Store, transaction: &DatabaseTransaction) -> Result<(), Failure> {
    let mut from = Some(Uuid::nil());
    while let Some(id) = from {
        let rows = endpoint::Entity::find().from_raw_sql(select(store, SEALED_ENDPOINTS, vec![id.into()]));
        let rows = rows.all(transaction).await.map_err(|error| Failure::of_orm("the endpoints were not read", &error))?;
        from = last(&rows, |row| row.id);
        if !rows.is_empty() && store.master_keys().is_none() {
            return Err(master_key_check::missing("the schema before this one has headers and queries in the clear"));
        }
        for row in rows {
            let id = row.id;
            let endpoint = match row.deleted_at {
                Some(_) => rows::masked(row),
                None => rows::from_row(row, store.master_keys()),
            };
            let columns = endpoint.and_then(|endpoint: Endpoint| rows::plain(&endpoint)).map_err(not_sealed)?;
            let row = endpoint::ActiveModel { id: Unchanged(id), ..columns };
            let updated = endpoint::Entity::update(row).exec(transaction).await;
            updated.map_err(|error| Failure::of_orm("an endpoint was not written", &error))?;
        }
    }
    Ok(())
}

/// The step of the schema from which on values are encrypted.
pub(crate) const STEP: &str = "m0009_sealed_endpoints";

fn not_sealed(error: outrider_model::Error) -> Failure {
    Failure::new(FailureKind::Refused, "what is encrypted was not written anew", error.to_string())
}

fn select(store: &Store, sql: &str, values: Vec<Value>) -> Statement {
    Statement::from_sql_and_values(store.backend().into(), sql, values)
}

/// After this row, and not encrypted by the current key.
fn beyond(from: Uuid, keys: &MasterKeys) -> Vec<Value> {
    let mark = keys.current_mark();
    vec![from.into(), i32::try_from(mark.len()).unwrap_or(i32::MAX).into(), mark.into()]
}

/// Where the next batch begins; none when these are the last.
fn last<R, K>(rows: &[R], key: impl Fn(&R) -> K) -> Option<K> {
    rows.last().filter(|_| rows.len() == BATCH).map(key)
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
