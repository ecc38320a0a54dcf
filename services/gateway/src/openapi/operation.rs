//! A route as an operation.

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor};
use serde_json::{Map, Value, json};

use super::{
    comments::{Commented, summary},
    errors,
    schema::Schemas,
};
use crate::{
    json::{payload, scalar, secret},
    route::{BodyRule, Route, lines_rule, stream_rule},
};

/// The one security scheme.
pub(super) const SECURITY: &str = "ApiKey";

/// Builds the operation of a route. `number` is 1 for the first route of a method.
pub(super) fn operation(
    schemas: &mut Schemas,
    method: &MethodDescriptor,
    route: &Route,
    number: usize,
) -> Value {
    let service = method.parent_service();
    let mut id = format!("{}_{}", service.name(), method.name());
    if number > 1 {
        id.push_str(&format!("_{number}"));
    }
    let scope =
        outrider_rpc::methods::required_scope(&route.grpc_path).map(|scope| scope.to_string());
    let description = match &scope {
        Some(scope) => format!(
            "{}\n\nRequires the scope `{scope}`. gRPC: `{}`.",
            method.comment(),
            route.grpc_path
        ),
        None => method.comment().to_owned(),
    };
    let mut operation = json!({
        "operationId": id,
        "tags": [service.name()],
        "summary": summary(method.comment()),
        "description": description,
        "security": [{ SECURITY: scope.into_iter().collect::<Vec<_>>() }],
        "parameters": parameters(schemas, route),
        "responses": responses(schemas, route),
    });
    if let Some(body) = body(schemas, route) {
        operation["requestBody"] = body;
    }
    operation
}

/// Writes the path of a route as OpenAPI does: variables without their patterns.
pub(super) fn path(template: &str) -> String {
    let mut path = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        let (variable, after) = after.split_once('}').unwrap_or((after, ""));
        let name = variable.split('=').next().unwrap_or_default();
        path.push_str(&format!("{before}{{{name}}}"));
        rest = after;
    }
    path + rest
}

fn parameters(schemas: &mut Schemas, route: &Route) -> Vec<Value> {
    let mut parameters = Vec::new();
    for variable in &route.variables {
        let field = variable.field.last();
        parameters.push(json!({
            "name": variable.field.name(), "in": "path", "required": true,
            "description": field.comment(), "schema": schemas.kind(&field.kind()),
        }));
    }
    query(schemas, route, &route.input, "", &mut parameters);
    for header in &route.headers {
        let field = header.field();
        parameters.push(json!({
            "name": header.header(), "in": "header", "required": false,
            "description": format!("Sets `{}` if the body does not. {}", field.name(),
                field.last().comment()),
            "schema": schemas.kind(&field.last().kind()),
        }));
    }
    if let Some(field) = route.stream.as_ref().and_then(|stream| stream.resume.as_ref()) {
        parameters.push(json!({
            "name": "Last-Event-ID", "in": "header", "required": false,
                "schema": { "type": "string" },
            "description": format!("The id of the last event received. It takes precedence over \
                `{}`. {}",
                field.name(), field.comment()),
        }));
    }
    for shared in ["RequestId", "RequestTimeout"] {
        parameters.push(json!({ "$ref": format!("#/components/parameters/{shared}") }));
    }
    parameters
}

/// How deep query parameters go into objects.
const QUERY_DEPTH: usize = 4;

/// Adds parameters for the fields that neither the path nor the body gives. Nested fields have
/// names with dots.
fn query(
    schemas: &mut Schemas,
    route: &Route,
    message: &MessageDescriptor,
    prefix: &str,
    parameters: &mut Vec<Value>,
) {
    for field in message.fields().filter(|field| payload::field_of(message) != Some(field)) {
        let name = format!("{prefix}{}", field.name());
        let outermost = prefix.is_empty();
        if secret::is_secret(&field)
            || (outermost && route.body.takes(&field))
            || route.variables.iter().any(|variable| variable.field.name() == name)
        {
            continue;
        }
        match field.kind() {
            kind if !field.is_map() && scalar::is_scalar(&kind) => {
                let mut schema = schemas.field(&field);
                let object = schema.as_object_mut();
                let description =
                    object.and_then(|object| object.remove("description")).unwrap_or_default();
                parameters.push(json!({ "name": name, "in": "query", "required": false,
                        "description": description, "schema": schema }));
            }
            Kind::Message(inner)
                if !field.is_map()
                    && !field.is_list()
                    && name.matches('.').count() < QUERY_DEPTH =>
            {
                query(schemas, route, &inner, &format!("{name}."), parameters);
            }
            _ => {}
        }
    }
}

