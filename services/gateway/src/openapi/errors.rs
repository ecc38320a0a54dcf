//! The one shape of errors, and the answers that have it.

use std::collections::BTreeMap;

use outrider_model::Reason;
use outrider_rpc::status::codes;
use serde_json::{Map, Value, json};

use super::schema::{ERROR, Schemas, reference};

/// The body of an answer that refuses.
const ERROR_ANSWER: &str = "ErrorAnswer";

/// Adds the shape of errors.
pub(super) fn add_schemas(schemas: &mut Schemas) {
    let mut meanings = String::from("Why, as a stable text.\n");
    for reason in Reason::ALL {
        meanings.push_str(&format!("\n- `{reason}` ({}): {}", codes(*reason).1, reason.meaning()));
    }
    let reasons = Reason::ALL.iter().map(|reason| reason.as_str()).collect::<Vec<_>>();
    schemas.insert(
        "ErrorReason",
        json!({ "type": "string", "enum": reasons, "description": meanings }),
    );
    schemas.insert(
        "FieldViolation",
        json!({
            "type": "object",
            "description": "What is wrong with one field.",
            "required": ["field", "description"],
            "properties": {
                "field": { "type": "string", "description": "The field's path in the request, such \
                    as event.event_type." },
                "description": { "type": "string", "description": "What is expected." },
            },
        }),
    );
    schemas.insert(ERROR, error());
    schemas.insert(
        ERROR_ANSWER,
        json!({
            "type": "object", "description": "The body of every answer that is not 2xx.",
                "required": ["error"],
            "properties": { "error": { "$ref": "#/components/schemas/Error",
                "description": "What went wrong." } },
            "examples": [example()],
        }),
    );
}

fn error() -> Value {
    let violations = json!({ "type": "array", "items": reference("FieldViolation"),
        "description": "The fields that are wrong." });
    json!({
        "type": "object",
        "description": "Why a request, or one item of a batch, was refused.",
        "required": ["code", "status", "reason", "message", "violations"],
        "properties": {
            "code": { "type": "integer", "description": "The HTTP status." },
            "status": { "type": "string", "description": "The gRPC code's name." },
            "reason": { "$ref": "#/components/schemas/ErrorReason",
                "description": "Why, as a stable text." },
            "message": { "type": "string", "description": "For people." },
            "violations": violations,
            "retry_after_seconds": { "type": "integer", "minimum": 1,
                "description": "When a retry may help: after so long." },
            "request_id": { "type": "string", "description": "The request, in the server's logs. \
                Not in items of a batch." },
        },
    })
}

fn example() -> Value {
    json!({ "error": {
        "code": 400, "status": "INVALID_ARGUMENT", "reason": "INVALID_FIELD",
            "message": "event.event_type: must not be empty",
        "violations": [{ "field": "event.event_type", "description": "must not be empty" }],
        "request_id": "0190b6f2-8f6e-7c5e-9d0f-6f6e7c5e9d0f",
    } })
}

/// The refusals by HTTP status, with the reasons of each.
fn by_status() -> BTreeMap<u16, Vec<Reason>> {
    let mut statuses = BTreeMap::<_, Vec<_>>::new();
    for reason in Reason::ALL {
        statuses.entry(codes(*reason).1).or_default().push(*reason);
    }
    statuses
}

/// The refusals as components, by name.
pub(super) fn responses() -> Map<String, Value> {
    let response = |(status, reasons): (u16, Vec<Reason>)| {
        let lines = reasons
            .iter()
            .map(|reason| format!("`{reason}`: {}", reason.meaning()))
            .collect::<Vec<_>>()
            .join("\n\n");
        (component(status), answer(&lines, status))
    };
    let other = ("ErrorDefault".to_owned(), answer("Any other refusal.", 0));
    by_status().into_iter().map(response).chain([other]).collect()
}

fn component(status: u16) -> String {
    format!("Error{status}")
}

fn answer(description: &str, status: u16) -> Value {
    let mut headers = json!({ "X-Request-Id": { "$ref": "#/components/headers/X-Request-Id" } });
    if matches!(status, 429 | 503) {
        headers["Retry-After"] = json!({ "description": "Seconds to wait.",
            "schema": { "type": "integer", "minimum": 1 } });
    }
    json!({ "description": description, "headers": headers,
        "content": { "application/json": { "schema": reference(ERROR_ANSWER) } } })
}

/// The refusals of one operation. What cannot happen to it is left out: its path has the method;
/// reading conflicts with nothing. Only streams have a media type to be refused and a place that
/// can be lost.
pub(super) fn of_operation(
    http_method: &str,
    streams: bool,
) -> impl Iterator<Item = (String, Value)> {
    let reads = http_method == "GET";
    let impossible = move |status: &u16| match status {
        // Only gRPC has other encodings of its own.
        405 | 415 => true,
        409 | 412 => reads,
        406 | 410 => !streams,
        _ => false,
    };
    let statuses = by_status().into_keys().filter(move |status| !impossible(status));
    let named = |name: String| json!({ "$ref": format!("#/components/responses/{name}") });
    let default = ("default".to_owned(), named("ErrorDefault".to_owned()));
    statuses.map(move |status| (status.to_string(), named(component(status)))).chain([default])
}
