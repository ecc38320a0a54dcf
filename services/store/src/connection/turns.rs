//! Callers reach the database in turns, so that none takes all connections and some are left for
//! the process itself.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use outrider_shares::{Exhausted, Holder, Resource, Turn, TurnResources, Turns};
use sea_orm::{ConnAcquireErr, DbErr, RuntimeErr};

/// Connections that callers leave to the process itself: for its directory, the change feed, the
/// feeder, probes and measurements.
const OWN: u32 = 2;
/// Maximum number of queries that wait for a connection, and of configuration changes that wait for
/// others.
const LINE: usize = 1_024;

const CONNECTIONS: TurnResources = TurnResources {
    slots: Resource { name: "database-connections", noun: "connections to the database", least: 1 },
    line: Resource { name: "database-line", noun: "places in the line for the database", least: 1 },
};
const CHANGES: TurnResources = TurnResources {
    slots: Resource {
        name: "configuration-changes",
        noun: "configuration changes in progress",
        least: 1,
    },
    line: Resource {
        name: "configuration-line",
        noun: "places in the line for configuration changes",
        least: 1,
    },
};

/// The turns of callers.
pub(crate) struct CallerTurns {
    connections: Turns,
    /// To change configuration, which the database does one change at a time. The caller already
    /// has a connection, so no more calls of one caller wait here than it may have connections.
    changes: Turns,
    /// How long a caller waits for a turn.
    patience: Duration,
    /// Whether the database answered the last query, even if only by a refusal.
    answers: AtomicBool,
}

impl CallerTurns {
    /// For a pool of this many connections.
    pub fn new(connections: u32, patience: Duration) -> Self {
        let slots = connections.saturating_sub(OWN).max(1) as usize;
        Self {
            connections: Turns::new(CONNECTIONS, slots, LINE),
            changes: Turns::new(CHANGES, 1, LINE),
            patience,
            answers: AtomicBool::new(true),
        }
    }

    /// How many queries have a connection, and how many wait for one.
    #[cfg(test)]
    pub fn held(&self) -> (usize, usize) {
        self.connections.held()
    }

    /// A turn to have a connection.
    pub async fn to_connect(&self, holder: Holder) -> Result<Turn, DbErr> {
        self.turn(&self.connections, holder).await
    }

    /// A turn to change configuration.
    pub async fn to_change(&self, holder: Holder) -> Result<Turn, DbErr> {
        self.turn(&self.changes, holder).await
    }

    async fn turn(&self, of: &Turns, holder: Holder) -> Result<Turn, DbErr> {
        of.take_within(holder, self.patience).await.map_err(|exhausted| {
            // While the database is gone, callers that wait for it hold all slots: the cause is
            // the database, not a share.
            if self.answers.load(Relaxed) {
                no_turn(exhausted)
            } else {
                DbErr::ConnectionAcquire(ConnAcquireErr::Timeout)
            }
        })
    }

    /// The same answer. Notes whether the database gave one.
    pub fn noted<T>(&self, answer: Result<T, DbErr>) -> Result<T, DbErr> {
        self.answers.store(!answer.as_ref().is_err_and(is_silence), Relaxed);
        answer
    }
}

/// Whether no database answered.
fn is_silence(error: &DbErr) -> bool {
    match error {
        DbErr::Conn(_) | DbErr::ConnectionAcquire(_) => true,
        DbErr::Exec(RuntimeErr::SqlxError(error)) | DbErr::Query(RuntimeErr::SqlxError(error)) => {
            matches!(error.as_ref(), sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut)
        }
        _ => false,
    }
}

/// Wraps the reason in an error of the driver, the only kind that statements have. [`exhausted`]
/// unwraps it.
fn no_turn(exhausted: Exhausted) -> DbErr {
    DbErr::Query(RuntimeErr::SqlxError(Arc::new(sqlx::Error::Io(io::Error::other(exhausted)))))
}

/// The used-up share, if that is why a statement failed.
pub(crate) fn exhausted(error: &DbErr) -> Option<Exhausted> {
    let DbErr::Query(RuntimeErr::SqlxError(error)) = error else { return None };
    let sqlx::Error::Io(error) = error.as_ref() else { return None };
    error.get_ref()?.downcast_ref().copied()
}
