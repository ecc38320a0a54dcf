//! Endpoints: where webhooks go.

use std::{collections::BTreeMap, time::Duration};

use crate::{EndpointId, ProjectId, Timestamp};

/// Where webhooks go, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub id: EndpointId,
    pub project: ProjectId,
    pub target: Target,
    pub description: String,
    pub state: EndpointState,
    /// For the whole exchange.
    pub timeout: Duration,
    /// Requests under way at once.
    pub max_in_flight: u32,
    /// Sent with every request.
    pub headers: BTreeMap<String, String>,
    pub metadata: BTreeMap<String, String>,
    pub owner: Option<String>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// What receives. Tunnels, polling and queues will be further kinds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// An HTTP server, by its canonical URL.
    Http { url: String },
}

impl Target {
    /// The kind as it is stored.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Http { .. } => "http",
        }
    }
}

/// Whether an endpoint is sent to. A gate: it never changes the endpoint's pending rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i16)]
pub enum EndpointState {
    Active = 1,
    Paused = 2,
}

impl EndpointState {
    /// By its stored number.
    #[must_use]
    pub fn from_number(number: i16) -> Option<Self> {
        match number {
            1 => Some(Self::Active),
            2 => Some(Self::Paused),
            _ => None,
        }
    }
}
