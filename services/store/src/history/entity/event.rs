//! Events, without their payload.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "events")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub project_id: Uuid,
    pub event_type: String,
    pub content_type: String,
    pub payload_size: i32,
    pub idempotency_key: Option<String>,
    pub headers: String,
    pub metadata: String,
    pub ordering_key: Option<String>,
    pub deliver_at: Option<i64>,
    pub delivery_count: i32,
    pub origin: String,
    pub created_at: i64,
    pub payload_erased_at: Option<i64>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
