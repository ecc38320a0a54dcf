//! `outrider keys`.

use clap::{Args, Subcommand};
use outrider_proto::{
    admin::{
        ApiKey, CreateApiKeyRequest, DeleteApiKeyRequest, GetApiKeyRequest, ListApiKeysRequest,
        UpdateApiKeyRequest, api_key_service_client::ApiKeyServiceClient,
    },
    options::Scope,
};
use prost_types::Timestamp;

use super::{
    Failure, ServerOptions,
    connection::{PROJECT, Session, WHOLE},
    input::{Mask, Page, instant},
    output::Column,
};

const COLUMNS: &[Column] = &[
    ("id", "api_key_id"),
    ("name", "name"),
    ("project", "project_id"),
    ("scopes", "scopes"),
    ("expires", "expire_time"),
];

#[derive(Debug, Args)]
pub struct Keys {
    #[command(flatten)]
    pub client: ServerOptions,
    #[command(subcommand)]
    pub action: Action,
}

#[derive(Debug, Subcommand)]
pub enum Action {
    /// Lists the keys that your key has access to, oldest first.
    List(Page),
    /// Shows a key without its token.
    Get { id: String },
    /// Creates a key for the project, and prints its token once.
    Create {
        /// The display name.
        name: String,
        /// The scopes, such as events_publish; separated by commas.
        #[arg(long = "scopes", value_delimiter = ',', required = true, value_parser = scope,
            value_name = "SCOPE")]
        scopes: Vec<Scope>,
        /// The expiry time, in RFC 3339.
        #[arg(long, value_name = "TIME", value_parser = instant)]
        expires: Option<Timestamp>,
        /// The project of the key [env: OUTRIDER_PROJECT, or that of the profile]
        #[arg(long, value_name = "PROJECT", conflicts_with = "organization_wide")]
        project: Option<String>,
        /// Creates a key for every project of the organization.
        #[arg(long)]
        organization_wide: bool,
    },
    /// Changes a key.
    Update {
        id: String,
        #[arg(long)]
        name: Option<String>,
        /// The new scopes, which replace the current ones; separated by commas.
        #[arg(long = "scopes", value_delimiter = ',', value_parser = scope, value_name = "SCOPE")]
        scopes: Vec<Scope>,
        /// The expiry time, in RFC 3339.
        #[arg(long, value_name = "TIME", value_parser = instant)]
        expires: Option<Timestamp>,
        /// Fields to clear, such as expire_time; separated by commas.
        #[arg(long, value_delimiter = ',', value_name = "FIELD")]
        clear: Vec<String>,
    },
    /// Revokes a key.
    Delete { id: String },
}

/// `events_publish` or `SCOPE_EVENTS_PUBLISH`.
fn scope(text: &str) -> Result<Scope, String> {
    let upper = text.to_ascii_uppercase();
    let name = if upper.starts_with("SCOPE_") { upper } else { format!("SCOPE_{upper}") };
    Scope::from_str_name(&name).filter(|scope| *scope != Scope::Unspecified).ok_or_else(|| {
        let known: Vec<_> = (1..)
            .map_while(|number| Scope::try_from(number).ok())
            .map(|scope| word(scope).to_lowercase())
            .collect();
        format!("must be one of {}", known.join(", "))
    })
}

fn word(scope: Scope) -> &'static str {
    let name = scope.as_str_name();
    name.strip_prefix("SCOPE_").unwrap_or(name)
}

pub async fn run(options: Keys) -> Result<(), Failure> {
    let project = match &options.action {
        // Not a variable of the option, because with --organization-wide it is ignored, like that
        // of a profile.
        Action::Create { project, .. } => project.clone().or_else(|| std::env::var(PROJECT).ok()),
        _ => None,
    };
    let session = Session::within(&options.client, project).await?;
    let (mut api, output) = (
        ApiKeyServiceClient::new(session.service()).max_decoding_message_size(WHOLE),
        session.output,
    );
    let numbers = |scopes: Vec<Scope>| scopes.into_iter().map(i32::from).collect::<Vec<_>>();
    match options.action {
        Action::List(page) => {
            let request =
                ListApiKeysRequest { page_size: page.size(), page_token: page.page_token };
            output.page(api.list_api_keys(request).await?, COLUMNS)
        }
        Action::Get { id } => {
            let answer = api.get_api_key(GetApiKeyRequest { api_key_id: id }).await?.into_inner();
            output.one(&answer.api_key.unwrap_or_default())
        }
        Action::Create { name, scopes, expires, organization_wide, .. } => {
            let project_id = if organization_wide { String::new() } else { session.project()? };
            let api_key = ApiKey {
                name,
                project_id,
                scopes: numbers(scopes),
                expire_time: expires,
                ..ApiKey::default()
            };
            let request =
                CreateApiKeyRequest { api_key: Some(api_key), ..CreateApiKeyRequest::default() };
            output.one(&api.create_api_key(request).await?.into_inner())
        }
        Action::Update { id, name, scopes, expires, clear } => {
            let mut mask = Mask::clearing(clear);
            let api_key = ApiKey {
                name: mask.take("name", name),
                scopes: mask.take_all("scopes", numbers(scopes)),
                expire_time: mask.take("expire_time", expires.map(Some)),
                ..ApiKey::default()
            };
            let request = UpdateApiKeyRequest {
                api_key_id: id,
                api_key: Some(api_key),
                update_mask: mask.finish()?,
            };
            output.one(&api.update_api_key(request).await?.into_inner().api_key.unwrap_or_default())
        }
        Action::Delete { id } => {
            api.delete_api_key(DeleteApiKeyRequest { api_key_id: id.clone() }).await?;
            output.done(&format!("deleted {id}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_by_their_words() {
        assert_eq!(scope("events_publish").unwrap(), Scope::EventsPublish);
        assert_eq!(scope("SCOPE_ADMIN").unwrap(), Scope::Admin);
        let refusal = scope("unspecified").unwrap_err();
        assert!(
            refusal.contains("admin, events_publish") && refusal.contains("organizations_write"),
            "{refusal}"
        );
    }
}
