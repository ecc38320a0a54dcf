//! Conversions of API keys.

use outrider_model::{
    ApiKey, ApiKeyId, ApiKeySpec, Noun, OrganizationId, Result, Scope, ScopeSet, Timestamp,
    error::Violations,
};
use outrider_proto::admin as wire;
use outrider_rpc::convert::{parse_timestamp, timestamp};
use outrider_store::NewApiKey;

use crate::{
    fields,
    spec::{Change, Field, changes, read},
};

const ORGANIZATION: &str = "api_key.organization_id";

const FIXED: &[&str] =
    &["api_key_id", "organization_id", "project_id", "create_time", "update_time"];

/// Converts an API key for an answer.
pub fn to_wire(key: ApiKey) -> wire::ApiKey {
    let Noun { meta, spec } = key;
    wire::ApiKey {
        api_key_id: meta.id.to_string(),
        organization_id: meta.fixed.organization.to_string(),
        project_id: meta.fixed.project.map(|project| project.to_string()).unwrap_or_default(),
        scopes: spec.scopes.iter().map(|scope| i32::from(scope as u8)).collect(),
        expire_time: spec.expires_at.map(timestamp),
        create_time: Some(timestamp(meta.created_at)),
        update_time: Some(timestamp(meta.updated_at)),
        name: spec.name,
    }
}

fn settable() -> Vec<Field<'static, wire::ApiKey, ApiKeySpec>> {
    vec![
        Field::new(
            "name",
            |key| !key.name.is_empty(),
            |violations, key| fields::name(violations, "api_key.name", &key.name),
            |spec| &mut spec.name,
        ),
        Field::new("scopes", |key| !key.scopes.is_empty(), scopes, |spec| &mut spec.scopes),
        Field::new(
            "expire_time",
            |key| key.expire_time.is_some(),
            expires_at,
            |spec| &mut spec.expires_at,
        ),
    ]
}

/// Reads the request to create an API key.
pub fn create(
    request: &wire::CreateApiKeyRequest,
    organization: OrganizationId,
) -> Result<(NewApiKey, Option<&str>)> {
    let mut violations = Violations::new();
    let key = request.api_key.clone().unwrap_or_default();
    let project = fields::optional_id(&mut violations, "api_key.project_id", &key.project_id);
    violations.require(
        key.api_key_id.is_empty(),
        "api_key.api_key_id",
        "is created by Outrider and cannot be given",
    );
    let own = organization.to_string();
    fields::fixed(&mut violations, ORGANIZATION, &key.organization_id, &own);
    let spec = read(&mut violations, &settable(), &key);
    let request_id = fields::request_id(&mut violations, &request.request_id);
    fields::checked(violations, project.map(|project| (NewApiKey { project, spec }, request_id)))
}

/// Reads the changes of an update.
pub fn change(
    request: wire::UpdateApiKeyRequest,
    organization: OrganizationId,
) -> Result<(ApiKeyId, Change<ApiKeySpec>)> {
    let mut violations = Violations::new();
    let id = fields::id(&mut violations, "api_key_id", &request.api_key_id);
    let key = request.api_key.unwrap_or_default();
    fields::fixed(&mut violations, "api_key.api_key_id", &key.api_key_id, &request.api_key_id);
    let own = organization.to_string();
    fields::fixed(&mut violations, ORGANIZATION, &key.organization_id, &own);
    let mask = request.update_mask.as_ref();
    let change = changes(&mut violations, &settable(), &key, mask, FIXED);
    fields::checked(violations, id.map(|id| (id, change)))
}

fn scopes(violations: &mut Violations, key: &wire::ApiKey) -> ScopeSet {
    let numbers = &key.scopes;
    // Scopes are a set, so naming one twice is harmless. A list with more entries than there are
    // scopes is not read.
    let most = Scope::ALL.len();
    violations.require(
        (1..=most).contains(&numbers.len()),
        "api_key.scopes",
        format!("must have 1 to {most} entries"),
    );
    let mut known = Vec::new();
    for (index, number) in numbers.iter().take(Scope::ALL.len()).enumerate() {
        match Scope::from_number(*number) {
            Some(scope) => known.push(scope),
            None => violations.add(format!("api_key.scopes[{index}]"), "is not a scope"),
        }
    }
    known.into_iter().collect()
}

