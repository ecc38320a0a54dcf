//! Retention: deletes what is older than it is kept. That concerns days of history that no pending
//! delivery refers to, idempotency keys, replay numbers, and the change feed. It also erases
//! payloads that a project keeps no longer (`payloads.rs`).
//!
//! Every call is one bounded step, safe to repeat, and several processes may call it: on PostgreSQL
//! a step takes an advisory lock, and does nothing if another process holds it. A day of history is
//! a partition of each table on PostgreSQL, and is deleted in chunks of rows on SQLite. To check
//! whether a pending delivery holds a day costs one index descent, and one for each replay of the
//! day's events, not a pass over all pending deliveries: the ids of an event's deliveries contain
//! the event's time, and those of replays, which do not, are in `replays`.

mod held;
mod owner;
mod payloads;
mod postgres;
mod sqlite;
mod step;
mod sweep;
#[cfg(test)]
mod tests;

use outrider_model::{Result, Timestamp};

use crate::{Backend, Store, days::day_of};
use held::is_held;
use sweep::delete_rows;

pub use owner::Dropped;
pub use payloads::Erased;
pub use step::{DeletedRows, Progress, Step};

/// The last change stays: it is the position of directories that have read everything, and the base
/// for the next number.
const CHANGES: &str = "DELETE FROM changes WHERE seq < (SELECT max(seq) FROM changes) AND seq IN (
    SELECT seq FROM (SELECT seq, at FROM changes ORDER BY seq LIMIT $2) oldest WHERE at < $1
)";

impl Store {
    /// The days of history that ended before `before`, oldest first, as days since 1970-01-01 in
    /// UTC.
    pub async fn old_days(&self, before: Timestamp) -> Result<Vec<i32>> {
        let until = day_of(before);
        match self.backend() {
            Backend::Postgres => self.within(postgres::days(self.read(), until)).await,
            Backend::Sqlite => sqlite::days(self.read(), until).await,
        }
    }

    /// Whether a pending delivery refers to a day. Call this before [`Store::drop_day`], because it
    /// makes nobody wait.
    pub async fn is_day_held(&self, day: i32) -> Result<bool> {
        self.within(is_held(self.read(), day)).await
    }

    /// The oldest day of which history is kept, as days since 1970-01-01 in UTC.
    pub async fn oldest_day(&self) -> Result<Option<i32>> {
        self.step_within(async {
            match self.backend() {
                Backend::Postgres => {
                    Ok(postgres::days(self.read(), i32::MAX).await?.first().copied())
                }
                Backend::Sqlite => sqlite::next_day(self.read(), i32::MIN).await,
            }
        })
        .await
    }

    /// Drops a day of history, or on SQLite some of its events. Drops nothing if a pending delivery
    /// refers to the day. Events are deleted together with their deliveries, attempts and replay
    /// numbers, so that the ledger adds up at every moment.
    pub async fn drop_day(&self, day: i32) -> Result<Step> {
        self.step_within(async {
            match self.backend() {
                Backend::Postgres => postgres::drop_day(self, day).await,
                Backend::Sqlite => sqlite::drop_day(self, day).await,
            }
        })
        .await
    }

    /// Drops idempotency keys of days on which all keys have expired at `keys_since`.
    pub async fn prune_keys(&self, keys_since: Timestamp) -> Result<Step> {
        self.step_within(async {
            // Near midnight, a key is also in the day before its own.
            let until = day_of(keys_since) - 1;
            match self.backend() {
                Backend::Postgres => postgres::drop_keys(self, until).await,
                Backend::Sqlite => sqlite::delete_keys(self, until).await,
            }
        })
        .await
    }

    /// Deletes configuration changes from before `before`, but never the last one. A directory that
    /// has not read a deleted change notices that, and starts again with an empty cache.
    pub async fn prune_changes(&self, before: Timestamp) -> Result<Step> {
        self.step_within(delete_rows(self, "changes", CHANGES, before.0)).await
    }
}
