//! Conversions of organizations.

use outrider_model::{
    Noun, Organization, OrganizationId, OrganizationSpec, Result, error::Violations,
};
use outrider_proto::admin as wire;
use outrider_rpc::convert::timestamp;

use crate::{
    fields,
    spec::{Change, Field, changes},
};

const FIXED: &[&str] = &["organization_id", "create_time", "update_time"];

/// Converts an organization for an answer.
pub fn to_wire(organization: Organization) -> wire::Organization {
    let Noun { meta, spec } = organization;
    wire::Organization {
        organization_id: meta.id.to_string(),
        name: spec.name,
        create_time: Some(timestamp(meta.created_at)),
        update_time: Some(timestamp(meta.updated_at)),
    }
}

fn settable() -> Vec<Field<'static, wire::Organization, OrganizationSpec>> {
    vec![Field::new(
        "name",
        |organization| !organization.name.is_empty(),
        |violations, organization| {
            fields::name(violations, "organization.name", &organization.name)
        },
        |spec| &mut spec.name,
    )]
}

/// Reads the changes of an update.
pub fn change(
    request: wire::UpdateOrganizationRequest,
) -> Result<(OrganizationId, Change<OrganizationSpec>)> {
    let mut violations = Violations::new();
    let id = fields::id(&mut violations, "organization_id", &request.organization_id);
    let organization = request.organization.unwrap_or_default();
    let known = &request.organization_id;
    fields::fixed(
        &mut violations,
        "organization.organization_id",
        &organization.organization_id,
        known,
    );
    let mask = request.update_mask.as_ref();
    let change = changes(&mut violations, &settable(), &organization, mask, FIXED);
    fields::checked(violations, id.map(|id| (id, change)))
}
