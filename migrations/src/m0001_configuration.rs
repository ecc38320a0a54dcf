//! Configuration: organizations, projects, API keys, endpoints and subscriptions; the change feed;
//! and request ids.
//!
//! Times are microseconds since 1970, maps and lists are JSON text, ids are UUIDs (16 bytes on
//! SQLite).

use sea_orm_migration::{
    prelude::*,
    sea_orm::{ConnectionTrait, DbBackend},
};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let tables = match manager.get_database_backend() {
            DbBackend::Postgres => Types {
                id: "UUID",
                bytes: "BYTEA",
                small: "SMALLINT",
                number: "INTEGER",
                big: "BIGINT",
                table: "",
            },
            DbBackend::Sqlite => Types {
                id: "BLOB",
                bytes: "BLOB",
                small: "INTEGER",
                number: "INTEGER",
                big: "INTEGER",
                table: " STRICT",
            },
            _ => {
                return Err(DbErr::Migration(
                    "only PostgreSQL and SQLite are supported".to_owned(),
                ));
            }
        };
        for statement in tables.statements() {
            manager.get_connection().execute_unprepared(&statement).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in [
            "requests",
            "changes",
            "subscriptions",
            "endpoint_secrets",
            "endpoints",
            "api_keys",
            "projects",
            "organizations",
        ] {
            manager.get_connection().execute_unprepared(&format!("DROP TABLE {table}")).await?;
        }
        Ok(())
    }
}

/// The types of a backend.
struct Types {
    id: &'static str,
    bytes: &'static str,
    small: &'static str,
    number: &'static str,
    big: &'static str,
    /// The text after the closing parenthesis of a table.
    table: &'static str,
}

impl Types {
    fn statements(&self) -> Vec<String> {
        let mut statements = self.tenants();
        statements.extend(self.endpoints());
        statements.extend(self.journals());
        statements
    }

    fn tenants(&self) -> Vec<String> {
        let Self { id, bytes, big, table, .. } = self;
        vec![
            format!(
                "CREATE TABLE organizations (
                    id {id} NOT NULL PRIMARY KEY,
                    name TEXT NOT NULL,
                    created_at {big} NOT NULL,
                    updated_at {big} NOT NULL
                ){table}"
            ),
            format!(
                "CREATE TABLE projects (
                    id {id} NOT NULL PRIMARY KEY,
                    organization_id {id} NOT NULL,
                    name TEXT NOT NULL,
                    created_at {big} NOT NULL,
                    updated_at {big} NOT NULL,
                    deleted_at {big}
                ){table}"
            ),
            "CREATE INDEX projects_by_organization ON projects (organization_id, id)".to_owned(),
            format!(
                "CREATE TABLE api_keys (
                    id {id} NOT NULL PRIMARY KEY,
                    organization_id {id} NOT NULL,
                    project_id {id},
                    name TEXT NOT NULL,
                    scopes {big} NOT NULL,
                    hash {bytes} NOT NULL,
                    expires_at {big},
                    created_at {big} NOT NULL,
                    updated_at {big} NOT NULL,
                    deleted_at {big}
                ){table}"
            ),
            "CREATE INDEX api_keys_by_organization ON api_keys (organization_id, id)".to_owned(),
        ]
    }

    fn endpoints(&self) -> Vec<String> {
        let Self { id, bytes, small, number, big, table } = self;
        vec![
            format!(
                "CREATE TABLE endpoints (
                    id {id} NOT NULL PRIMARY KEY,
                    project_id {id} NOT NULL,
                    target_kind TEXT NOT NULL,
                    target TEXT NOT NULL,
                    description TEXT NOT NULL,
                    state {small} NOT NULL,
                    timeout_micros {big} NOT NULL,
                    max_in_flight {number} NOT NULL,
                    headers TEXT NOT NULL,
                    metadata TEXT NOT NULL,
                    owner TEXT,
                    created_at {big} NOT NULL,
                    updated_at {big} NOT NULL,
                    deleted_at {big}
                ){table}"
            ),
            "CREATE INDEX endpoints_by_project ON endpoints (project_id, id)".to_owned(),
            "CREATE INDEX endpoints_by_owner ON endpoints (project_id, owner, id)".to_owned(),
            format!(
                "CREATE TABLE endpoint_secrets (
                    id {id} NOT NULL PRIMARY KEY,
                    endpoint_id {id} NOT NULL,
                    project_id {id} NOT NULL,
                    ciphertext {bytes} NOT NULL,
                    created_at {big} NOT NULL,
                    expires_at {big}
                ){table}"
            ),
            "CREATE INDEX endpoint_secrets_by_endpoint ON endpoint_secrets (endpoint_id, id)"
                .to_owned(),
            format!(
                "CREATE TABLE subscriptions (
                    id {id} NOT NULL PRIMARY KEY,
                    project_id {id} NOT NULL,
                    endpoint_id {id} NOT NULL,
                    name TEXT NOT NULL,
                    event_types TEXT NOT NULL,
                    created_at {big} NOT NULL,
                    updated_at {big} NOT NULL
                ){table}"
            ),
            "CREATE INDEX subscriptions_by_project ON subscriptions (project_id, id)".to_owned(),
            "CREATE INDEX subscriptions_by_endpoint ON subscriptions (endpoint_id, id)".to_owned(),
        ]
    }

    fn journals(&self) -> Vec<String> {
        let Self { id, bytes, big, table, .. } = self;
        vec![
            format!(
                "CREATE TABLE changes (
                    seq {big} NOT NULL PRIMARY KEY,
                    at {big} NOT NULL,
                    organization_id {id} NOT NULL,
                    project_id {id},
                    actor TEXT NOT NULL,
                    kind TEXT NOT NULL,
                    object_id {id} NOT NULL,
                    action TEXT NOT NULL,
                    before TEXT,
                    after TEXT
                ){table}"
            ),
            format!(
                "CREATE TABLE requests (
                    scope_id {id} NOT NULL,
                    request_id TEXT NOT NULL,
                    method TEXT NOT NULL,
                    fingerprint {bytes} NOT NULL,
                    object_id {id} NOT NULL,
                    created_at {big} NOT NULL,
                    PRIMARY KEY (scope_id, request_id)
                ){table}"
            ),
            "CREATE INDEX requests_by_time ON requests (created_at)".to_owned(),
        ]
    }
}
