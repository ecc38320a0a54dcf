//! The table: what each public method lets whom do. A method without a row fails the test.
//!
//! A request holds by itself every id field of the method's outermost message (`project_id`,
//! `endpoint_id`, …), filled with the id of a real object. [`Row::with`] gives what a valid request
//! needs beyond that; `"$endpoint_id"` in it stands for such an id, `"$fresh"` for a name that
//! nobody has.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use prost_reflect::{Kind, MethodDescriptor};

/// Ids by the names of the fields that hold them.
pub type Ids = BTreeMap<&'static str, String>;

/// Who calls about the objects of a project.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Who {
    /// A key that is bound to the project.
    Own,
    /// A key of the whole organisation.
    Whole,
    /// A key that is bound to another project of the organisation.
    Sibling,
    /// A key of another organisation.
    Stranger,
}

impl Who {
    /// All of them, in the order of a [`Reach`].
    pub const ALL: [Self; 4] = [Self::Own, Self::Whole, Self::Sibling, Self::Stranger];
}

/// What a key with the method's scope is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// What it asked for, with nothing in it that it does not reach.
    Allowed,
    /// As if the object did not exist.
    NotFound,
    /// That the key is bound: `BEYOND_OWN_SCOPE`, whether the object exists or not.
    Beyond,
}

/// In the order of [`Who::ALL`].
pub type Reach = [Expected; 4];

use Expected::{Allowed, Beyond, NotFound};

/// What belongs to a project.
const PROJECT: Reach = [Allowed, Allowed, NotFound, NotFound];
/// Answers of what the caller reaches, whatever that is.
const CALLER: Reach = [Allowed; 4];
/// Reading the organisation.
const ORGANIZATION: Reach = [Allowed, Allowed, Allowed, NotFound];
/// Changing the organisation.
const WHOLE_ORGANIZATION: Reach = [Beyond, Allowed, Beyond, NotFound];
/// Making something new in the caller's own organisation.
const NEW_IN_ORGANIZATION: Reach = [Beyond, Allowed, Beyond, Allowed];
/// Giving a key for a project.
const KEY: Reach = [Allowed, Allowed, Beyond, NotFound];

/// One method.
#[derive(Debug)]
pub struct Row {
    /// Such as `EventService/GetEvent`.
    pub method: &'static str,
    /// Who reaches it.
    pub reach: Reach,
    more: Value,
    /// The id field whose object each allowed call uses up, so that it gets a new one.
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

    /// A request about these objects.
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

/// A name of an event type that nobody has.
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

/// A row for every public method.
pub fn rows() -> Vec<Row> {
    // The payload is {} in base64.
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
