//! Subscriptions: which events go to which endpoint.

use crate::{EndpointId, EventTypePattern, ProjectId, SubscriptionId, Timestamp};

/// Sends events of some types to an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    pub id: SubscriptionId,
    pub project: ProjectId,
    pub endpoint: EndpointId,
    pub name: String,
    /// At least one.
    pub event_types: Vec<EventTypePattern>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}
