//! Conversions of organizations.

use outrider_model::{Organization, OrganizationId, Result, error::Violations};
use outrider_proto::admin as wire;
use outrider_rpc::convert::timestamp;

use crate::{
    fields,
    mask::{Changes, Mutable},
};

const FIXED: &[&str] = &["organization_id", "create_time", "update_time"];

/// Converts an organization for an answer.
pub fn to_wire(organization: Organization) -> wire::Organization {
    wire::Organization {
        organization_id: organization.id.to_string(),
        name: organization.name,
        create_time: Some(timestamp(organization.created_at)),
        update_time: Some(timestamp(organization.updated_at)),
    }
}

/// Reads the changes of an update: the name, if it is given.
pub fn change(
    request: wire::UpdateOrganizationRequest,
) -> Result<(OrganizationId, Option<String>)> {
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
    let mutable = [Mutable::new("name", !organization.name.is_empty())];
    let changes = Changes::resolve(&mut violations, request.update_mask.as_ref(), &mutable, FIXED);
    let name = changes
        .take("name", || fields::name(&mut violations, "organization.name", &organization.name));
    fields::checked(violations, id.map(|id| (id, name)))
}
