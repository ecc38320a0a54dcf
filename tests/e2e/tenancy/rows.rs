//! The table of what each public method permits to whom. A method without a row fails the test.
//!
//! A request is filled with the id of a real object in every id field of the method's outermost
//! message (`project_id`, `endpoint_id`, …). [`Row::with`] has what a valid request needs in
//! addition. In it, `"$endpoint_id"` stands for such an id, and `"$fresh"` for a name that is not
//! in use.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use prost_reflect::{Kind, MethodDescriptor};

/// Ids, by the names of the fields that contain them.
pub type Ids = BTreeMap<&'static str, String>;

/// Who calls, relative to the project whose objects the call is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Who {
    /// A key that is bound to the project.
    Own,
    /// A key of the whole organization.
    Whole,
    /// A key that is bound to another project of the organization.
    Sibling,
    /// A key of another organization.
    Stranger,
}

impl Who {
    /// All of them, in the order of a [`Reach`].
    pub const ALL: [Self; 4] = [Self::Own, Self::Whole, Self::Sibling, Self::Stranger];
}

/// The answer to a key that has the method's scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// What it asked for, and nothing that is out of its reach.
    Allowed,
    /// As if the object did not exist.
    NotFound,
    /// `BEYOND_OWN_SCOPE`, because the key is bound, whether the object exists or not.
    Beyond,
}

/// The answers in the order of [`Who::ALL`].
pub type Reach = [Expected; 4];

use Expected::{Allowed, Beyond, NotFound};

/// An object of a project.
const PROJECT: Reach = [Allowed, Allowed, NotFound, NotFound];
/// A list of everything in the caller's reach.
const CALLER: Reach = [Allowed; 4];
/// Reads the organization.
const ORGANIZATION: Reach = [Allowed, Allowed, Allowed, NotFound];
/// Changes the organization.
const WHOLE_ORGANIZATION: Reach = [Beyond, Allowed, Beyond, NotFound];
/// Creates something in the caller's own organization.
const NEW_IN_ORGANIZATION: Reach = [Beyond, Allowed, Beyond, Allowed];
/// Creates a key for a project.
const KEY: Reach = [Allowed, Allowed, Beyond, NotFound];

/// The row of a method.
#[derive(Debug)]
pub struct Row {
    /// For example, `EventService/GetEvent`.
    pub method: &'static str,
    /// The answer for each caller.
    pub reach: Reach,
    more: Value,
    /// The id field whose object an allowed call uses up. Each such call gets a new one.
    pub uses_up: Option<&'static str>,
}

fn row(method: &'static str, reach: Reach) -> Row {
    Row { method, reach, more: Value::Null, uses_up: None }
}

impl Row {
    fn with(self, more: Value) -> Self {
        Self { more, ..self }
    }

    fn uses_up(self, field: &'static str) -> Self {
        Self { uses_up: Some(field), ..self }
    }

    /// Returns a request about these objects.
    pub fn request(&self, method: &MethodDescriptor, ids: &Ids) -> Value {
        let input = method.input();
        let fields =
            input.fields().filter(|field| field.kind() == Kind::String && !field.is_list());
        let mut request: Map<String, Value> = fields
            .filter_map(|field| {
                Some((field.name().to_owned(), Value::from(ids.get(field.name())?.clone())))
            })
            .collect();
        if let Value::Object(more) = filled(&self.more, ids) {
            request.extend(more);
        }
        Value::Object(request)
    }
}

/// Returns the name of an event type that is not in use.
pub fn fresh_name() -> String {
    format!("matrix.{}", uuid::Uuid::new_v4().simple())
}

fn filled(value: &Value, ids: &Ids) -> Value {
    match value {
        Value::String(text) if text == "$fresh" => fresh_name().into(),
        Value::String(text) => match text.strip_prefix('$').and_then(|name| ids.get(name)) {
            Some(id) => id.clone().into(),
            None => value.clone(),
        },
        Value::Array(items) => items.iter().map(|item| filled(item, ids)).collect(),
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| (name.clone(), filled(value, ids))).collect()
        }
        other => other.clone(),
    }
}

