//! The ledger on PostgreSQL. Every method is one statement with a constant text over arrays, and so
//! one commit.

mod accept;
mod cancel;
mod dropped_days;
mod errors;
mod feed;
mod settle;
#[cfg(test)]
mod tests;

use async_trait::async_trait;
use bytes::Bytes;
use outrider_model::{DeliveryId, DeliveryReason, EndpointId, EventId, Timestamp, UsedKey};
use outrider_telemetry::catalog::store::ACQUIRE_SECONDS;
use sqlx::PgConnection;

use crate::{
    Clock,
    connection::{partitions, sessions::Sessions},
    history::commit_log,
    ledger::{
        Accepted, Backlog, CancelScope, Claim, ClaimedJob, FoundEvent, Ledger, LedgerError,
        NewEvent, PendingSummary, QueuedRef, Settled,
    },
};
use dropped_days::{is_old, without_dropped};
use errors::failed;

/// The ledger on PostgreSQL, with its own sessions.
pub(super) struct PostgresLedger {
    sessions: Sessions,
    clock: Clock,
}

impl PostgresLedger {
    pub fn new(sessions: Sessions, clock: Clock) -> Self {
        Self { sessions, clock }
    }

    /// Does some work in a session. Gives up if the server does not answer.
    async fn run<T>(
        &self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, LedgerError>,
    ) -> Result<T, LedgerError> {
        let waited = ACQUIRE_SECONDS.start_timer();
        let session = self.sessions.take().await.map_err(failed);
        waited.observe_duration();
        session?.carry_out(work, |error| matches!(error, LedgerError::Data(_))).await
    }
}

#[async_trait]
impl Ledger for PostgresLedger {
    async fn accept(
        &self,
        batch: &[NewEvent],
        keys_since: Timestamp,
    ) -> Result<Vec<Accepted>, LedgerError> {
        if batch.is_empty() {
            Ok(Vec::new())
        } else {
            self.run(async |connection| {
                accept::accept(connection, batch, self.clock.now(), keys_since).await
            })
            .await
        }
    }

    async fn find(
        &self,
        keys: &[UsedKey],
        keys_since: Timestamp,
    ) -> Result<Vec<Option<FoundEvent>>, LedgerError> {
        if keys.is_empty() {
            Ok(Vec::new())
        } else {
            self.run(async |connection| accept::find(connection, keys, keys_since).await).await
        }
    }

    async fn settle(&self, batch: &[Settled]) -> Result<Vec<bool>, LedgerError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        match self.run(async |connection| settle::settle(connection, batch).await).await {
            // An attempt whose day was dropped must not keep the others from being recorded.
            Err(LedgerError::Unavailable(why)) if batch.iter().any(is_old) => {
                match self
                    .run(async |connection| {
                        without_dropped(connection, batch).await.map_err(failed)
                    })
                    .await?
                {
                    Some(rest) => {
                        self.run(async |connection| settle::settle(connection, &rest).await).await
                    }
                    None => Err(LedgerError::Unavailable(why)),
                }
            }
            settled => settled,
        }
    }

    async fn backlog(
        &self,
        after: Option<EndpointId>,
        limit: u32,
    ) -> Result<Vec<Backlog>, LedgerError> {
        self.run(async |connection| feed::backlog(connection, after, limit).await.map_err(failed))
            .await
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
            self.run(async |connection| {
                feed::claim(connection, claims, now, check_at, inline_bytes).await
            })
            .await
        }
    }

    async fn unqueue(&self, jobs: &[(DeliveryId, u32)]) -> Result<(), LedgerError> {
        if jobs.is_empty() {
            Ok(())
        } else {
            self.run(async |connection| feed::unqueue(connection, jobs).await.map_err(failed)).await
        }
    }

    async fn unqueue_other_epochs(&self, current: &[i64]) -> Result<u64, LedgerError> {
        self.run(async |connection| {
            feed::unqueue_other_epochs(connection, current).await.map_err(failed)
        })
        .await
    }

    async fn overdue(
        &self,
        after: Timestamp,
        until: Timestamp,
        limit: u32,
    ) -> Result<Vec<QueuedRef>, LedgerError> {
        self.run(async |connection| {
            feed::overdue(connection, after, until, limit).await.map_err(failed)
        })
        .await
    }

    async fn extend(
        &self,
        jobs: &[(DeliveryId, u32)],
        check_at: Timestamp,
    ) -> Result<(), LedgerError> {
        if jobs.is_empty() {
            Ok(())
        } else {
            self.run(async |connection| {
                feed::extend(connection, jobs, check_at).await.map_err(failed)
            })
            .await
        }
    }

    async fn current(&self, jobs: &[(DeliveryId, u32, u32)]) -> Result<Vec<bool>, LedgerError> {
        if jobs.is_empty() {
            Ok(Vec::new())
        } else {
            self.run(async |connection| feed::current(connection, jobs).await.map_err(failed)).await
        }
    }

    async fn payloads(&self, events: &[EventId]) -> Result<Vec<Option<Bytes>>, LedgerError> {
        if events.is_empty() {
            Ok(Vec::new())
        } else {
            self.run(async |connection| feed::payloads(connection, events).await.map_err(failed))
                .await
        }
    }

    async fn cancel(
        &self,
        scope: CancelScope,
        reason: DeliveryReason,
        now: Timestamp,
        limit: u32,
    ) -> Result<u64, LedgerError> {
        self.run(async |connection| {
            cancel::cancel(connection, scope, reason, now, limit).await.map_err(failed)
        })
        .await
    }

    async fn pending_summary(
        &self,
        now: Timestamp,
        count_limit: u32,
    ) -> Result<PendingSummary, LedgerError> {
        self.run(async |connection| {
            feed::pending_summary(connection, now, count_limit).await.map_err(failed)
        })
        .await
    }

    async fn prepare(&self, now: Timestamp) -> Result<(), LedgerError> {
        self.run(async |connection| partitions::prepare(connection, now).await.map_err(failed))
            .await
    }

    async fn prune_log(&self, kept_from: Timestamp) -> Result<bool, LedgerError> {
        self.run(async |connection| {
            commit_log::prune_postgres(connection, kept_from).await.map_err(failed)
        })
        .await
    }
}
