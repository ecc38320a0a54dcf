//! Retention: which payloads were erased, how long a project keeps payloads, and how far erasing
//! has come.

use sea_orm_migration::{
    prelude::*,
    sea_orm::{ConnectionTrait, DbBackend},
};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let backend = manager.get_database_backend();
        let (id, big, table) = match backend {
            DbBackend::Postgres => ("UUID", "BIGINT", ""),
            DbBackend::Sqlite => ("BLOB", "INTEGER", " STRICT, WITHOUT ROWID"),
            _ => {
                return Err(DbErr::Migration(
                    "only PostgreSQL and SQLite are supported".to_owned(),
                ));
            }
        };
        let mut statements = vec![
            // A version that does not know these columns erases nothing, and reads an erased
            // payload as an empty one.
            format!("ALTER TABLE events ADD COLUMN payload_erased_at {big}"),
            format!("ALTER TABLE projects ADD COLUMN payload_retention_micros {big}"),
            "CREATE INDEX projects_with_payload_retention ON projects (id) \
             WHERE payload_retention_micros IS NOT NULL"
                .to_owned(),
            // All payloads of a project's events below this id were erased, or are held.
            format!(
                "CREATE TABLE payload_erasures \
                 (project_id {id} NOT NULL PRIMARY KEY, erased_until {id} NOT NULL){table}"
            ),
            // Events whose payload could not be erased yet because of a pending delivery.
            format!(
                "CREATE TABLE payload_holds (
                    project_id {id} NOT NULL, event_id {id} NOT NULL, \
                 PRIMARY KEY (project_id, event_id)
                ){table}"
            ),
        ];
        // To drop a day together with the replay numbers of its deliveries.
        statements.push("CREATE INDEX replays_by_delivery ON replays (delivery_id)".to_owned());
        if backend == DbBackend::Sqlite {
            // On PostgreSQL a day is a partition.
            statements
                .push("CREATE INDEX idempotency_keys_by_day ON idempotency_keys (day)".to_owned());
        }
        for statement in statements {
            manager.get_connection().execute_unprepared(&statement).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut statements = vec![
            "DROP INDEX replays_by_delivery",
            "DROP TABLE payload_holds",
            "DROP TABLE payload_erasures",
            "DROP INDEX projects_with_payload_retention",
            "ALTER TABLE projects DROP COLUMN payload_retention_micros",
            "ALTER TABLE events DROP COLUMN payload_erased_at",
        ];
        if manager.get_database_backend() == DbBackend::Sqlite {
            statements.push("DROP INDEX idempotency_keys_by_day");
        }
        for statement in statements {
            manager.get_connection().execute_unprepared(statement).await?;
        }
        Ok(())
    }
}
