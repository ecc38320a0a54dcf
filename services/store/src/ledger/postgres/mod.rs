//! The ledger on PostgreSQL: every method is one statement of constant text over arrays, and thereby one commit.

mod accept;
mod cancel;
mod feed;
mod partitions;
mod settle;
#[cfg(test)]
mod tests;

use std::{future::Future, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use outrider_model::{DeliveryId, DeliveryReason, EndpointId, EventId, Timestamp};
use outrider_telemetry::catalogue::store::ACQUIRE_SECONDS;
use sqlx::{PgPool, Postgres, pool::PoolConnection};

use super::{
    Accepted, Backlog, CancelScope, Claim, ClaimedJob, FoundEvent, Ledger, LedgerError, NewEvent, QueuedRef, Settled, Standing,
    UsedKey, counted,
};
use crate::{commit_log, retention::without_forgotten};

/// On the store's pool.
pub(super) struct PostgresLedger {
    pool: PgPool,
    patience: Duration,
}

impl PostgresLedger {
    /// Whatever takes longer than `patience` is given up.
    pub fn new(pool: PgPool, patience: Duration) -> Self {
        Self { pool, patience }
    }

    async fn within<T, E>(&self, work: impl Future<Output = Result<T, E>>) -> Result<T, LedgerError>
    where
        LedgerError: From<E>,
    {
        match tokio::time::timeout(self.patience, work).await {
            Ok(done) => done.map_err(LedgerError::from),
            Err(_) => Err(counted(LedgerError::Unavailable(format!("it does not answer at all, for {:?}", self.patience)))),
        }
    }
}

impl From<sqlx::Error> for LedgerError {
    fn from(error: sqlx::Error) -> Self {
        failed(error)
    }
}

/// Data exceptions and violated constraints are the row's fault, as are index entries over the limit. A missing partition is
/// reported as a violated check (23514), but is ours.
fn failed(error: sqlx::Error) -> LedgerError {
    counted(judged(error))
}

fn judged(error: sqlx::Error) -> LedgerError {
    match &error {
        sqlx::Error::Encode(source) => LedgerError::Data(source.to_string()),
        sqlx::Error::Database(database) => match database.code().as_deref() {
            Some(code) if code != "23514" && ["22", "23", "54"].iter().any(|class| code.starts_with(class)) => {
                LedgerError::Data(database.message().to_owned())
            }
            _ => LedgerError::Unavailable(error.to_string()),
        },
        _ => LedgerError::Unavailable(error.to_string()),
    }
}

/// A connection for a commit of the hot path.
async fn acquire(pool: &PgPool) -> Result<PoolConnection<Postgres>, LedgerError> {
    let waited = ACQUIRE_SECONDS.start_timer();
    let connection = pool.acquire().await.map_err(failed);
    waited.observe_duration();
    connection
}

#[async_trait]
impl Ledger for PostgresLedger {
    async fn accept(&self, batch: &[NewEvent], keys_since: Timestamp) -> Result<Vec<Accepted>, LedgerError> {
        if batch.is_empty() { Ok(Vec::new()) } else { self.within(accept::accept(&self.pool, batch, keys_since)).await }
    }

    async fn find(&self, keys: &[UsedKey], keys_since: Timestamp) -> Result<Vec<Option<FoundEvent>>, LedgerError> {
        if keys.is_empty() { Ok(Vec::new()) } else { self.within(accept::find(&self.pool, keys, keys_since)).await }
    }

    async fn settle(&self, batch: &[Settled]) -> Result<Vec<bool>, LedgerError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        match self.within(settle::settle(&self.pool, batch)).await {
            // One attempt whose day was dropped must not keep the others from being recorded.
            Err(LedgerError::Unavailable(why)) => match self.within(without_forgotten(&self.pool, batch)).await? {
                Some(rest) => self.within(settle::settle(&self.pool, &rest)).await,
                None => Err(LedgerError::Unavailable(why)),
            },
            settled => settled,
        }
    }

    async fn backlog(&self, after: Option<EndpointId>, limit: u32) -> Result<Vec<Backlog>, LedgerError> {
        self.within(feed::backlog(&self.pool, after, limit)).await
    }

    async fn claim(
        &self,
        claims: &[Claim],
        now: Timestamp,
        check_at: Timestamp,
        inline_bytes: u32,
    ) -> Result<Vec<ClaimedJob>, LedgerError> {
        if claims.is_empty() {
            Ok(Vec::new())
        } else {
            self.within(feed::claim(&self.pool, claims, now, check_at, inline_bytes)).await
        }
    }

    async fn unqueue(&self, jobs: &[(DeliveryId, u32)]) -> Result<(), LedgerError> {
        if jobs.is_empty() { Ok(()) } else { self.within(feed::unqueue(&self.pool, jobs)).await }
    }

    async fn unqueue_other_epochs(&self, current: &[i64]) -> Result<u64, LedgerError> {
        self.within(feed::unqueue_other_epochs(&self.pool, current)).await
    }

    async fn overdue(&self, now: Timestamp, limit: u32) -> Result<Vec<QueuedRef>, LedgerError> {
        self.within(feed::overdue(&self.pool, now, limit)).await
    }

    async fn extend(&self, jobs: &[(DeliveryId, u32)], check_at: Timestamp) -> Result<(), LedgerError> {
        if jobs.is_empty() { Ok(()) } else { self.within(feed::extend(&self.pool, jobs, check_at)).await }
    }

    async fn current(&self, jobs: &[(DeliveryId, u32, u32)]) -> Result<Vec<bool>, LedgerError> {
        if jobs.is_empty() { Ok(Vec::new()) } else { self.within(feed::current(&self.pool, jobs)).await }
    }

    async fn payloads(&self, events: &[EventId]) -> Result<Vec<Option<Bytes>>, LedgerError> {
        if events.is_empty() { Ok(Vec::new()) } else { self.within(feed::payloads(&self.pool, events)).await }
    }

    async fn cancel(&self, scope: CancelScope, reason: DeliveryReason, now: Timestamp, limit: u32) -> Result<u64, LedgerError> {
        self.within(cancel::cancel(&self.pool, scope, reason, now, limit)).await
    }

    async fn standing(&self, now: Timestamp, count_limit: u32) -> Result<Standing, LedgerError> {
        self.within(feed::standing(&self.pool, now, count_limit)).await
    }

    async fn prepare(&self, now: Timestamp) -> Result<(), LedgerError> {
        self.within(partitions::prepare(&self.pool, now)).await
    }

    async fn prune_log(&self, kept_from: Timestamp) -> Result<bool, LedgerError> {
        self.within(commit_log::prune_postgres(&self.pool, kept_from)).await
    }
}
