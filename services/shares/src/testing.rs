//! Callers for tests.

use outrider_model::{ApiKeyId, OrganizationId, ProjectId, Timestamp, principal::Actor};

use crate::holder::Holder;

/// A key in a project of an organization, by their numbers.
pub(crate) fn holder(organization: u64, project: u64, key: u64) -> Holder {
    let at = Timestamp(0);
    Holder {
        organization: OrganizationId::new(at, organization),
        project: Some(ProjectId::new(at, project)),
        actor: Actor::ApiKey(ApiKeyId::new(at, key)),
    }
}
