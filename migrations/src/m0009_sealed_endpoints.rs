//! Encrypted values of endpoints that are used as secrets: those of headers and the query of the
//! URL.

use sea_orm_migration::{prelude::*, sea_orm::DbBackend};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let bytes = match manager.get_database_backend() {
            DbBackend::Postgres => "BYTEA",
            DbBackend::Sqlite => "BLOB",
            other => return Err(DbErr::Migration(format!("{other:?} is not supported"))),
        };
        // A version that does not know the column does not write it. The store, which has the keys,
        // fills it.
        let statement = format!("ALTER TABLE endpoints ADD COLUMN sealed {bytes}");
        manager.get_connection().execute_unprepared(&statement).await.map(drop)
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .get_connection()
            .execute_unprepared("ALTER TABLE endpoints DROP COLUMN sealed")
            .await
            .map(drop)
    }
}