fn body(schemas: &mut Schemas, route: &Route) -> Option<Value> {
    let of_path = |field: &FieldDescriptor| {
        route.variables.iter().any(|variable| variable.field.name() == field.name())
    };
    let (schema, description, required) = match &route.body {
        BodyRule::None => return None,
        // An update without a body can be complete: its mask then clears the fields that it names.
        BodyRule::Field(field) => {
            (schemas.kind(&field.kind()), field.comment(), route.http_method != "PATCH")
        }
        BodyRule::Whole => {
            let required = route.input.fields().any(|field| !of_path(&field));
            (
                schemas.object(&route.input, &|field| !of_path(field)),
                route.input.comment(),
                required,
            )
        }
    };
    let mut content = json!({ "schema": schema });
    if let Some(example) = example(&route.grpc_path) {
        content["example"] = example;
    }
    let mut content = json!({ "application/json": content });
    if let Some(rule) = &route.ndjson {
        content[lines_rule::MEDIA_TYPE] = lines(&format!(
            "Each line is one of `{}` as JSON. Blank lines are skipped. The number of lines is not \
                limited.",
            rule.request.name()
        ));
    }
    Some(json!({ "description": description, "required": required, "content": content }))
}

/// Newline-delimited JSON. OpenAPI 3.1 can describe it as a text only, without a schema for its
/// lines.
fn lines(description: &str) -> Value {
    json!({ "schema": { "type": "string", "description": description } })
}

/// Bodies to try, for the methods that new users need first.
fn example(grpc_path: &str) -> Option<Value> {
    let event = json!({ "event_type": "invoice.paid", "data": { "amount": 42 },
        "idempotency_key": "invoice-17-paid" });
    match grpc_path {
        "/outrider.ingest.v1.IngestService/PublishEvent" => Some(event),
        "/outrider.ingest.v1.IngestService/BatchPublishEvents" => {
            Some(json!({ "events": [event] }))
        }
        "/outrider.admin.v1.EndpointService/CreateEndpoint" => Some(
            json!({ "http": { "url": "https://example.com/webhooks" }, "description": "Invoices",
                "timeout": "15s" }),
        ),
        "/outrider.admin.v1.ProjectService/CreateProject" => Some(json!({ "name": "Shop" })),
        "/outrider.admin.v1.ApiKeyService/CreateApiKey" => {
            Some(json!({ "name": "Shop backend", "scopes": ["SCOPE_EVENTS_PUBLISH"] }))
        }
        _ => None,
    }
}

/// The description of a stream.
const EVENTS: &str = "Server-sent events: `id` is the cursor, `event` is the name of the kind of \
    message, and `data` is the message in JSON (x-event-data-schema). If the stream ends with an \
    error, the last event is named `error` and has the JSON of the error.";

fn responses(schemas: &mut Schemas, route: &Route) -> Map<String, Value> {
    let (schema, description) = match &route.response_body {
        Some(field) => (schemas.kind(&field.kind()), field.comment()),
        None => (schemas.kind(&Kind::Message(route.output.clone())), route.output.comment()),
    };
    let streams = route.stream.is_some();
    let content = if streams {
        let events = json!({ "type": "string", "description": EVENTS });
        json!({ stream_rule::MEDIA_TYPE: { "schema": events, "x-event-data-schema": schema } })
    } else {
        json!({ "application/json": { "schema": schema } })
    };
    let mut answer = json!({
        "description": description,
        "headers": { "X-Request-Id": { "$ref": "#/components/headers/X-Request-Id" } },
        "content": content,
    });
    if let Some(rule) = &route.ndjson {
        answer["content"][lines_rule::MEDIA_TYPE] = lines(&format!(
            "For a request of lines: for each of its lines, in order, one of `{}` with the number \
                of the line as `line`. If the rest was not read, a last line without `line` says \
                why in `error`.",
            rule.response.name()
        ));
    }
    [("200".to_owned(), answer)]
        .into_iter()
        .chain(errors::of_operation(&route.http_method, streams))
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn patterns_of_variables_are_dropped() {
        assert_eq!(super::path("/v1/{a}/x/{b=c/*}/{d=**}:verb"), "/v1/{a}/x/{b}/{d}:verb");
        assert_eq!(super::path("/v1/x"), "/v1/x");
    }
}
