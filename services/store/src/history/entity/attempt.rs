//! Attempts, without the answer's headers and body.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "attempts")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub delivery_id: Uuid,
    pub event_id: Uuid,
    pub endpoint_id: Uuid,
    pub project_id: Uuid,
    pub number: i32,
    pub outcome: i16,
    pub status_code: Option<i32>,
    pub started_at: i64,
    pub duration_micros: i64,
    pub response_truncated: bool,
    pub error_message: Option<String>,
    pub resent: bool,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
