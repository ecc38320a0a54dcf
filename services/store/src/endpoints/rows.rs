//! Between endpoints and their rows.

use std::time::Duration;

use outrider_model::{Endpoint, EndpointId, EndpointState, ProjectId, Result, SigningSecret, Target, Timestamp};
use sea_orm::ActiveValue::Set;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{EndpointChange, NewEndpoint};
use crate::{
    changes::{parse_json, to_json},
    entity::endpoint,
    error::malformed_row,
};

const TABLE: &str = "endpoints";

#[derive(Deserialize)]
struct HttpTarget {
    url: String,
}

pub(super) fn build(new: NewEndpoint, id: EndpointId, project: ProjectId, now: Timestamp) -> (Endpoint, SigningSecret) {
    let endpoint = Endpoint {
        id,
        project,
        target: new.target,
        description: new.description,
        state: new.state,
        // As it will be read again.
        timeout: Duration::from_micros(u64::try_from(micros(new.timeout)).unwrap_or(0)),
        max_in_flight: new.max_in_flight,
        headers: new.headers,
        metadata: new.metadata,
        owner: new.owner,
        created_at: now,
        updated_at: now,
    };
    (endpoint, new.secret)
}

pub(super) fn changed(mut endpoint: Endpoint, change: EndpointChange) -> Endpoint {
    let EndpointChange { target, description, state, timeout, max_in_flight, headers, metadata, owner } = change;
    endpoint.target = target.unwrap_or(endpoint.target);
    endpoint.description = description.unwrap_or(endpoint.description);
    endpoint.state = state.unwrap_or(endpoint.state);
    endpoint.timeout = timeout.unwrap_or(endpoint.timeout);
    endpoint.max_in_flight = max_in_flight.unwrap_or(endpoint.max_in_flight);
    endpoint.headers = headers.unwrap_or(endpoint.headers);
    endpoint.metadata = metadata.unwrap_or(endpoint.metadata);
    endpoint.owner = owner.unwrap_or(endpoint.owner);
    endpoint
}

pub(super) fn micros(length: Duration) -> i64 {
    i64::try_from(length.as_micros()).unwrap_or(i64::MAX)
}

/// What is particular to the kind of target.
pub(super) fn target(target: &Target) -> Value {
    match target {
        Target::Http { url } => json!({"url": url}),
    }
}

pub(super) fn to_row(endpoint: &Endpoint) -> Result<endpoint::ActiveModel> {
    Ok(endpoint::ActiveModel {
        id: Set(endpoint.id.0),
        project_id: Set(endpoint.project.0),
        target_kind: Set(endpoint.target.kind().to_owned()),
        target: Set(target(&endpoint.target).to_string()),
        description: Set(endpoint.description.clone()),
        state: Set(endpoint.state as i16),
        timeout_micros: Set(micros(endpoint.timeout)),
        max_in_flight: Set(i32::try_from(endpoint.max_in_flight).unwrap_or(i32::MAX)),
        headers: Set(to_json(&endpoint.headers)?),
        metadata: Set(to_json(&endpoint.metadata)?),
        owner: Set(endpoint.owner.clone()),
        created_at: Set(endpoint.created_at.0),
        updated_at: Set(endpoint.updated_at.0),
        deleted_at: Set(None),
    })
}

pub(super) fn from_row(row: endpoint::Model) -> Result<Endpoint> {
    let target = match row.target_kind.as_str() {
        "http" => Target::Http { url: parse_json::<HttpTarget>(TABLE, "target", &row.target)?.url },
        _ => return Err(malformed_row(TABLE, "target_kind")),
    };
    Ok(Endpoint {
        id: EndpointId(row.id),
        project: ProjectId(row.project_id),
        target,
        description: row.description,
        state: EndpointState::from_number(row.state).ok_or_else(|| malformed_row(TABLE, "state"))?,
        timeout: Duration::from_micros(u64::try_from(row.timeout_micros).map_err(|_| malformed_row(TABLE, "timeout_micros"))?),
        max_in_flight: u32::try_from(row.max_in_flight).map_err(|_| malformed_row(TABLE, "max_in_flight"))?,
        headers: parse_json(TABLE, "headers", &row.headers)?,
        metadata: parse_json(TABLE, "metadata", &row.metadata)?,
        owner: row.owner,
        created_at: Timestamp(row.created_at),
        updated_at: Timestamp(row.updated_at),
    })
}
