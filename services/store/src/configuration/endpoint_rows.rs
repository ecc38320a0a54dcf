//! Converts endpoints to and from their rows.
//!
//! Values that may be credentials, which are those of headers and the query of the URL, are
//! encrypted in the column `sealed`. The other columns contain the endpoint as readers see it, with
//! masks, so that the values are decrypted only where they are needed.

use std::{collections::BTreeMap, time::Duration};

use outrider_model::{
    Endpoint, EndpointFixed, EndpointId, EndpointSpec, EndpointState, Meta, Noun, ProjectId,
    Result, Target, Timestamp,
};
use sea_orm::ActiveValue::Set;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    entity::endpoint,
    json::{parse_json, to_json},
    settings,
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

/// A timeout with the precision with which it is stored.
pub(super) fn stored_timeout(timeout: Duration) -> Duration {
    Duration::from_micros(u64::try_from(micros(timeout)).unwrap_or(0))
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
        let EndpointSpec { target: Target::Http { url }, headers, .. } = &endpoint.spec;
        let query = url.split_once('?').map(|(_, query)| query.to_owned());
        (query.is_some() || !headers.is_empty())
            .then(|| Self { headers: (**headers).clone(), query })
    }

    /// Puts these values in the place of the endpoint's masks.
    fn fill(self, masked: Endpoint) -> Result<Endpoint> {
        let Noun { meta, spec } = masked;
        let Target::Http { url } = spec.target;
        let base = url.split_once('?').map(|(base, _)| base.to_owned());
        let url = match (self.query, base) {
            (Some(query), Some(base)) => format!("{base}?{query}"),
            (None, None) => url,
            _ => return Err(malformed_row(TABLE, "sealed")),
        };
        let target = Target::Http { url };
        Ok(Noun { meta, spec: EndpointSpec { target, headers: self.headers.into(), ..spec } })
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
    let kind = if Values::of(&endpoint).is_some() { SEALED } else { endpoint.spec.target.kind() };
    columns(kind, &endpoint.masked())
}

/// Whether the values were removed.
pub(super) fn is_forgotten(row: &endpoint::Model) -> bool {
    row.target_kind == SEALED && row.sealed.is_none()
}

/// The same columns in plain text, as versions before `sealed` wrote them.
pub(super) fn plain(endpoint: &Endpoint) -> Result<endpoint::ActiveModel> {
    columns(endpoint.spec.target.kind(), endpoint)
}

fn columns(kind: &str, endpoint: &Endpoint) -> Result<endpoint::ActiveModel> {
    Ok(endpoint::ActiveModel {
        target_kind: Set(kind.to_owned()),
        target: Set(target(&endpoint.spec.target).to_string()),
        headers: Set(to_json(&*endpoint.spec.headers)?),
        sealed: Set(None),
        ..Default::default()
    })
}

pub(super) fn to_row(endpoint: &Endpoint, keys: &MasterKeys) -> Result<endpoint::ActiveModel> {
    let Noun { meta, spec } = endpoint;
    Ok(endpoint::ActiveModel {
        id: Set(meta.id.0),
        project_id: Set(meta.fixed.project.0),
        description: Set(spec.description.clone()),
        state: Set(spec.state as i16),
        timeout_micros: Set(micros(spec.limits.timeout)),
        max_in_flight: Set(i32::try_from(spec.limits.max_in_flight).unwrap_or(i32::MAX)),
        metadata: Set(to_json(&spec.metadata)?),
        owner: Set(spec.owner.clone()),
        settings: Set(settings::write(spec)?),
        created_at: Set(meta.created_at.0),
        updated_at: Set(meta.updated_at.0),
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
    let meta = Meta {
        id: EndpointId(row.id),
        fixed: EndpointFixed { project: ProjectId(row.project_id) },
        created_at: Timestamp(row.created_at),
        updated_at: Timestamp(row.updated_at),
    };
    let mut spec: EndpointSpec = settings::read(TABLE, row.settings.as_deref())?;
    spec.target = target;
    spec.description = row.description;
    spec.state =
        EndpointState::from_number(row.state).ok_or_else(|| malformed_row(TABLE, "state"))?;
    spec.limits.timeout = Duration::from_micros(
        u64::try_from(row.timeout_micros).map_err(|_| malformed_row(TABLE, "timeout_micros"))?,
    );
    spec.limits.max_in_flight =
        u32::try_from(row.max_in_flight).map_err(|_| malformed_row(TABLE, "max_in_flight"))?;
    spec.headers = parse_json::<BTreeMap<_, _>>(TABLE, "headers", &row.headers)?.into();
    spec.metadata = parse_json(TABLE, "metadata", &row.metadata)?;
    spec.owner = row.owner;
    Ok(Noun { meta, spec })
}
