//! `outrider bootstrap`: what cannot be made through the API, because nobody has a key yet.

use anyhow::{Context, Result};
use outrider_model::{Principal, Scope, principal::Actor};
use outrider_store::{Backend, NewApiKey, NewProject, Store};
use outrider_telemetry::tell_warnings;
use serde_json::json;

use super::load;
use crate::{cli::Bootstrap, roles};

/// The first organisation, project and key.
pub struct First {
    pub organization_id: String,
    pub project_id: String,
    pub api_key_id: String,
    pub token: String,
}

/// Makes them and prints the key, which is shown this once.
pub async fn run(options: Bootstrap) -> Result<()> {
    bootstrap(options).await.context("bootstrap")
}

async fn bootstrap(options: Bootstrap) -> Result<()> {
    let config = load(options.configuration)?;
    tell_warnings()?;
    if roles::create_master_key(&config.secrets)? {
        eprintln!("made a master key in {}: keep it, the secrets in the database need it", config.secrets.master_key_file);
    }
    let store = Store::connect(&roles::store_options(&config)?).await?;
    if store.backend() == Backend::Sqlite {
        store.migrate_up().await?;
    }
    store.current().await?;
    let first = first(&store, &options.organization, &options.project).await?;
    store.close().await;
    if options.json {
        let First { organization_id, project_id, api_key_id, token } = first;
        println!(
            "{}",
            json!({"organization_id": organization_id, "project_id": project_id, "api_key_id": api_key_id, "token": token})
        );
    } else {
        println!("organisation  {}\nproject       {}\nAPI key       {}", first.organization_id, first.project_id, first.token);
        println!("The key is not shown again. Send it as \"Authorization: Bearer …\".");
    }
    Ok(())
}

/// Makes an organisation, a project in it and a key with every scope of the organisation.
pub async fn first(store: &Store, organization: &str, project: &str) -> Result<First> {
    let organization = store.create_organization(Actor::System, organization).await?;
    let principal = Principal::system(organization.id);
    let project =
        store.create_project(&principal, NewProject { name: project.to_owned(), ..NewProject::default() }, None).await?;
    let key =
        NewApiKey { project: None, name: "bootstrap".to_owned(), scopes: [Scope::Admin].into_iter().collect(), expires_at: None };
    let (key, token) = store.create_api_key(&principal, key, None).await?;
    Ok(First {
        organization_id: organization.id.to_string(),
        project_id: project.id.to_string(),
        api_key_id: key.id.to_string(),
        token: token.context("a new key has a token")?.reveal(),
    })
}
