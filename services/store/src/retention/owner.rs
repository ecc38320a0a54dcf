//! Who drops: the servers write down which days may go, by their settings, and whoever owns the
//! tables carries it out, the servers themselves or a job of the owner's. Nothing is dropped that
//! no server wrote down. On SQLite there are no partitions and one process.

use outrider_model::{Result, Timestamp};
use sea_orm::{ConnectionTrait, Statement};

use super::{Gone, Progress, Step, postgres};
use crate::{
    Backend, LedgerError, Store,
    error::{malformed_row, unavailable, unavailable_sql},
    ledger::{codec::day_of, partitions},
};

/// Only ever later: processes may disagree for a while.
const WRITE_DOWN: &str =
    "UPDATE commit_log_state SET history_from = GREATEST(history_from, $1), keys_from = GREATEST(keys_from, $2)
    WHERE history_from < $1 OR keys_from < $2";
const WRITTEN_DOWN: &str = "SELECT kept_from, history_from, keys_from FROM commit_log_state";

/// What was carried out of what is written down.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Dropped {
    /// What went.
    pub gone: Vec<Gone>,
    /// Whether somebody used what was to go: a later run finds it again.
    pub is_blocked: bool,
}

impl Store {
    /// Writes down that history from before a time may go, and keys that are not good any more at
    /// another.
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

    /// Whether this process may make and drop partitions.
    pub async fn may_drop(&self) -> Result<bool> {
        if self.backend() == Backend::Sqlite {
            return Ok(true);
        }
        self.within(async {
            let mut connection = self.postgres_pool().acquire().await.map_err(unavailable_sql)?;
            partitions::may_make(&mut connection).await.map_err(unavailable_sql)
        })
        .await
    }

    /// How many days after today have their partitions; none on SQLite.
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

    /// Drops the days that are written down, but for those that something pending refers to.
    pub async fn drop_written_down(&self) -> Result<Dropped> {
        let mut dropped = Dropped::default();
        if self.backend() == Backend::Sqlite {
            return Ok(dropped);
        }
        let (kept_from, history_from, keys_from) = self.within(self.written_down()).await?;
        while self.ledger().prune_log(kept_from).await.map_err(told)? {
            dropped.gone.push(Gone { table: "commit_log", partitions: 1, rows: 0 });
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

/// Of the log, which the ledger prunes and has told of in the log.
fn told(error: LedgerError) -> outrider_model::Error {
    outrider_model::Error::unavailable(error.to_string())
}