fn expires_at(violations: &mut Violations, key: &wire::ApiKey) -> Option<Timestamp> {
    const FIELD: &str = "api_key.expire_time";
    let parsed = parse_timestamp(FIELD, key.expire_time.as_ref()?);
    parsed
        .map_err(|error| {
            error.violations.into_iter().for_each(|v| violations.add(v.field, v.description))
        })
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use outrider_model::Error;

    fn own() -> OrganizationId {
        OrganizationId::new(Timestamp(0), 1)
    }

    fn key() -> wire::ApiKey {
        wire::ApiKey { name: "reader".to_owned(), scopes: vec![3, 5, 3], ..Default::default() }
    }

    /// A stored spec after an update.
    fn update(api_key: wire::ApiKey, paths: &[&str]) -> Result<ApiKeySpec> {
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        let api_key_id = ApiKeyId::new(Timestamp(0), 0).to_string();
        let update_mask = Some(prost_types::FieldMask { paths });
        let request = wire::UpdateApiKeyRequest { api_key_id, api_key: Some(api_key), update_mask };
        change(request, own()).map(|(_, change)| {
            let mut spec = stored();
            change.apply(&mut spec);
            spec
        })
    }

    fn stored() -> ApiKeySpec {
        let scopes = [Scope::Admin].into_iter().collect();
        ApiKeySpec { name: "stored".to_owned(), scopes, expires_at: Some(Timestamp(1)) }
    }

    fn fields(error: Error) -> Vec<String> {
        error.violations.into_iter().map(|violation| violation.field).collect()
    }

    #[test]
    fn scopes_are_read_from_a_request() {
        let request = wire::CreateApiKeyRequest { api_key: Some(key()), request_id: String::new() };
        let (new, request_id) = create(&request, own()).unwrap();
        assert_eq!(
            new.spec.scopes.iter().collect::<Vec<_>>(),
            [Scope::EventsRead, Scope::EndpointsRead]
        );
        assert_eq!((new.project, new.spec.expires_at, request_id), (None, None, None));
    }

    #[test]
    fn every_wrong_field_is_named() {
        let api_key = wire::ApiKey {
            project_id: "prj_1".to_owned(),
            scopes: vec![3, 0, 99],
            expire_time: Some(prost_types::Timestamp { seconds: i64::MAX, nanos: 0 }),
            ..Default::default()
        };
        let request =
            wire::CreateApiKeyRequest { api_key: Some(api_key), request_id: "a b".to_owned() };
        let expected = [
            "api_key.project_id",
            "api_key.name",
            "api_key.scopes[1]",
            "api_key.scopes[2]",
            "api_key.expire_time",
            "request_id",
        ];
        assert_eq!(fields(create(&request, own()).unwrap_err()), expected);
        let empty = wire::CreateApiKeyRequest::default();
        assert_eq!(fields(create(&empty, own()).unwrap_err()), ["api_key.name", "api_key.scopes"]);
    }

    #[test]
    fn the_mask_clears_the_expiry_and_nothing_else_does() {
        let cleared = update(key(), &["expire_time"]).unwrap();
        assert_eq!(cleared, ApiKeySpec { expires_at: None, ..stored() });
        let unmasked = update(key(), &[]).unwrap();
        assert_eq!((unmasked.expires_at, unmasked.name.as_str()), (Some(Timestamp(1)), "reader"));
        let expire_time = Some(prost_types::Timestamp { seconds: 5, nanos: 0 });
        let set = update(wire::ApiKey { expire_time, ..key() }, &["*"]).unwrap();
        assert_eq!(set.expires_at, Some(Timestamp(5_000_000)));
        assert_eq!(
            fields(update(wire::ApiKey::default(), &["scopes", "name"]).unwrap_err()),
            ["api_key.name", "api_key.scopes"]
        );
        assert_eq!(fields(update(key(), &["project_id"]).unwrap_err()), ["update_mask"]);
    }
}
