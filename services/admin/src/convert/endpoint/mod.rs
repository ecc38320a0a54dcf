//! Conversions of endpoints. A field that is absent, or cleared by the update mask, gets its
//! default.

use std::{collections::HashMap, time::Duration};

use outrider_model::{
    Endpoint, EndpointId, EndpointSpec, EndpointState, Headers, Noun, ProjectId, Result,
    SigningSecret, Target,
    address::Policy,
    endpoint::{MASK, has_masked_query},
    error::Violations,
    limits,
    url::WebhookUrl,
};
use outrider_proto::admin as wire;
use outrider_rpc::{
    convert::{duration, parse_duration, timestamp},
    validate,
};
use outrider_store::NewEndpoint;

use crate::{
    fields,
    spec::{Change, Field, changes, read},
};

/// The violation of a field that contains a mask instead of a value.
const MASKED: &str = "is the mask of a hidden value: leave the field out of the change to keep \
                      what is stored, or give the value, which GetEndpoint shows to keys that \
                      also have SCOPE_ENDPOINTS_WRITE";

const FIXED: &[&str] = &["endpoint_id", "project_id", "create_time", "update_time", "secret"];

/// Converts an endpoint for an answer.
pub fn to_wire(endpoint: Endpoint) -> wire::Endpoint {
    let Noun { meta, spec } = endpoint;
    let Target::Http { url } = spec.target;
    wire::Endpoint {
        endpoint_id: meta.id.to_string(),
        project_id: meta.fixed.project.to_string(),
        target: Some(wire::endpoint::Target::Http(wire::HttpTarget { url })),
        description: spec.description,
        state: match spec.state {
            EndpointState::Active => wire::EndpointState::Active,
            EndpointState::Paused => wire::EndpointState::Paused,
        }
        .into(),
        timeout: Some(duration(spec.limits.timeout)),
        max_in_flight: spec.limits.max_in_flight,
        headers: spec.headers.into_iter().collect(),
        metadata: spec.metadata.into_iter().collect(),
        owner_id: spec.owner.unwrap_or_default(),
        create_time: Some(timestamp(meta.created_at)),
        update_time: Some(timestamp(meta.updated_at)),
        secret: None,
    }
}

fn settable(policy: &Policy) -> Vec<Field<'_, wire::Endpoint, EndpointSpec>> {
    let target = |violations: &mut Violations, endpoint: &wire::Endpoint| {
        target(violations, endpoint, policy)
    };
    vec![
        Field::new(
            "target",
            |e| e.target.is_some(),
            target,
            |spec: &mut EndpointSpec| &mut spec.target,
        )
        .or(&["http", "http.url"]),
        Field::new(
            "description",
            |e| !e.description.is_empty(),
            description,
            |spec| &mut spec.description,
        ),
        Field::new("state", |e| e.state != 0, state, |spec| &mut spec.state),
        Field::new("timeout", |e| e.timeout.is_some(), timeout, |spec| &mut spec.limits.timeout),
        Field::new(
            "max_in_flight",
            |e| e.max_in_flight != 0,
            max_in_flight,
            |spec| &mut spec.limits.max_in_flight,
        ),
        Field::new("headers", |e| !e.headers.is_empty(), headers, |spec| &mut spec.headers),
        Field::new("metadata", |e| !e.metadata.is_empty(), metadata, |spec| &mut spec.metadata),
        Field::new(
            "owner_id",
            |e| !e.owner_id.is_empty(),
            |violations, e| owner(violations, "endpoint.owner_id", &e.owner_id),
            |spec| &mut spec.owner,
        ),
    ]
}

/// Reads the request to create an endpoint. `random` creates the signing secret if none is given.
pub fn create<'a>(
    request: &'a wire::CreateEndpointRequest,
    policy: &Policy,
    random: impl FnOnce() -> Result<SigningSecret>,
) -> Result<(ProjectId, NewEndpoint, Option<&'a str>)> {
    let mut violations = Violations::new();
    let endpoint = request.endpoint.clone().unwrap_or_default();
    let project = fields::id(&mut violations, "project_id", &request.project_id);
    let id = fields::optional_id(&mut violations, "endpoint.endpoint_id", &endpoint.endpoint_id);
    fields::fixed(
        &mut violations,
        "endpoint.project_id",
        &endpoint.project_id,
        &request.project_id,
    );
    let spec = read(&mut violations, &settable(policy), &endpoint);
    let given = given_secret(&mut violations, request);
    let request_id = fields::request_id(&mut violations, &request.request_id);
    violations.finish()?;

    let secret = given.map_or_else(random, Ok)?;
    let value = project
        .zip(id)
        .map(|(project, id)| (project, NewEndpoint { id, spec, secret }, request_id));
    fields::checked(Violations::new(), value)
}

/// Reads the signing secret of a request, which may be in either of two fields.
fn given_secret(
    violations: &mut Violations,
    request: &wire::CreateEndpointRequest,
) -> Option<SigningSecret> {
    let within = request.endpoint.as_ref().and_then(|endpoint| endpoint.secret.as_deref());
    let fields =
        [("endpoint.secret", within.unwrap_or_default()), ("secret", request.secret.as_str())];
    let given = fields.into_iter().filter(|(_, text)| !text.is_empty());
    let mut secrets: Vec<_> = given
        .filter_map(|(field, text)| violations.check(field, SigningSecret::parse(text)))
        .collect();
    if let [first, second] = secrets.as_slice() {
        violations.require(
            first.expose() == second.expose(),
            "secret",
            "differs from endpoint.secret",
        );
    }
    secrets.pop()
}