/// Returns a row for every public method.
pub fn rows() -> Vec<Row> {
    // The payload is `{}` in base64.
    let event = json!({"event_type": "matrix.made", "payload": "e30="});
    let endpoint = json!({"http": {"url": "https://example.com/matrix"}});
    let subscription = json!({"endpoint_id": "$endpoint_id", "event_types": ["matrix.never"]});
    let key =
        json!({"name": "A key", "project_id": "$project_id", "scopes": ["SCOPE_API_KEYS_WRITE"]});
    let named = json!({"name": "Another name"});
    vec![
        row("IngestService/PublishEvent", PROJECT).with(json!({"event": event})),
        row("IngestService/BatchPublishEvents", PROJECT).with(json!({"events": [event]})),
        row("IngestService/StreamEvents", PROJECT)
            .with(json!({"open": {"project_id": "$project_id", "stream_id": "matrix"}})),
        row("EventService/GetEvent", PROJECT),
        row("EventService/ListEvents", PROJECT),
        row("EventService/TailEvents", PROJECT),
        row("EventService/ErasePayload", PROJECT).uses_up("event_id"),
        row("DeliveryService/GetDelivery", PROJECT),
        row("DeliveryService/ListDeliveries", PROJECT),
        row("DeliveryService/TailDeliveries", PROJECT),
        row("DeliveryService/RetryDelivery", PROJECT),
        row("DeliveryService/GetDeliveryAttempt", PROJECT),
        row("DeliveryService/ListDeliveryAttempts", PROJECT),
        row("EndpointService/CreateEndpoint", PROJECT).with(json!({"endpoint": endpoint})),
        row("EndpointService/GetEndpoint", PROJECT),
        row("EndpointService/ListEndpoints", PROJECT),
        row("EndpointService/UpdateEndpoint", PROJECT)
            .with(json!({"endpoint": {"description": "Another"}})),
        row("EndpointService/DeleteEndpoint", PROJECT).uses_up("endpoint_id"),
        row("EndpointService/GetEndpointSecret", PROJECT),
        row("SubscriptionService/CreateSubscription", PROJECT)
            .with(json!({"subscription": subscription})),
        row("SubscriptionService/GetSubscription", PROJECT),
        row("SubscriptionService/ListSubscriptions", PROJECT),
        row("SubscriptionService/UpdateSubscription", PROJECT).with(json!({"subscription": named})),
        row("SubscriptionService/DeleteSubscription", PROJECT).uses_up("subscription_id"),
        row("EventTypeService/CreateEventType", PROJECT)
            .with(json!({"definition": {"event_type": "$fresh"}})),
        row("EventTypeService/GetEventType", PROJECT),
        row("EventTypeService/ListEventTypes", PROJECT),
        row("EventTypeService/UpdateEventType", PROJECT)
            .with(json!({"definition": {"description": "Another"}})),
        row("EventTypeService/DeleteEventType", PROJECT).uses_up("event_type"),
        row("ProjectService/CreateProject", NEW_IN_ORGANIZATION).with(json!({"project": named})),
        row("ProjectService/GetProject", PROJECT),
        row("ProjectService/ListProjects", CALLER),
        row("ProjectService/UpdateProject", PROJECT).with(json!({"project": named})),
        row("ProjectService/DeleteProject", PROJECT).uses_up("project_id"),
        row("ApiKeyService/CreateApiKey", KEY).with(json!({"api_key": key})),
        row("ApiKeyService/GetApiKey", PROJECT),
        row("ApiKeyService/ListApiKeys", CALLER),
        row("ApiKeyService/UpdateApiKey", PROJECT).with(json!({"api_key": named})),
        row("ApiKeyService/DeleteApiKey", PROJECT).uses_up("api_key_id"),
        row("OrganizationService/GetOrganization", ORGANIZATION),
        row("OrganizationService/ListOrganizations", CALLER),
        row("OrganizationService/UpdateOrganization", WHOLE_ORGANIZATION)
            .with(json!({"organization": named})),
    ]
}
