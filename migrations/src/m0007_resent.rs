//! Whether the request of an attempt was sent twice.

use sea_orm_migration::{prelude::*, sea_orm::DbBackend};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let column = match manager.get_database_backend() {
            DbBackend::Postgres => "BOOLEAN NOT NULL DEFAULT FALSE",
            DbBackend::Sqlite => "INTEGER NOT NULL DEFAULT 0",
            _ => {
                return Err(DbErr::Migration(
                    "only PostgreSQL and SQLite are supported".to_owned(),
                ));
            }
        };
        // A version that does not know the column does not write it: its workers send nothing
        // twice.
        let statement = format!("ALTER TABLE attempts ADD COLUMN resent {column}");
        manager.get_connection().execute_unprepared(&statement).await.map(drop)
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .get_connection()
            .execute_unprepared("ALTER TABLE attempts DROP COLUMN resent")
            .await
            .map(drop)
    }
}
