//! Subscriptions: which events go to which endpoint.

use crate::{EndpointId, EventTypePattern, Noun, ProjectId, Spec, SubscriptionId};

/// Selects the event types that are sent to an endpoint.
pub type Subscription = Noun<SubscriptionSpec>;

/// The project and endpoint of a subscription, which never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubscriptionFixed {
    pub project: ProjectId,
    pub endpoint: EndpointId,
}

/// The fields of a subscription that callers set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SubscriptionSpec {
    pub name: String,
    /// At least one.
    pub event_types: Vec<EventTypePattern>,
}

impl Spec for SubscriptionSpec {
    type Id = SubscriptionId;
    type Fixed = SubscriptionFixed;
}
