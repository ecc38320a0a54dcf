//! The first organization, project and API key of a database, which nobody can create through the
//! API.

use outrider_model::{
    ApiKeyFixed, ApiKeyId, ApiKeySpec, Noun, Organization, OrganizationId, OrganizationSpec,
    ProjectFixed, ProjectId, ProjectSpec, Result, Scope, Token, principal::Actor,
};

use super::{
    api_keys::KeySecret,
    organizations, resource,
    transaction::{Transaction, random},
};
use crate::Store;

/// The names of what to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewInstallation {
    /// The organization's name.
    pub organization: String,
    /// The project's name.
    pub project: String,
}

/// What was created.
#[derive(Debug)]
pub struct First {
    pub organization: OrganizationId,
    pub project: ProjectId,
    pub api_key: ApiKeyId,
    /// The token of the key, which has every scope in the organization.
    pub token: Token,
}

/// The outcome of a bootstrap.
#[derive(Debug)]
pub enum Bootstrapped {
    /// Everything was created.
    Made(First),
    /// Nothing was created: the database has organizations, of which this is the oldest.
    Exists(Organization),
}

impl Store {
    /// Creates an organization, a project in it and a key, unless the database has an organization
    /// (with `again`, also then). This is one transaction under the lock of all changes: of
    /// concurrent calls, one creates them, and nobody sees a part.
    pub async fn bootstrap(&self, new: NewInstallation, again: bool) -> Result<Bootstrapped> {
        let id = OrganizationId::new(self.clock().now(), random());
        let transaction = Transaction::begin_in(self, Actor::System, id).await?;
        let now = transaction.now;
        if let Some(oldest) = organizations::oldest(&transaction.database).await?.filter(|_| !again)
        {
            return Ok(Bootstrapped::Exists(oldest));
        }
        let spec = OrganizationSpec { name: new.organization };
        resource::insert(&transaction, &Noun::new(id, (), spec, now), &()).await?;
        let project = ProjectId::new(now, random());
        let spec = ProjectSpec { name: new.project, ..ProjectSpec::default() };
        let fixed = ProjectFixed { organization: id };
        resource::insert(&transaction, &Noun::new(project, fixed, spec, now), &()).await?;
        let key = ApiKeyId::new(now, random());
        let spec = ApiKeySpec {
            name: "bootstrap".to_owned(),
            scopes: [Scope::Admin].into_iter().collect(),
            expires_at: None,
        };
        let fixed = ApiKeyFixed { organization: id, project: None };
        let secret = KeySecret::random();
        resource::insert(&transaction, &Noun::new(key, fixed, spec, now), &secret).await?;
        transaction.commit().await?;
        let token = secret.token(key);
        Ok(Bootstrapped::Made(First { organization: id, project, api_key: key, token }))
    }

    /// Whether there is an organization. For the bootstrap command only, not on behalf of a caller.
    pub async fn is_bootstrapped(&self) -> Result<bool> {
        Ok(organizations::oldest(self.write()).await?.is_some())
    }
}
