//! Turns a message in proto3's JSON into the equivalent REST requests, by a method's
//! `google.api.http` annotation. This is the inverse of the gateway's transcoding, written
//! independently.

use anyhow::{Context, Result, bail};
use http::Method;
use outrider_proto::{
    DESCRIPTORS,
    google::api::{HttpRule, http_rule::Pattern},
};
use prost_reflect::{MethodDescriptor, Value as Field};
use serde_json::{Map, Value};

/// A request: its method, its path with query, and its body, which may be empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestRequest {
    /// The HTTP method.
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// JSON, or nothing.
    pub body: String,
}

/// Returns a request for each binding of the method, and none for a method without REST.
pub fn rest_requests(method: &MethodDescriptor, message: &Value) -> Result<Vec<RestRequest>> {
    let Some(rule) = rule(method)? else { return Ok(Vec::new()) };
    let bindings = std::iter::once(&rule).chain(&rule.additional_bindings);
    bindings
        .map(|rule| request(rule, message).with_context(|| method.full_name().to_owned()))
        .collect()
}

fn rule(method: &MethodDescriptor) -> Result<Option<HttpRule>> {
    let option =
        DESCRIPTORS.get_extension_by_name("google.api.http").context("no option for HTTP")?;
    if !method.options().has_extension(&option) {
        return Ok(None);
    }
    match method.options().get_extension(&option).as_ref() {
        Field::Message(message) => Ok(Some(message.transcode_to()?)),
        _ => bail!("{}: the option for HTTP is no message", method.full_name()),
    }
}

fn request(rule: &HttpRule, message: &Value) -> Result<RestRequest> {
    let (method, template) = match rule.pattern.as_ref().context("no pattern")? {
        Pattern::Get(path) => (Method::GET, path),
        Pattern::Put(path) => (Method::PUT, path),
        Pattern::Post(path) => (Method::POST, path),
        Pattern::Delete(path) => (Method::DELETE, path),
        Pattern::Patch(path) => (Method::PATCH, path),
        Pattern::Custom(custom) => (custom.kind.parse()?, &custom.path),
    };
    let mut rest = in_words_of_rest(message.clone());
    let fields = rest.as_object_mut().context("a message is an object")?;
    let mut path = fill(template, fields)?;
    let body = match rule.body.as_str() {
        "" => String::new(),
        "*" => Value::Object(std::mem::take(fields)).to_string(),
        name => fields.shift_remove(name).unwrap_or_else(|| Value::Object(Map::new())).to_string(),
    };
    let mut query = Vec::new();
    flatten("", &rest, &mut query);
    if !query.is_empty() {
        path = format!("{path}?{}", query.join("&"));
    }
    Ok(RestRequest { method, path, body })
}

/// Writes a payload as base64, in the field that REST has for it.
fn in_words_of_rest(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let renamed =
                |name: String| if name == "payload" { "data_base64".to_owned() } else { name };
            fields
                .into_iter()
                .map(|(name, value)| (renamed(name), in_words_of_rest(value)))
                .collect()
        }
        Value::Array(items) => items.into_iter().map(in_words_of_rest).collect(),
        other => other,
    }
}

/// Moves the fields that the template names into the path.
fn fill(template: &str, fields: &mut Map<String, Value>) -> Result<String> {
    let (mut path, mut rest) = (String::new(), template);
    while let Some((before, after)) = rest.split_once('{') {
        let (variable, after) = after.split_once('}').context("a variable does not end")?;
        let name = variable.split('=').next().unwrap_or_default();
        let value = fields.shift_remove(name).with_context(|| format!("the path needs {name}"))?;
        path.push_str(before);
        path.push_str(&encode(&plain(&value)));
        rest = after;
    }
    Ok(path + rest)
}

fn flatten(name: &str, value: &Value, query: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (field, value) in fields {
                flatten(
                    &if name.is_empty() { field.clone() } else { format!("{name}.{field}") },
                    value,
                    query,
                );
            }
        }
        Value::Array(items) => items.iter().for_each(|item| flatten(name, item, query)),
        value => query.push(format!("{name}={}", encode(&plain(value)))),
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn encode(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(byte).to_string()
        }
        other => format!("%{other:02X}"),
    };
    text.bytes().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::client::public_methods;

    fn requests(name: &str, message: Value) -> Vec<String> {
        let method = public_methods().into_iter().find(|method| method.name() == name).unwrap();
        let requests = rest_requests(&method, &message).unwrap();
        requests
            .into_iter()
            .map(|request| format!("{} {} {}", request.method, request.path, request.body))
            .collect()
    }

    #[test]
    fn fields_go_where_the_annotation_says() {
        let event = json!({"project_id": "p", "event": {"event_type": "a", "payload": "e30="}});
        assert_eq!(
            requests("PublishEvent", event),
            [r#"POST /v1/projects/p/events {"event_type":"a","data_base64":"e30="}"#]
        );
        let filters = json!({"project_id": "p/q", "delivery_id": "d", "page_size": 3});
        assert_eq!(
            requests("ListDeliveryAttempts", filters),
            [
                "GET /v1/projects/p%2Fq/attempts?delivery_id=d&page_size=3 ",
                "GET /v1/projects/p%2Fq/deliveries/d/attempts?page_size=3 "
            ]
        );
        let retry = json!({"project_id": "p", "delivery_id": "d"});
        assert_eq!(requests("RetryDelivery", retry), ["POST /v1/projects/p/deliveries/d:retry {}"]);
    }
}
