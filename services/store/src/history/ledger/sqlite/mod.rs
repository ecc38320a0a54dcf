//! The ledger on SQLite. One writer task carries out all changes, many calls per commit. Reads
//! bypass it.

mod accept;
mod end;
mod errors;
mod feed;
#[cfg(test)]
mod plans;
mod settle;
mod writer;

use async_trait::async_trait;
use bytes::Bytes;
use outrider_model::{DeliveryId, DeliveryReason, EndpointId, EventId, Timestamp, UsedKey};
use sqlx::SqlitePool;

use crate::{
    Clock,
    history::commit_log,
    ledger::{
        Accepted, Backlog, CancelScope, Claim, ClaimedJob, FoundEvent, Ledger, LedgerError,
        LedgerOptions, NewEvent, PendingSummary, QueuedRef, Settled,
    },
};
use errors::failed;
use writer::Writer;

/// The ledger on SQLite: a pool for reads, and the writer.
pub(super) struct SqliteLedger {
    pool: SqlitePool,
    writer: Writer,
    clock: Clock,
}

impl SqliteLedger {
    pub fn new(read: SqlitePool, write: SqlitePool, clock: Clock, options: LedgerOptions) -> Self {
        Self { pool: read, writer: Writer::start(write, options), clock }
    }
}

/// The number of rows of a call that may write many.
const UNKNOWN: usize = usize::MAX;

/// The number of rows that an event writes. 16 KiB of payload take as long as one row.
fn rows_of(new: &NewEvent) -> usize {
    1 + new.deliveries.len() + new.payload.len() / (16 * 1024)
}

#[async_trait]
impl Ledger for SqliteLedger {
    async fn accept(
        &self,
        batch: &[NewEvent],
        keys_since: Timestamp,
    ) -> Result<Vec<Accepted>, LedgerError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let rows = batch.iter().map(rows_of).sum();
        let (batch, clock) = (batch.to_vec(), self.clock.clone());
        self.writer
            .write(rows, move |connection| {
                Box::pin(accept::accept(connection, batch, clock.now(), keys_since))
            })
            .await
    }

    async fn find(
        &self,
        keys: &[UsedKey],
        keys_since: Timestamp,
    ) -> Result<Vec<Option<FoundEvent>>, LedgerError> {
        if keys.is_empty() {
            Ok(Vec::new())
        } else {
            accept::find(&self.pool, keys, keys_since).await.map_err(failed)
        }
    }

    async fn settle(&self, batch: &[Settled]) -> Result<Vec<bool>, LedgerError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let batch = batch.to_vec();
        self.writer
            .write(batch.len(), move |connection| Box::pin(settle::settle(connection, batch)))
            .await
    }

    async fn backlog(
        &self,
        after: Option<EndpointId>,
        limit: u32,
    ) -> Result<Vec<Backlog>, LedgerError> {
        feed::backlog(&self.pool, after, limit).await.map_err(failed)
    }

    async fn claim(
        &self,
        claims: &[Claim],
        now: Timestamp,
        check_at: Timestamp,
        inline_bytes: u32,
    ) -> Result<Vec<ClaimedJob>, LedgerError> {
        if claims.is_empty() {
            return Ok(Vec::new());
        }
        let rows = claims.iter().map(|claim| claim.limit as usize).sum();
        let claims = claims.to_vec();
        self.writer
            .write(rows, move |connection| {
                Box::pin(feed::claim(connection, claims, now, check_at, inline_bytes))
            })
            .await
    }

    async fn unqueue(&self, jobs: &[(DeliveryId, u32)]) -> Result<(), LedgerError> {
        for jobs in jobs.chunks(writer::LARGE_ROWS) {
            let jobs = jobs.to_vec();
            self.writer
                .write(jobs.len(), move |connection| Box::pin(feed::unqueue(connection, jobs)))
                .await?;
        }
        Ok(())
    }

    async fn unqueue_other_epochs(&self, current: &[i64]) -> Result<u64, LedgerError> {
        let current = current.to_vec();
        self.writer
            .write(UNKNOWN, move |connection| {
                Box::pin(feed::unqueue_other_epochs(connection, current))
            })
            .await
    }

    async fn overdue(
        &self,
        after: Timestamp,
        until: Timestamp,
        limit: u32,
    ) -> Result<Vec<QueuedRef>, LedgerError> {
        feed::overdue(&self.pool, after, until, limit).await.map_err(failed)
    }

    async fn extend(
        &self,
        jobs: &[(DeliveryId, u32)],
        check_at: Timestamp,
    ) -> Result<(), LedgerError> {
        for jobs in jobs.chunks(writer::LARGE_ROWS) {
            let jobs = jobs.to_vec();
            self.writer
                .write(jobs.len(), move |connection| {
                    Box::pin(feed::extend(connection, jobs, check_at))
                })
                .await?;
        }
        Ok(())
    }

    async fn current(&self, jobs: &[(DeliveryId, u32, u32)]) -> Result<Vec<bool>, LedgerError> {
        feed::current(&self.pool, jobs).await.map_err(failed)
    }

    async fn payloads(&self, events: &[EventId]) -> Result<Vec<Option<Bytes>>, LedgerError> {
        feed::payloads(&self.pool, events).await.map_err(failed)
    }

    async fn cancel(
        &self,
        scope: CancelScope,
        reason: DeliveryReason,
        now: Timestamp,
        limit: u32,
    ) -> Result<u64, LedgerError> {
        self.writer
            .write(limit as usize, move |connection| {
                Box::pin(end::cancel(connection, scope, reason, now, limit))
            })
            .await
    }

    async fn pending_summary(
        &self,
        now: Timestamp,
        count_limit: u32,
    ) -> Result<PendingSummary, LedgerError> {
        feed::pending_summary(&self.pool, now, count_limit).await.map_err(failed)
    }

    async fn prepare(&self, _now: Timestamp) -> Result<(), LedgerError> {
        Ok(())
    }

    async fn prune_log(&self, kept_from: Timestamp) -> Result<bool, LedgerError> {
        let write = self.writer.write(UNKNOWN, move |connection| {
            Box::pin(async move {
                commit_log::prune_sqlite(connection, kept_from).await.map_err(failed)
            })
        });
        write.await
    }
}
