//! Attempts are listed by the time of their start instead of that of their event.
//!
//! An earlier version keeps working on this schema, but has no index for its lists of attempts.

use sea_orm_migration::{prelude::*, sea_orm::ConnectionTrait};

#[derive(DeriveMigrationName)]
pub struct Migration;

/// The name of each index, its columns before those of the order, and its condition.
const INDEXES: [(&str, &str, &str); 4] = [
    ("attempts_by_project", "project_id", ""),
    ("attempts_by_endpoint", "endpoint_id", ""),
    ("attempts_by_outcome", "project_id, outcome", " WHERE outcome <> 1"),
    ("attempts_by_endpoint_outcome", "endpoint_id, outcome", " WHERE outcome <> 1"),
];

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        replace(manager, "started_at, id").await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        replace(manager, "id").await
    }
}

async fn replace(manager: &SchemaManager<'_>, order: &str) -> Result<(), DbErr> {
    for (name, columns, rows) in INDEXES {
        let connection = manager.get_connection();
        connection.execute_unprepared(&format!("DROP INDEX {name}")).await?;
        connection
            .execute_unprepared(&format!(
                "CREATE INDEX {name} ON attempts ({columns}, {order}){rows}"
            ))
            .await?;
    }
    Ok(())
}
