//! `outrider bootstrap`: creates what cannot be created through the API, because there is no key
//! yet.

use anyhow::{Context, Result};
use clap::Args;
use outrider_model::Organization;
use outrider_rpc::validate::name;
use outrider_store::{Backend, Bootstrapped, NewInstallation, Store};
use outrider_telemetry::tell_warnings;
use serde_json::json;

use super::configuration::Configuration;
use crate::{printable::one_line, roles, stderr::note, stdout};

#[derive(Debug, Args)]
pub struct Bootstrap {
    #[command(flatten)]
    pub configuration: Configuration,
    /// The name of the organization.
    #[arg(long, default_value = "Default")]
    pub organization: String,
    /// The name of the project.
    #[arg(long, default_value = "Default")]
    pub project: String,
    /// Creates another organization, project and key if some exist.
    #[arg(long)]
    pub force: bool,
    /// Prints JSON for scripts.
    #[arg(long)]
    pub json: bool,
}

/// The first organization, project and key.
pub struct First {
    pub organization_id: String,
    pub project_id: String,
    pub api_key_id: String,
    pub token: String,
}

impl From<outrider_store::First> for First {
    fn from(first: outrider_store::First) -> Self {
        Self {
            organization_id: first.organization.to_string(),
            project_id: first.project.to_string(),
            api_key_id: first.api_key.to_string(),
            token: first.token.reveal(),
        }
    }
}

/// Creates them, and prints the key once. If there is an organization, creates nothing and says so.
pub async fn run(options: Bootstrap) -> Result<()> {
    bootstrap(options).await.context("bootstrap")
}

async fn bootstrap(options: Bootstrap) -> Result<()> {
    for (flag, text) in [("--organization", &options.organization), ("--project", &options.project)]
    {
        // Checks the name by the rule of the API, which would otherwise refuse each update of the
        // object.
        name(text).map_err(|why| anyhow::anyhow!("{flag}: {why}"))?;
    }
    let config = options.configuration.load()?;
    tell_warnings()?;
    let store = Store::connect(&roles::first_options(&config)?).await?;
    if store.backend() == Backend::Sqlite {
        store.migrate_up().await?;
    }
    store.current().await?;
    // A master key that the servers of another machine do not have would be useless.
    if (options.force || !store.is_bootstrapped().await?)
        && roles::create_master_key(&config.secrets)?
    {
        note!(
            "made a master key in {}: keep it, the secrets in the database need it",
            config.secrets.master_key_file
        );
    }
    let new = NewInstallation { organization: options.organization, project: options.project };
    let outcome = store.bootstrap(new, options.force).await;
    store.close().await;
    match outcome? {
        Bootstrapped::Made(first) => tell(first.into(), options.json),
        Bootstrapped::Exists(oldest) => tell_nothing(&oldest, options.json),
    }
}

fn tell(first: First, json: bool) -> Result<()> {
    let First { organization_id, project_id, api_key_id, token } = first;
    let text = if json {
        let made = json!({
            "created": true, "organization_id": organization_id, "project_id": project_id,
                "api_key_id": api_key_id, "token": token,
        });
        format!("{made}\n")
    } else {
        format!(
            "organization  {organization_id}\nproject       {project_id}\nAPI key       {token}\n\
             The key is not shown again. Send it as \"Authorization: Bearer …\".\n"
        )
    };
    stdout::write(&text)
}

fn tell_nothing(oldest: &Organization, json: bool) -> Result<()> {
    if json {
        return stdout::write(&format!(
            "{}\n",
            json!({"created": false, "organization_id": oldest.id.to_string()})
        ));
    }
    let (seconds, _) = oldest.created_at.parts();
    note!(
        "nothing was created: this database already has an organization ({} \"{}\", created {}). \
         Its key was shown then. --force creates another organization, project and key",
        oldest.id,
        one_line(&oldest.spec.name),
        prost_types::Timestamp { seconds, nanos: 0 },
    );
    Ok(())
}

/// Creates an organization, a project in it, and a key with every scope of the organization,
/// whatever exists.
pub async fn first(store: &Store, organization: &str, project: &str) -> Result<First> {
    let new =
        NewInstallation { organization: organization.to_owned(), project: project.to_owned() };
    match store.bootstrap(new, true).await? {
        Bootstrapped::Made(first) => Ok(first.into()),
        Bootstrapped::Exists(oldest) => {
            anyhow::bail!("the database already has an organization: {}", oldest.id)
        }
    }
}
