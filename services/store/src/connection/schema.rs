//! The state of the schema, and its migrations.

use std::collections::HashSet;

use outrider_migrations::Migrator;
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbErr, Statement, TransactionTrait};
use sea_orm_migration::MigratorTrait;

use super::{
    backend::Backend,
    failure::{Failure, FailureKind},
    patience,
    store::Store,
    transaction::{LOCK, writing},
};

/// A migration and its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationState {
    /// The name of the migration.
    pub name: String,
    /// Whether it was applied to the database.
    pub applied: bool,
}

pub(crate) fn not_changed(error: DbErr) -> Failure {
    Failure::of_orm("the schema was not changed", &error)
}

impl Store {
    /// Brings the schema up to date in one transaction, and returns the migrations that this took.
    /// Concurrent calls in several processes wait for each other.
    pub async fn migrate_up(&self) -> Result<Vec<String>, Failure> {
        self.migrate(async |transaction, _| {
            Migrator::up(transaction, None).await.map_err(not_changed)
        })
        .await
    }

    /// Calls `change` with the applied migrations in a transaction. Returns the names of the
    /// migrations whose state it changed.
    pub(crate) async fn migrate(
        &self,
        change: impl AsyncFnOnce(&DatabaseTransaction, &HashSet<String>) -> Result<(), Failure>,
    ) -> Result<Vec<String>, Failure> {
        let transaction = self.begin_migration().await.map_err(not_changed)?;
        let before = self.applied(&transaction).await.map_err(not_changed)?;
        change(&transaction, &before).await?;
        let after = self.applied(&transaction).await.map_err(not_changed)?;
        transaction.commit().await.map_err(not_changed)?;
        let mut changed: Vec<String> = before.symmetric_difference(&after).cloned().collect();
        changed.sort_unstable();
        Ok(changed)
    }

    /// All migrations that this version knows, oldest first. Changes nothing.
    pub async fn migration_status(&self) -> Result<Vec<MigrationState>, Failure> {
        let applied = self.applied(self.read()).await;
        let applied = applied.map_err(|error| {
            Failure::of_orm("the migrations of the schema were not read", &error)
        })?;
        let steps = Migrator::migrations();
        Ok(steps
            .iter()
            .map(|step| MigrationState {
                name: step.name().to_owned(),
                applied: applied.contains(step.name()),
            })
            .collect())
    }

    /// Checks that the database answers and that its schema has all migrations that this version
    /// knows. A newer schema is fine.
    pub async fn current(&self) -> Result<(), Failure> {
        let status = tokio::time::timeout(self.patience(), self.migration_status()).await;
        let status = status.unwrap_or_else(|_| {
            Err(Failure::of("the migrations of the schema were not read", &patience::late()))
        })?;
        let missing: Vec<String> =
            status.into_iter().filter(|step| !step.applied).map(|step| step.name).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let words = format!("it lacks {} migrations: {}", missing.len(), missing.join(", "));
        Err(Failure::new(FailureKind::Schema, "the schema is not current", words)
            .with_advice("run `outrider migrate up`"))
    }

    async fn begin_migration(&self) -> Result<DatabaseTransaction, DbErr> {
        let transaction = self.write().begin_with_options(writing()).await?;
        if self.backend() == Backend::Postgres {
            // A migration may take long. But it waits for the tables' current users only briefly,
            // because all others wait behind it meanwhile. It then fails and can be tried again.
            let bounds = format!(
                "SELECT pg_advisory_xact_lock({LOCK}); SET LOCAL statement_timeout = 0; \
                 SET LOCAL lock_timeout = '5s'"
            );
            transaction.execute_unprepared(&bounds).await?;
        }
        Ok(transaction)
    }

    async fn applied(&self, database: &impl ConnectionTrait) -> Result<HashSet<String>, DbErr> {
        let exists = match self.backend() {
            Backend::Postgres => "SELECT 1 WHERE to_regclass('seaql_migrations') IS NOT NULL",
            Backend::Sqlite => {
                "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'seaql_migrations'"
            }
        };
        let backend = database.get_database_backend();
        if database.query_one_raw(Statement::from_string(backend, exists)).await?.is_none() {
            return Ok(HashSet::new());
        }
        let rows = Statement::from_string(backend, "SELECT version FROM seaql_migrations");
        database.query_all_raw(rows).await?.iter().map(|row| row.try_get_by_index(0)).collect()
    }
}