/// Whether a request gives a signing secret.
pub fn gives_secret(request: &wire::CreateEndpointRequest) -> bool {
    let within = request.endpoint.as_ref().and_then(|endpoint| endpoint.secret.as_deref());
    !request.secret.is_empty() || within.is_some_and(|secret| !secret.is_empty())
}

/// Reads the changes of an update.
pub fn change(
    request: wire::UpdateEndpointRequest,
    policy: &Policy,
) -> Result<(ProjectId, EndpointId, Change<EndpointSpec>)> {
    let mut violations = Violations::new();
    let project = fields::id(&mut violations, "project_id", &request.project_id);
    let id = fields::id(&mut violations, "endpoint_id", &request.endpoint_id);
    let endpoint = request.endpoint.unwrap_or_default();
    fields::fixed(
        &mut violations,
        "endpoint.endpoint_id",
        &endpoint.endpoint_id,
        &request.endpoint_id,
    );
    fields::fixed(
        &mut violations,
        "endpoint.project_id",
        &endpoint.project_id,
        &request.project_id,
    );
    violations.require(
        endpoint.secret.is_none(),
        "endpoint.secret",
        "can be given at creation only",
    );
    let mask = request.update_mask.as_ref();
    let change = changes(&mut violations, &settable(policy), &endpoint, mask, FIXED);
    fields::checked(violations, project.zip(id).map(|(project, id)| (project, id, change)))
}

/// Reads the owner of an endpoint, or the owner filter of a list.
pub fn owner(violations: &mut Violations, field: &str, text: &str) -> Option<String> {
    if text.is_empty() {
        return None;
    }
    violations.check(field, validate::key(text, limits::KEY_BYTES));
    Some(text.to_owned())
}

fn target(violations: &mut Violations, endpoint: &wire::Endpoint, policy: &Policy) -> Target {
    const FIELD: &str = "endpoint.http.url";
    let given = match &endpoint.target {
        Some(wire::endpoint::Target::Http(http)) => http.url.as_str(),
        None => "",
    };
    if given.is_empty() {
        violations.add(FIELD, "is required");
    } else if has_masked_query(given) {
        violations.add(FIELD, MASKED);
    } else if let Some(url) = violations.check(FIELD, WebhookUrl::parse(given, policy)) {
        return Target::Http { url: url.as_str().to_owned() };
    }
    Target::Http { url: String::new() }
}

fn description(violations: &mut Violations, endpoint: &wire::Endpoint) -> String {
    violations.check("endpoint.description", validate::description(&endpoint.description));
    endpoint.description.clone()
}

fn state(violations: &mut Violations, endpoint: &wire::Endpoint) -> EndpointState {
    match wire::EndpointState::try_from(endpoint.state) {
        Ok(wire::EndpointState::Unspecified | wire::EndpointState::Active) => EndpointState::Active,
        Ok(wire::EndpointState::Paused) => EndpointState::Paused,
        Err(_) => {
            violations
                .add("endpoint.state", "must be ENDPOINT_STATE_ACTIVE or ENDPOINT_STATE_PAUSED");
            EndpointState::Paused
        }
    }
}

fn timeout(violations: &mut Violations, endpoint: &wire::Endpoint) -> Duration {
    let (least, default, most) = limits::TIMEOUT_MILLIS;
    let (least, default, most) =
        (Duration::from_millis(least), Duration::from_millis(default), Duration::from_millis(most));
    let Some(given) = &endpoint.timeout else { return default };
    match parse_duration("endpoint.timeout", given) {
        Ok(timeout) if (least..=most).contains(&timeout) => timeout,
        _ => {
            violations.add(
                "endpoint.timeout",
                format!("must be {} to {} seconds", least.as_secs(), most.as_secs()),
            );
            default
        }
    }
}

fn max_in_flight(violations: &mut Violations, endpoint: &wire::Endpoint) -> u32 {
    let (least, default, most) = limits::MAX_IN_FLIGHT;
    match endpoint.max_in_flight {
        0 => default,
        given => {
            violations.require(
                (least..=most).contains(&given),
                "endpoint.max_in_flight",
                format!("must be {least} to {most}, or 0 for the default of {default}"),
            );
            given
        }
    }
}

fn headers(violations: &mut Violations, endpoint: &wire::Endpoint) -> Headers {
    const FIELD: &str = "endpoint.headers";
    let (masked, given): (HashMap<_, _>, HashMap<_, _>) =
        endpoint.headers.clone().into_iter().partition(|(_, value)| value == MASK);
    let headers = validate::headers(violations, FIELD, &given);
    let mut masked: Vec<String> = masked.into_keys().collect();
    masked.sort_unstable();
    for name in masked {
        violations.add(validate::entry(FIELD, &name), MASKED);
    }
    headers.into()
}

fn metadata(
    violations: &mut Violations,
    endpoint: &wire::Endpoint,
) -> std::collections::BTreeMap<String, String> {
    validate::string_map(violations, "endpoint.metadata", &endpoint.metadata);
    endpoint.metadata.clone().into_iter().collect()
}

#[cfg(test)]
mod tests;
