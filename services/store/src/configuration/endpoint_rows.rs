//! Converts endpoints to and from their rows.
//!
//! Values that may be credentials, which are those of headers and the query of the URL, are
//! encrypted in the column `sealed`. The other columns contain the endpoint as readers see it, with
//! masks, so that the values are decrypted only where they are needed.

use std::{collections::BTreeMap, time::Duration};

use outrider_model::{Endpoint, EndpointId, EndpointState, ProjectId, Result, Target, Timestamp};
use sea_orm::ActiveValue::Set;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    entity::endpoint,
    json::{parse_json, to_json},
};
use crate::{cipher::MasterKeys, connection::error::malformed_row};

const TABLE: &str = "endpoints";

/// The kind of a row with sealed values. Versions that cannot decrypt them do not know this kind,
/// so they fail to read the row. Otherwise they would send without the credentials.
const SEALED: &str = "http-sealed";

#[derive(Deserialize)]
struct HttpTarget {
    url: String,
}

pub(super) fn micros(length: Duration) -> i64 {
    i64::try_from(length.as_micros()).unwrap_or(i64::MAX)
}

/// The part that depends on the kind of target.
pub(super) fn target(target: &Target) -> Value {
    match target {
        Target::Http { url } => json!({"url": url}),
    }
}

/// The values of an endpoint that are sealed.
#[derive(Serialize, Deserialize)]
struct Values {
    headers: BTreeMap<String, String>,
    /// Without its question mark.
    query: Option<String>,
}

impl Values {
    fn of(endpoint: &Endpoint) -> Option<Self> {
        let Target::Http { url } = &endpoint.target;
        let query = url.split_once('?').map(|(_, query)| query.to_owned());
        (query.is_some() || !endpoint.headers.is_empty())
            .then(|| Self { headers: (*endpoint.headers).clone(), query })
    }

    /// Puts these values in the place of the endpoint's masks.
    fn fill(self, masked: Endpoint) -> Result<Endpoint> {
        let Target::Http { url } = masked.target;
        let base = url.split_once('?').map(|(base, _)| base.to_owned());
        let url = match (self.query, base) {
            (Some(query), Some(base)) => format!("{base}?{query}"),
            (None, None) => url,
            _ => return Err(malformed_row(TABLE, "sealed")),
        };
        Ok(Endpoint { target: Target::Http { url }, headers: self.headers.into(), ..masked })
    }
}

/// The columns for values that may be credentials, with these sealed.
pub(super) fn sealed(endpoint: &Endpoint, keys: &MasterKeys) -> Result<endpoint::ActiveModel> {
    let sealed = match Values::of(endpoint) {
        Some(values) => Some(keys.seal_values(endpoint.id, to_json(&values)?.as_bytes())?),
        None => None,
    };
    let row = forgotten(endpoint.clone())?;
    Ok(endpoint::ActiveModel { sealed: Set(sealed), ..row })
}

/// The same columns without the values.
pub(super) fn forgotten(endpoint: Endpoint) -> Result<endpoint::ActiveModel> {
    let kind = if Values::of(&endpoint).is_some() { SEALED } else { endpoint.target.kind() };
    columns(kind, &endpoint.masked())
}

/// Whether the values were removed.
pub(super) fn is_forgotten(row: &endpoint::Model) -> bool {
    row.target_kind == SEALED && row.sealed.is_none()
}

/// The same columns in plain text, as versions before `sealed` wrote them.
pub(super) fn plain(endpoint: &Endpoint) -> Result<endpoint::ActiveModel> {
    columns(endpoint.target.kind(), endpoint)
}

fn columns(kind: &str, endpoint: &Endpoint) -> Result<endpoint::ActiveModel> {
    Ok(endpoint::ActiveModel {
        target_kind: Set(kind.to_owned()),
        target: Set(target(&endpoint.target).to_string()),
        headers: Set(to_json(&*endpoint.headers)?),
        sealed: Set(None),
        ..Default::default()
    })
}

pub(super) fn to_row(endpoint: &Endpoint, keys: &MasterKeys) -> Result<endpoint::ActiveModel> {
    Ok(endpoint::ActiveModel {
        id: Set(endpoint.id.0),
        project_id: Set(endpoint.project.0),
        description: Set(endpoint.description.clone()),
        state: Set(endpoint.state as i16),
        timeout_micros: Set(micros(endpoint.timeout)),
        max_in_flight: Set(i32::try_from(endpoint.max_in_flight).unwrap_or(i32::MAX)),
        metadata: Set(to_json(&endpoint.metadata)?),
        owner: Set(endpoint.owner.clone()),
        created_at: Set(endpoint.created_at.0),
        updated_at: Set(endpoint.updated_at.0),
        deleted_at: Set(None),
        ..sealed(endpoint, keys)?
    })
}

/// The endpoint with its values. Rows of versions before `sealed` have them in plain text.
pub(super) fn from_row(mut row: endpoint::Model, keys: &MasterKeys) -> Result<Endpoint> {
    let (is_sealed, sealed) = (row.target_kind == SEALED, row.sealed.take());
    let stored = stored(row)?;
    if !is_sealed {
        return Ok(stored);
    }
    let opened =
        keys.open_values(stored.id, &sealed.ok_or_else(|| malformed_row(TABLE, "sealed"))?)?;
    let values: Values =
        serde_json::from_slice(&opened).map_err(|_| malformed_row(TABLE, "sealed"))?;
    values.fill(stored)
}

/// The endpoint with a mask for each value. Decrypts nothing.
pub(super) fn masked(row: endpoint::Model) -> Result<Endpoint> {
    stored(row).map(Endpoint::masked)
}

/// The endpoint as in its columns, with masks or values.
fn stored(row: endpoint::Model) -> Result<Endpoint> {
    let target = match row.target_kind.as_str() {
        "http" | SEALED => {
            Target::Http { url: parse_json::<HttpTarget>(TABLE, "target", &row.target)?.url }
        }
        _ => return Err(malformed_row(TABLE, "target_kind")),
    };
    Ok(Endpoint {
        id: EndpointId(row.id),
        project: ProjectId(row.project_id),
        target,
        description: row.description,
        state: EndpointState::from_number(row.state)
            .ok_or_else(|| malformed_row(TABLE, "state"))?,
        timeout: Duration::from_micros(
            u64::try_from(row.timeout_micros)
                .map_err(|_| malformed_row(TABLE, "timeout_micros"))?,
        ),
        max_in_flight: u32::try_from(row.max_in_flight)
            .map_err(|_| malformed_row(TABLE, "max_in_flight"))?,
        headers: parse_json::<BTreeMap<_, _>>(TABLE, "headers", &row.headers)?.into(),
        metadata: parse_json(TABLE, "metadata", &row.metadata)?,
        owner: row.owner,
        created_at: Timestamp(row.created_at),
        updated_at: Timestamp(row.updated_at),
    })
}
