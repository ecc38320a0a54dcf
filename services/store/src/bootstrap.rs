//! The first organisation, project and API key of a database, which nobody can make through the
//! API.

use outrider_model::{
    ApiKeyId, Organization, OrganizationId, ProjectId, Result, Scope, Token, principal::Actor,
};

use crate::{
    NewApiKey, NewProject, Store, api_keys, organizations, projects,
    transaction::{Transaction, random},
};

/// What is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewInstallation {
    /// The organisation's name.
    pub organization: String,
    /// The project's name.
    pub project: String,
}

/// What was made.
#[derive(Debug)]
pub struct First {
    pub organization: OrganizationId,
    pub project: ProjectId,
    pub api_key: ApiKeyId,
    /// Of the key, which has every scope of the organisation.
    pub token: Token,
}

/// What became of it.
#[derive(Debug)]
pub enum Bootstrapped {
    /// Everything was made.
    Made(First),
    /// Nothing was: the database has organisations, of which this is the oldest.
    Exists(Organization),
}

impl Store {
    /// Makes an organisation, a project in it and a key, unless there is an organisation (`again`:
    /// also then). It is one transaction under the lock of all changes, so that of any number at
    /// once one makes them, and nobody finds a part.
    pub async fn bootstrap(&self, new: NewInstallation, again: bool) -> Result<Bootstrapped> {
        let id = OrganizationId::new(self.clock().now(), random());
        let transaction = Transaction::begin_in(self, Actor::System, id).await?;
        if let Some(oldest) = organizations::oldest(&transaction.database).await?.filter(|_| !again)
        {
            return Ok(Bootstrapped::Exists(oldest));
        }
        organizations::insert(&transaction, id, &new.organization).await?;
        let project = ProjectId::new(transaction.now, random());
        projects::insert(
            &transaction,
            id,
            project,
            NewProject { name: new.project, ..NewProject::default() },
        )
        .await?;
        let key = NewApiKey {
            project: None,
            name: "bootstrap".to_owned(),
            scopes: [Scope::Admin].into_iter().collect(),
            expires_at: None,
        };
        let (key, token) = api_keys::insert(&transaction, id, key).await?;
        transaction.commit().await?;
        Ok(Bootstrapped::Made(First { organization: id, project, api_key: key.id, token }))
    }

    /// Whether there is an organisation: for the bootstrap command only, not on behalf of a caller.
    pub async fn is_bootstrapped(&self) -> Result<bool> {
        Ok(organizations::oldest(self.write()).await?.is_some())
    }
}
