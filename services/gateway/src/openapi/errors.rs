//! The one form of errors, and the answers that have it.

use std::collections::BTreeMap;

use outrider_model::Reason;
use outrider_rpc::status::codes;
use serde_json::{Map, Value, json};

use super::schema::{ERROR, Schemas, reference};

/// The body of an error answer.
const ERROR_ANSWER: &str = "ErrorAnswer";

/// Adds the schemas of errors.
pub(super) fn add_schemas(schemas: &mut Schemas) {
    let mut meanings = String::from("The reason, as a stable text.\n");
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
            "status": { "type": "string", "description": "The name of the gRPC code." },
            "reason": { "$ref": "#/components/schemas/ErrorReason",
                "description": "The reason, as a stable text." },
            "message": { "type": "string", "description": "The error, as a text for people." },
            "violations": violations,
            "retry_after_seconds": { "type": "integer", "minimum": 1,
                "description": "How long to wait before a retry, if a retry may help." },
            "request_id": { "type": "string", "description": "The id of the request in the \
                server's logs. Not set in items of a batch." },
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

/// Returns the reasons by HTTP status.
fn by_status() -> BTreeMap<u16, Vec<Reason>> {
    let mut statuses = BTreeMap::<_, Vec<_>>::new();
    for reason in Reason::ALL {
        statuses.entry(codes(*reason).1).or_default().push(*reason);
    }
    statuses
}

/// Returns the error answers as components, by name.
pub(super) fn responses() -> Map<String, Value> {
    let response = |(status, reasons): (u16, Vec<Reason>)| {
        let lines = reasons
            .iter()
            .map(|reason| format!("`{reason}`: {}", reason.meaning()))
            .collect::<Vec<_>>()
            .join("\n\n");
        (component(status), answer(&lines, status))
    };
    let other = ("ErrorDefault".to_owned(), answer("Any other error.", 0));
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

/// Returns the error answers of an operation, without those that cannot occur: its path has the
/// method, and reading conflicts with nothing. Only streams can refuse a media type or lose a
/// position.
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
