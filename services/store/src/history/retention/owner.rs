//! Dropping by the owner of the tables. The servers write down which days may be dropped, by their
//! settings. The owner of the tables drops them: the servers themselves, or a job of the owner.
//! Nothing is dropped that no server wrote down. On SQLite there are no partitions, and there is
//! one process.

use outrider_model::{Result, Timestamp};
use sea_orm::{ConnectionTrait, Statement};

use super::{
    postgres,
    step::{DeletedRows, Progress, Step},
};
use crate::{
    Backend, LedgerError, Store,
    connection::{
        error::{malformed_row, unavailable, unavailable_sql},
        partitions,
    },
    days::day_of,
};

/// Only moves forward: for a while, processes may have different settings.
const WRITE_DOWN: &str = "UPDATE commit_log_state
    SET history_from = GREATEST(history_from, $1), keys_from = GREATEST(keys_from, $2)
    WHERE history_from < $1 OR keys_from < $2";
const WRITTEN_DOWN: &str = "SELECT kept_from, history_from, keys_from FROM commit_log_state";

/// What the owner dropped.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Dropped {
    /// What was deleted, by table.
    pub gone: Vec<DeletedRows>,
    /// Whether something was in use and stays until a later run.
    pub is_blocked: bool,
}

impl Store {
    /// Writes down that history from before `history_before` and keys that have expired at
    /// `keys_since` may be dropped.
    pub async fn write_down(
        &self,
        history_before: Option<Timestamp>,
        keys_since: Timestamp,
    ) -> Result<()> {
        if self.backend() == Backend::Sqlite {
            return Ok(());
        }
        let values = [history_before.map_or(0, day_of).into(), (day_of(keys_since) - 1).into()];
        let statement = Statement::from_sql_and_values(self.backend().into(), WRITE_DOWN, values);
        self.within(async {
            self.write().execute_raw(statement).await.map(drop).map_err(unavailable)
        })
        .await
    }

    /// Whether this process may create and drop partitions.
    pub async fn may_drop(&self) -> Result<bool> {
        if self.backend() == Backend::Sqlite {
            return Ok(true);
        }
        self.within(async {
            let mut connection = self.postgres_pool().acquire().await.map_err(unavailable_sql)?;
            partitions::may_create(&mut connection).await.map_err(unavailable_sql)
        })
        .await
    }

    /// The number of days after today that have partitions. None on SQLite.
    pub async fn days_ahead(&self) -> Result<Option<i64>> {
        if self.backend() == Backend::Sqlite {
            return Ok(None);
        }
        let now = self.clock().now();
        self.within(async {
            let mut connection = self.postgres_pool().acquire().await.map_err(unavailable_sql)?;
            partitions::ahead(&mut connection, now)
                .await
                .map(|ahead| Some(ahead.days))
                .map_err(unavailable_sql)
        })
        .await
    }

    /// Drops the days that were written down, except those that a pending delivery refers to.
    pub async fn drop_written_down(&self) -> Result<Dropped> {
        let mut dropped = Dropped::default();
        if self.backend() == Backend::Sqlite {
            return Ok(dropped);
        }
        let (kept_from, history_from, keys_from) = self.within(self.written_down()).await?;
        while self.ledger().prune_log(kept_from).await.map_err(log_not_pruned)? {
            dropped.gone.push(DeletedRows { table: "commit_log", partitions: 1, rows: 0 });
        }
        while dropped.add(self.step_within(postgres::drop_keys(self, keys_from)).await?)
            == Progress::More
        {}
        for day in self.within(postgres::days(self.read(), history_from)).await? {
            if !self.is_day_held(day).await?
                && dropped.add(self.drop_day(day).await?) == Progress::Blocked
            {
                break;
            }
        }
        Ok(dropped)
    }

    async fn written_down(&self) -> Result<(Timestamp, i32, i32)> {
        let statement = Statement::from_string(self.backend().into(), WRITTEN_DOWN);
        let row = self.read().query_one_raw(statement).await.map_err(unavailable)?;
        let row = row.ok_or_else(|| malformed_row("commit_log_state", "kept_from"))?;
        let day = |index| row.try_get_by_index(index).map_err(unavailable);
        Ok((Timestamp(row.try_get_by_index(0).map_err(unavailable)?), day(1)?, day(2)?))
    }
}

impl Dropped {
    fn add(&mut self, step: Step) -> Progress {
        self.gone.extend(step.gone);
        self.is_blocked |= step.progress == Progress::Blocked;
        step.progress
    }
}

/// The ledger has already logged this error.
fn log_not_pruned(error: LedgerError) -> outrider_model::Error {
    outrider_model::Error::unavailable(error.to_string())
}
