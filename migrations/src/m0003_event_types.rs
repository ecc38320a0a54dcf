//! Event types: the catalog of a project, and how a project treats events that violate it.

use sea_orm_migration::{
    prelude::*,
    sea_orm::{ConnectionTrait, DbBackend},
};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let (id, small, big, table) = match manager.get_database_backend() {
            DbBackend::Postgres => ("UUID", "SMALLINT", "BIGINT", ""),
            DbBackend::Sqlite => ("BLOB", "INTEGER", "INTEGER", " STRICT"),
            _ => {
                return Err(DbErr::Migration(
                    "only PostgreSQL and SQLite are supported".to_owned(),
                ));
            }
        };
        let statements = [
            // Off, as before. A version that does not know the column leaves it off.
            format!("ALTER TABLE projects ADD COLUMN schema_validation {small} NOT NULL DEFAULT 1"),
            format!(
                "CREATE TABLE event_types (
                    id {id} NOT NULL PRIMARY KEY,
                    project_id {id} NOT NULL,
                    event_type TEXT NOT NULL,
                    description TEXT NOT NULL,
                    schema TEXT,
                    deprecated {small} NOT NULL,
                    created_at {big} NOT NULL,
                    updated_at {big} NOT NULL
                ){table}"
            ),
            "CREATE UNIQUE INDEX event_types_by_name ON event_types (project_id, event_type)"
                .to_owned(),
            "CREATE INDEX event_types_by_project ON event_types (project_id, id)".to_owned(),
        ];
        for statement in statements {
            manager.get_connection().execute_unprepared(&statement).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for statement in
            ["DROP TABLE event_types", "ALTER TABLE projects DROP COLUMN schema_validation"]
        {
            manager.get_connection().execute_unprepared(statement).await?;
        }
        Ok(())
    }
}
