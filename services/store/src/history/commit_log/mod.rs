//! The commit log: which events a commit accepted and which deliveries it moved. Tails read it.
//!
//! The ledger writes it in the same statement that accepts, settles or cancels: a row for each
//! commit, kind and project. Readers advance in the order of commits, and read only what no
//! transaction in progress can still precede:
//!
//! - On PostgreSQL a position is the id of the transaction, and readers stop below the oldest one
//!   in progress. So commits that finish out of order are seen late rather than skipped. A
//!   transaction that writes for long, in any database of the server, holds readers back until it
//!   ends.
//! - On SQLite the one writer numbers the rows.
//!
//! Rows are kept for a limited time ([`crate::Ledger::prune_log`]). A reader that comes back later
//! gets an error.

mod entries;
mod postgres;
mod rows;
mod sqlite;
#[cfg(test)]
mod tests;

use outrider_model::{ProjectId, Result};
use outrider_shares::Holder;

use crate::{Backend, Store, connection::error::unavailable_sql};

pub use entries::{LogEntry, LogKind, LogPage, LogPosition};
pub(crate) use postgres::{logged, prune as prune_postgres};
pub(crate) use sqlite::{Entries, prune as prune_sqlite, write};

impl Store {
    /// A number that identifies this database. Places of another database have no meaning here.
    pub async fn log_identity(&self) -> Result<i64> {
        self.within(async {
            match self.backend() {
                Backend::Postgres => postgres::identity(self.postgres_pool()).await,
                Backend::Sqlite => sqlite::identity(self.sqlite_pool()).await,
            }
            .map_err(unavailable_sql)
        })
        .await
    }

    /// The place of the next commit, in the turn of a caller.
    pub async fn log_end(&self, holder: Holder) -> Result<LogPosition> {
        let _turn = self.connection_turn(holder).await?;
        self.own_log_end().await
    }

    async fn own_log_end(&self) -> Result<LogPosition> {
        self.within(async {
            let position = match self.backend() {
                Backend::Postgres => postgres::end(self.postgres_pool()).await,
                Backend::Sqlite => sqlite::end(self.sqlite_pool()).await,
            };
            Ok(LogPosition {
                at: self.clock().now(),
                position: position.map_err(unavailable_sql)?,
                index: 0,
            })
        })
        .await
    }

    /// Up to `limit` entries of a project from a place on, in the turn of a caller. Permissions are
    /// checked when the objects of the ids are read. Errors: `CURSOR_EXPIRED` if entries from this
    /// place on may have been pruned, or if the place is not from this database's past.
    pub async fn read_log(
        &self,
        holder: Holder,
        kind: LogKind,
        project: ProjectId,
        from: LogPosition,
        limit: usize,
    ) -> Result<LogPage> {
        let _turn = self.connection_turn(holder).await?;
        self.within(async {
            let now = self.clock().now();
            let read = match self.backend() {
                Backend::Postgres => {
                    postgres::read(self.postgres_pool(), kind, project, from, now).await
                }
                Backend::Sqlite => sqlite::read(self.sqlite_pool(), kind, project, from).await,
            };
            read.map_err(unavailable_sql)?.page(kind, from, now, limit)
        })
        .await
    }

    /// Which of these logs have entries from a position on, or all of them if no position is given.
    /// Returns the position for the next call too.
    pub async fn logged_since(
        &self,
        from: Option<i64>,
        logs: Vec<(LogKind, ProjectId)>,
    ) -> Result<(Vec<(LogKind, ProjectId)>, i64)> {
        self.within(async {
            let Some(from) = from else { return Ok((logs, self.own_log_end().await?.position)) };
            match self.backend() {
                Backend::Postgres => {
                    postgres::since(self.postgres_pool(), from, &logs, self.clock().now()).await
                }
                Backend::Sqlite => sqlite::since(self.sqlite_pool(), from, &logs).await,
            }
            .map_err(unavailable_sql)
        })
        .await
    }
}
