//! Organizations, projects and API keys.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{ApiKeyId, Noun, OrganizationId, ProjectId, ScopeSet, Spec, Timestamp, noun::Unknown};

/// Owns projects.
pub type Organization = Noun<OrganizationSpec>;

/// The fields of an organization that callers set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OrganizationSpec {
    pub name: String,
}

impl Spec for OrganizationSpec {
    type Id = OrganizationId;
    type Fixed = ();
}

/// Holds the events of one product or environment, apart from those of other projects.
pub type Project = Noun<ProjectSpec>;

/// The organization of a project, which never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProjectFixed {
    pub organization: OrganizationId,
}

/// The fields of a project that callers set. The store keeps the fields that serde does not skip as
/// one JSON object.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ProjectSpec {
    #[serde(skip)]
    pub name: String,
    #[serde(skip)]
    pub schema_validation: SchemaValidation,
    /// When payloads and responses are erased. If absent, they are kept as long as the events.
    #[serde(skip)]
    pub payload_retention: Option<Duration>,
    #[serde(flatten)]
    pub unknown: Unknown,
}

impl Spec for ProjectSpec {
    type Id = ProjectId;
    type Fixed = ProjectFixed;
}

/// What happens to events that do not match the catalog of event types. The numbers are those of
/// `outrider.admin.v1.SchemaValidation`, and are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum SchemaValidation {
    /// Accepted without validation.
    #[default]
    Off = 1,
    /// Accepted with a warning.
    Warn = 2,
    /// Refused.
    Reject = 3,
}

impl SchemaValidation {
    /// Returns the variant with this number.
    #[must_use]
    pub fn from_number(number: i32) -> Option<Self> {
        [Self::Off, Self::Warn, Self::Reject]
            .into_iter()
            .find(|one| i32::from(*one as u8) == number)
    }
}

/// An API key without its secret.
pub type ApiKey = Noun<ApiKeySpec>;

/// The organization and project of an API key, which never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApiKeyFixed {
    pub organization: OrganizationId,
    /// The only project that the key reaches, if it is bound to one.
    pub project: Option<ProjectId>,
}

/// The fields of an API key that callers set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ApiKeySpec {
    pub name: String,
    pub scopes: ScopeSet,
    /// The key is refused from this time on.
    pub expires_at: Option<Timestamp>,
}

impl Spec for ApiKeySpec {
    type Id = ApiKeyId;
    type Fixed = ApiKeyFixed;
}
