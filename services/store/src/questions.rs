//! What callers ask of the database: in turns, so that nobody has all connections, and some stay
//! for the process itself.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use async_trait::async_trait;
use outrider_model::{Principal, ProjectId, Result};
use outrider_shares::{Exhausted, Holder, Resource, Turn, TurnResources, Turns};
use sea_orm::{
    ConnAcquireErr, ConnectionTrait, DatabaseConnection, DbBackend, DbErr, ExecResult, QueryResult,
    RuntimeErr, Statement,
};

use crate::{Store, error::unavailable, projects};

/// Connections that callers leave to the process itself: to its directory and the feed of changes,
/// to the feeder, to probes and measurements.
const OWN: u32 = 2;
/// Questions that wait for a connection, and changes of configuration that wait for others.
const LINE: usize = 1_024;

const CONNECTIONS: TurnResources = TurnResources {
    slots: Resource { name: "database-connections", noun: "connections to the database", least: 1 },
    line: Resource { name: "database-line", noun: "places in the line for the database", least: 1 },
};
const CHANGES: TurnResources = TurnResources {
    slots: Resource {
        name: "configuration-changes",
        noun: "changes of configuration under way",
        least: 1,
    },
    line: Resource {
        name: "configuration-line",
        noun: "places in the line for changes of configuration",
        least: 1,
    },
};

/// The turns of callers.
pub(crate) struct Questions {
    connections: Turns,
    /// Those that change configuration, of which a database carries out one at a time. Such a
    /// caller has a connection by then: so many of one caller wait as it may have connections, and
    /// no more.
    changes: Turns,
    /// How long a turn may be waited for.
    patience: Duration,
    /// Whether the last question was answered, if only by a refusal.
    answers: AtomicBool,
}

impl Questions {
    /// For a pool of so many connections.
    pub fn new(connections: u32, patience: Duration) -> Self {
        let places = connections.saturating_sub(OWN).max(1) as usize;
        Self {
            connections: Turns::new(CONNECTIONS, places, LINE),
            changes: Turns::new(CHANGES, 1, LINE),
            patience,
            answers: AtomicBool::new(true),
        }
    }

    /// How many questions have a connection, and how many wait for one.
    #[cfg(test)]
    pub fn held(&self) -> (usize, usize) {
        self.connections.held()
    }

    async fn turn(&self, of: &Turns, holder: Holder) -> Result<Turn, DbErr> {
        of.take_within(holder, self.patience).await.map_err(|exhausted| {
            // While the database is gone, those who wait for it hold all places.
            if self.answers.load(Relaxed) {
                refused(exhausted)
            } else {
                DbErr::ConnectionAcquire(ConnAcquireErr::Timeout)
            }
        })
    }

    fn heard<T>(&self, answer: Result<T, DbErr>) -> Result<T, DbErr> {
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

/// As an error of the driver, since statements have no other. [`exhausted`] finds it again.
fn refused(exhausted: Exhausted) -> DbErr {
    DbErr::Query(RuntimeErr::SqlxError(Arc::new(sqlx::Error::Io(io::Error::other(exhausted)))))
}

/// Why a question had no turn, if that is what it failed of.
pub(crate) fn exhausted(error: &DbErr) -> Option<Exhausted> {
    let DbErr::Query(RuntimeErr::SqlxError(error)) = error else { return None };
    let sqlx::Error::Io(error) = error.as_ref() else { return None };
    error.get_ref()?.downcast_ref().copied()
}

/// A database as a caller asks it: each statement has its turn, and a connection no longer than
/// that.
pub(crate) struct Asked<'s> {
    database: &'s DatabaseConnection,
    questions: &'s Questions,
    holder: Holder,
}

impl Asked<'_> {
    async fn turn(&self) -> Result<Turn, DbErr> {
        self.questions.turn(&self.questions.connections, self.holder).await
    }
}

#[async_trait]
impl ConnectionTrait for Asked<'_> {
    fn get_database_backend(&self) -> DbBackend {
        self.database.get_database_backend()
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        let _turn = self.turn().await?;
        self.questions.heard(self.database.execute_raw(statement).await)
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        let _turn = self.turn().await?;
        self.questions.heard(self.database.execute_unprepared(sql).await)
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        let _turn = self.turn().await?;
        self.questions.heard(self.database.query_one_raw(statement).await)
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        let _turn = self.turn().await?;
        self.questions.heard(self.database.query_all_raw(statement).await)
    }
}

impl Store {
    /// For reads on behalf of a caller.
    pub(crate) fn asked_as(&self, holder: Holder) -> Asked<'_> {
        Asked { database: self.read(), questions: self.questions(), holder }
    }

    /// For reads that belong to no project, or to one that the caller is not known to reach.
    pub(crate) fn asked_by(&self, principal: &Principal) -> Asked<'_> {
        self.asked_as(Holder::of(principal))
    }

    /// For reads in a project that the caller reaches.
    pub(crate) fn asked_within(&self, principal: &Principal, project: ProjectId) -> Asked<'_> {
        self.asked_as(Holder::within(principal, project))
    }

    /// For reads of a caller in a project, when the caller reaches it. Errors: `NOT_FOUND`.
    pub(crate) async fn reach(
        &self,
        principal: &Principal,
        project: ProjectId,
    ) -> Result<Asked<'_>> {
        projects::find(&self.asked_by(principal), principal, project).await?;
        Ok(self.asked_within(principal, project))
    }

    /// A caller's turn to have a connection, for what asks past sea-orm and for transactions.
    pub(crate) async fn connection_turn(&self, holder: Holder) -> Result<Turn> {
        let questions = self.questions();
        questions.turn(&questions.connections, holder).await.map_err(unavailable)
    }

    /// A caller's turn to change configuration. It has a turn to have a connection already: a
    /// caller that waits for its share of connections would keep all others from changing anything.
    pub(crate) async fn change_turn(&self, holder: Holder) -> Result<Turn> {
        let questions = self.questions();
        questions.turn(&questions.changes, holder).await.map_err(unavailable)
    }
}
