//! What a principal reaches.

use outrider_model::{Principal, ProjectId, Result};

use super::resource;
use crate::{Store, connection::callers::CallerConnection};

impl Store {
    /// For reads of a caller in a project. Errors: `NOT_FOUND` if the caller does not reach it.
    pub(crate) async fn reach(
        &self,
        principal: &Principal,
        project: ProjectId,
    ) -> Result<CallerConnection<'_>> {
        resource::reach(self, principal, project).await
    }
}
