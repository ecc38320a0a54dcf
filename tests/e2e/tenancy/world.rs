//! Three projects with an object of every noun, two in one organization and one in another, and
//! keys with one scope each.

use std::collections::HashMap;

use anyhow::{Context, Result};
use outrider_tests::{Outrider, Receiver, client::Rest, wait_until};
use prost_reflect::Kind;
use serde_json::{Value, json};

use super::rows::{Ids, Who, fresh_name};
use crate::scenario::{BOUND, text};

/// A project and its objects.
#[derive(Debug)]
pub struct Tenant {
    /// REST with a key that may do everything in the organization.
    pub rest: Rest,
    /// An object of every noun.
    pub ids: Ids,
}

/// The objects that the calls are about, and those who call.
#[derive(Debug)]
pub struct World {
    /// The project whose objects the calls are about.
    pub victim: Tenant,
    /// Another project of the same organization.
    pub sibling: Tenant,
    /// A project of another organization.
    pub stranger: Tenant,
    /// The keys, by who holds them and by their only scope.
    tokens: HashMap<(Who, String), String>,
}

impl World {
    /// Creates everything, and waits until nothing changes any more.
    pub async fn new(outrider: &Outrider, receiver: &Receiver) -> Result<Self> {
        let rest = Rest::new(&outrider.url(), Some(&outrider.token));
        let victim = Tenant::new(rest.clone(), &outrider.organization_id, receiver).await?;
        let sibling = Tenant::new(rest.clone(), &outrider.organization_id, receiver).await?;
        let other = tokio::task::block_in_place(|| outrider.another_organization())?;
        let stranger =
            Tenant::new(rest.with_token(Some(&other.token)), &other.organization_id, receiver)
                .await?;
        let mut tokens = HashMap::new();
        for scope in scopes()? {
            for who in Who::ALL {
                let (holder, bound) = match who {
                    Who::Own => (&victim, true),
                    Who::Whole => (&victim, false),
                    Who::Sibling => (&sibling, true),
                    Who::Stranger => (&stranger, false),
                };
                let token = holder.token(&scope, bound.then(|| &holder.ids["project_id"])).await?;
                tokens.insert((who, scope.clone()), token);
            }
        }
        Ok(Self { victim, sibling, stranger, tokens })
    }

    /// Returns the key of a caller with one scope, for calls about these objects.
    pub async fn token(&self, who: Who, scope: &str, ids: &Ids) -> Result<String> {
        if who == Who::Own && ids["project_id"] != self.victim.ids["project_id"] {
            return self.victim.token(scope, Some(&ids["project_id"])).await;
        }
        self.tokens
            .get(&(who, scope.to_owned()))
            .cloned()
            .with_context(|| format!("no key of {who:?} with {scope}"))
    }

    /// Returns the victim's ids, with a new object for one field.
    pub async fn with_new(&self, field: &'static str) -> Result<Ids> {
        let mut ids = self.victim.ids.clone();
        let made = match field {
            "project_id" => new_project(&self.victim.rest).await?,
            "endpoint_id" => {
                new_endpoint(&self.victim.rest, &ids, "https://example.com/new").await?
            }
            "subscription_id" => new_subscription(&self.victim.rest, &ids).await?,
            "api_key_id" => new_key(&self.victim.rest, &ids).await?,
            "event_type" => new_event_type(&self.victim.rest, &ids).await?,
            "event_id" => new_event(&self.victim.rest, &ids).await?,
            other => anyhow::bail!("nothing makes a new {other}"),
        };
        ids.insert(field, made);
        Ok(ids)
    }
}

/// Returns all scopes.
pub fn scopes() -> Result<Vec<String>> {
    let scopes = outrider_proto::DESCRIPTORS
        .get_enum_by_name("outrider.options.v1.Scope")
        .context("no scopes")?;
    Ok(scopes
        .values()
        .filter(|value| value.number() != 0)
        .map(|value| value.name().to_owned())
        .collect())
}

impl Tenant {
    async fn new(rest: Rest, organization: &str, receiver: &Receiver) -> Result<Self> {
        let mut ids = Ids::from([("organization_id", organization.to_owned())]);
        ids.insert("project_id", new_project(&rest).await?);
        ids.insert("endpoint_id", new_endpoint(&rest, &ids, &receiver.url("/matrix")).await?);
        ids.insert("subscription_id", new_subscription(&rest, &ids).await?);
        ids.insert("api_key_id", new_key(&rest, &ids).await?);
        ids.insert("event_type", new_event_type(&rest, &ids).await?);
        let mut tenant = Self { rest, ids };
        tenant.deliver().await?;
        Ok(tenant)
    }

