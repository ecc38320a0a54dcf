//! Organisations, projects, and the keys to them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{ApiKeyId, Noun, OrganizationId, ProjectId, ScopeSet, Spec, Timestamp, noun::Unknown};

/// Who owns projects.
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

/// What keeps the events of one product or environment apart.
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
    /// After so long payloads and answers are erased; none: they are kept as long as the events.
    #[serde(skip)]
    pub payload_retention: Option<Duration>,
    #[serde(flatten)]
    pub unknown: Unknown,
}

impl Spec for ProjectSpec {
    type Id = ProjectId;
    type Fixed = ProjectFixed;
}

/// What becomes of events that the catalogue of event types speaks against. The numbers are those
/// of `outrider.admin.v1.SchemaValidation` and are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum SchemaValidation {
    /// They are accepted; nothing is validated.
    #[default]
    Off = 1,
    /// They are accepted with a warning.
    Warn = 2,
    /// They are refused.
    Reject = 3,
}

impl SchemaValidation {
    /// By its number.
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
    /// The one project it is bound to.
    pub project: Option<ProjectId>,
}

/// The fields of an API key that callers set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ApiKeySpec {
    pub name: String,
    pub scopes: ScopeSet,
    /// Refused from then on.
    pub expires_at: Option<Timestamp>,
}

impl Spec for ApiKeySpec {
    type Id = ApiKeyId;
    type Fixed = ApiKeyFixed;
}
