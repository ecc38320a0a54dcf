//! Settings of endpoints and projects that no query looks at, as JSON. New fields of these nouns
//! are stored there, so they need no migration.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub struct Migration;

const TABLES: [&str; 2] = ["endpoints", "projects"];

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // A version that does not know the column leaves it as it is. NULL means the defaults.
        for table in TABLES {
            let statement = format!("ALTER TABLE {table} ADD COLUMN settings TEXT");
            manager.get_connection().execute_unprepared(&statement).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in TABLES {
            let statement = format!("ALTER TABLE {table} DROP COLUMN settings");
            manager.get_connection().execute_unprepared(&statement).await?;
        }
        Ok(())
    }
}