    /// Publishes an event, and waits until it is delivered. Its delivery and attempt become objects
    /// of the tenant.
    async fn deliver(&mut self) -> Result<()> {
        let project = &self.ids["project_id"];
        let events = format!("/v1/projects/{project}/events");
        // Subscriptions take effect within a second.
        let event = wait_until("an event is routed", BOUND, async || {
            let published = self
                .rest
                .post(&events, &json!({"event_type": "matrix.made", "data": {}}))
                .await
                .ok()?;
            (published["delivery_count"] == 1).then(|| text(&published, "event_id"))
        });
        let event = event.await??;
        let deliveries = format!(
            "/v1/projects/{project}/deliveries?event_id={event}&status=DELIVERY_STATUS_DELIVERED"
        );
        let delivery = wait_until("the event is delivered", BOUND, async || {
            let page = self.rest.get(&deliveries).await.ok()?;
            text(&page["deliveries"][0], "delivery_id").ok()
        });
        let delivery = delivery.await?;
        let page = self
            .rest
            .get(&format!("/v1/projects/{project}/deliveries/{delivery}/attempts"))
            .await?;
        let attempt = text(&page["attempts"][0], "attempt_id")?;
        self.ids.extend([("event_id", event), ("delivery_id", delivery), ("attempt_id", attempt)]);
        Ok(())
    }

    async fn token(&self, scope: &str, project: Option<&String>) -> Result<String> {
        let key = json!({"name": scope, "project_id": project, "scopes": [scope]});
        text(&self.rest.post("/v1/api_keys", &key).await?, "token")
    }
}

async fn new_project(rest: &Rest) -> Result<String> {
    text(&rest.post("/v1/projects", &json!({"name": "Of the matrix"})).await?, "project_id")
}

async fn new_endpoint(rest: &Rest, ids: &Ids, url: &str) -> Result<String> {
    let path = format!("/v1/projects/{}/endpoints", ids["project_id"]);
    text(&rest.post(&path, &json!({"http": {"url": url}})).await?["endpoint"], "endpoint_id")
}

async fn new_subscription(rest: &Rest, ids: &Ids) -> Result<String> {
    let subscription =
        json!({"endpoint_id": ids["endpoint_id"], "name": "n", "event_types": ["matrix.made"]});
    text(
        &rest
            .post(&format!("/v1/projects/{}/subscriptions", ids["project_id"]), &subscription)
            .await?,
        "subscription_id",
    )
}

async fn new_event_type(rest: &Rest, ids: &Ids) -> Result<String> {
    let path = format!("/v1/projects/{}/event-types", ids["project_id"]);
    text(&rest.post(&path, &json!({"event_type": fresh_name()})).await?, "event_type")
}

/// Creates an event that matches no subscription.
async fn new_event(rest: &Rest, ids: &Ids) -> Result<String> {
    let path = format!("/v1/projects/{}/events", ids["project_id"]);
    text(&rest.post(&path, &json!({"event_type": fresh_name(), "data": {}})).await?, "event_id")
}

/// Creates a key with one scope, so that a key with that scope may change it.
async fn new_key(rest: &Rest, ids: &Ids) -> Result<String> {
    let key =
        json!({"name": "n", "project_id": ids["project_id"], "scopes": ["SCOPE_API_KEYS_WRITE"]});
    text(&rest.post("/v1/api_keys", &key).await?["api_key"], "api_key_id")
}

/// Returns ids of the same form that name nothing, except for those that the caller is allowed to
/// know.
pub fn missing(ids: &Ids, but: &[&str]) -> Ids {
    let other = |id: &str| {
        // The last characters of a TypeID are random, so others from the same alphabet make another
        // id.
        let (kept, changed) = id.split_at(id.len() - 8);
        let turned = changed.chars().map(|letter| if letter == 'z' { 'k' } else { 'z' });
        kept.chars().chain(turned).collect::<String>()
    };
    ids.iter()
        .map(|(field, id)| (*field, if but.contains(field) { id.clone() } else { other(id) }))
        .collect()
}

/// Returns a request for the largest page of a list, with the fields of its parent only.
pub fn whole_list(method: &prost_reflect::MethodDescriptor, request: &Value) -> Value {
    let mut request = json!({"project_id": request["project_id"], "page_size": 500});
    let input = method.input();
    if let Some(fields) = request.as_object_mut() {
        fields.retain(|name, value| {
            !value.is_null()
                && input
                    .get_field_by_name(name)
                    .is_some_and(|field| !matches!(field.kind(), Kind::Message(_)))
        });
    }
    request
}
