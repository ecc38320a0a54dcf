use outrider_model::{OrganizationId, Reason, Scope, Timestamp};
use outrider_proto::admin::{
    GetOrganizationRequest, ListOrganizationsRequest, Organization, UpdateOrganizationRequest,
};

use crate::harness::{World, fields, mask, ok, reason};

fn get(id: impl ToString) -> GetOrganizationRequest {
    GetOrganizationRequest { organization_id: id.to_string() }
}

fn rename(id: impl ToString, name: &str) -> UpdateOrganizationRequest {
    let organization = Some(Organization { name: name.to_owned(), ..Default::default() });
    UpdateOrganizationRequest { organization_id: id.to_string(), organization, update_mask: None }
}

#[tokio::test]
async fn a_key_sees_and_renames_its_own_organization() {
    let world = World::new().await;
    let own = world.admin.organization;
    let mut client = world.client(&world.admin);
    let renamed = ok(client.organizations.update_organization(rename(own, "Acme 2")).await)
        .organization
        .unwrap();
    let found = ok(client.organizations.get_organization(get(own)).await).organization.unwrap();
    assert_eq!((found.name.as_str(), found.organization_id.clone()), ("Acme 2", own.to_string()));
    assert_eq!(renamed, found);
    assert_eq!(world.queue.count(), 1);
    let listed =
        ok(client.organizations.list_organizations(ListOrganizationsRequest::default()).await);
    assert_eq!((listed.organizations, listed.next_page_token.as_str()), (vec![found], ""));
}

#[tokio::test]
async fn another_organization_does_not_exist() {
    let world = World::new().await;
    let outsider = world.outsider().await.organization;
    let mut client = world.client(&world.admin);
    for id in [outsider, OrganizationId::new(Timestamp(0), 0)] {
        assert_eq!(reason(client.organizations.get_organization(get(id)).await), Reason::NotFound);
        assert_eq!(
            reason(client.organizations.update_organization(rename(id, "mine")).await),
            Reason::NotFound
        );
    }
}

#[tokio::test]
async fn wrong_fields_are_named_and_scopes_are_required() {
    let world = World::new().await;
    let own = world.admin.organization;
    let mut client = world.client(&world.admin);
    assert_eq!(
        fields(client.organizations.get_organization(get("prj_1")).await),
        ["organization_id"]
    );
    let cleared = UpdateOrganizationRequest { update_mask: mask(&["name"]), ..rename("", "") };
    assert_eq!(
        fields(client.organizations.update_organization(cleared).await),
        ["organization_id", "organization.name"]
    );
    let listed = ListOrganizationsRequest { page_size: -1, ..Default::default() };
    assert_eq!(fields(client.organizations.list_organizations(listed).await), ["page_size"]);
    let mut reader = world.client(&world.limited(&[Scope::OrganizationsRead]));
    ok(reader.organizations.get_organization(get(own)).await);
    assert_eq!(
        reason(reader.organizations.update_organization(rename(own, "x")).await),
        Reason::MissingScope
    );
}
