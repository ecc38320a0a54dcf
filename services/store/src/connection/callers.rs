//! The database as a caller reaches it: in turns.

use async_trait::async_trait;
use outrider_model::{Principal, ProjectId, Result};
use outrider_shares::{Holder, Turn};
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DbBackend, DbErr, ExecResult, QueryResult, Statement,
};

use super::{error::unavailable, store::Store, turns::CallerTurns};

/// The database on behalf of a caller. Each statement waits for a turn, and holds a connection only
/// while it runs.
pub(crate) struct CallerConnection<'s> {
    database: &'s DatabaseConnection,
    turns: &'s CallerTurns,
    holder: Holder,
}

impl CallerConnection<'_> {
    async fn turn(&self) -> Result<Turn, DbErr> {
        self.turns.to_connect(self.holder).await
    }
}

#[async_trait]
impl ConnectionTrait for CallerConnection<'_> {
    fn get_database_backend(&self) -> DbBackend {
        self.database.get_database_backend()
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        let _turn = self.turn().await?;
        self.turns.noted(self.database.execute_raw(statement).await)
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        let _turn = self.turn().await?;
        self.turns.noted(self.database.execute_unprepared(sql).await)
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        let _turn = self.turn().await?;
        self.turns.noted(self.database.query_one_raw(statement).await)
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        let _turn = self.turn().await?;
        self.turns.noted(self.database.query_all_raw(statement).await)
    }
}

impl Store {
    /// For reads on behalf of a holder of shares.
    pub(crate) fn caller_connection(&self, holder: Holder) -> CallerConnection<'_> {
        CallerConnection { database: self.read(), turns: self.caller_turns(), holder }
    }

    /// For reads that belong to no project, or to one that the principal may not reach.
    pub(crate) fn connection_of(&self, principal: &Principal) -> CallerConnection<'_> {
        self.caller_connection(Holder::of(principal))
    }

    /// For reads in a project that the principal reaches.
    pub(crate) fn connection_within(
        &self,
        principal: &Principal,
        project: ProjectId,
    ) -> CallerConnection<'_> {
        self.caller_connection(Holder::within(principal, project))
    }

    /// A caller's turn to have a connection, for statements that bypass sea-orm and for
    /// transactions.
    pub(crate) async fn connection_turn(&self, holder: Holder) -> Result<Turn> {
        self.caller_turns().to_connect(holder).await.map_err(unavailable)
    }

    /// A caller's turn to change configuration. The caller must already have its turn to connect:
    /// one that waits for its share of connections would keep all others from changing anything.
    pub(crate) async fn change_turn(&self, holder: Holder) -> Result<Turn> {
        self.caller_turns().to_change(holder).await.map_err(unavailable)
    }
}
