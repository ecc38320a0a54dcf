//! The schema: where it stands, and its steps up and down.

use std::collections::HashSet;

use outrider_migrations::Migrator;
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbErr, Statement, TransactionTrait};
use sea_orm_migration::MigratorTrait;

use crate::{
    Backend, Failure, FailureKind, Store, patience, sealing,
    transaction::{LOCK, writing},
};

/// One step of the schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationState {
    /// The step's name.
    pub name: String,
    /// Whether the database has it.
    pub applied: bool,
}

/// What is said of a failure in between.
fn not_changed(error: DbErr) -> Failure {
    Failure::of_orm("the schema was not changed", &error)
}

impl Store {
    /// Brings the schema up to date, in one transaction, and tells which steps that took. Processes
    /// that do so at once wait for each other.
    pub async fn migrate_up(&self) -> Result<Vec<String>, Failure> {
        self.migrate(async |transaction, _| {
            Migrator::up(transaction, None).await.map_err(not_changed)
        })
        .await
    }

    /// Takes the last steps back, and their data with them; which ones. What is encrypted, and was
    /// not before, is put back in the clear.
    pub async fn migrate_down(&self, steps: u32) -> Result<Vec<String>, Failure> {
        let down = async |transaction: &DatabaseTransaction, applied: &HashSet<String>| {
            let later = applied.iter().filter(|step| step.as_str() > sealing::STEP).count();
            if applied.contains(sealing::STEP) && later < steps as usize {
                sealing::unseal(self, transaction).await?;
            }
            Migrator::down(transaction, Some(steps)).await.map_err(not_changed)
        };
        self.migrate(down).await
    }

    /// The names of the steps whose state it changed. `change` is told which ones there are.
    async fn migrate(
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

    /// All steps that this version knows, oldest first. It changes nothing.
    pub async fn migration_status(&self) -> Result<Vec<MigrationState>, Failure> {
        let applied = self.applied(self.read()).await;
        let applied = applied
            .map_err(|error| Failure::of_orm("the steps of the schema were not read", &error))?;
        let steps = Migrator::migrations();
        Ok(steps
            .iter()
            .map(|step| MigrationState {
                name: step.name().to_owned(),
                applied: applied.contains(step.name()),
            })
            .collect())
    }

    /// OK when the database answers and its schema has all steps that this version knows; one of a
    /// newer version is fine.
    pub async fn current(&self) -> Result<(), Failure> {
        let status = tokio::time::timeout(self.patience(), self.migration_status()).await;
        let status = status.unwrap_or_else(|_| {
            Err(Failure::of("the steps of the schema were not read", &patience::late()))
        })?;
        let missing: Vec<String> =
            status.into_iter().filter(|step| !step.applied).map(|step| step.name).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let words = format!("it lacks {} steps: {}", missing.len(), missing.join(", "));
        Err(Failure::new(FailureKind::Schema, "the schema is not current", words)
            .with_advice("run `outrider migrate up`"))
    }

    async fn begin_migration(&self) -> Result<DatabaseTransaction, DbErr> {
        let transaction = self.write().begin_with_options(writing()).await?;
        if self.backend() == Backend::Postgres {
            // A step may take long. Its locks wait for those who use the tables only briefly, for
            // all others wait behind it meanwhile: it fails then, and may be tried again.
            let bounds = format!(
                "SELECT pg_advisory_xact_lock({LOCK}); SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '5s'"
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
