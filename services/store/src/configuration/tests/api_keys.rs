use outrider_model::{ApiKeySpec, Principal, Reason, Scope, Timestamp};

use crate::{
    NewApiKey,
    testing::{TestDatabase, tenant::*},
};

pub async fn give_no_more_than_they_have(database: &TestDatabase) {
    let store = database.store().await;
    let tenant = tenant(&store, "a").await;
    let writer = Principal {
        scopes: scope_set(&[Scope::ApiKeysWrite, Scope::EventsRead]),
        ..tenant.principal.clone()
    };
    let bound = Principal { project: Some(tenant.project.id), ..writer.clone() };
    let readers = || new_api_key(&[Scope::EventsRead]);
    let of_project = || NewApiKey { project: Some(tenant.project.id), ..readers() };

    let (key, token) = store.create_api_key(&writer, readers(), None).await.unwrap();
    assert_eq!(token.unwrap().id, key.id);
    assert_reason(
        store.create_api_key(&writer, new_api_key(&[Scope::EventsPublish]), None).await,
        Reason::BeyondOwnScope,
    );
    assert_reason(
        store.create_api_key(&writer, new_api_key(&[Scope::Admin]), None).await,
        Reason::BeyondOwnScope,
    );
    assert_reason(store.create_api_key(&bound, readers(), None).await, Reason::BeyondOwnScope);
    let (own, _) = store.create_api_key(&bound, of_project(), None).await.unwrap();

    let more = |spec: &mut ApiKeySpec| spec.scopes = scope_set(&[Scope::Admin]);
    assert_reason(store.update_api_key(&writer, key.id, more).await, Reason::BeyondOwnScope);
    let (admin, _) =
        store.create_api_key(&tenant.principal, new_api_key(&[Scope::Admin]), None).await.unwrap();
    let longer = |spec: &mut ApiKeySpec| spec.expires_at = None;
    assert_reason(store.update_api_key(&writer, admin.id, longer).await, Reason::BeyondOwnScope);

    // A bound principal sees only the keys of its project.
    let seen = store.list_api_keys(&bound, first_page(10)).await.unwrap().items;
    assert_eq!(seen, std::slice::from_ref(&own));
    assert_not_found(store.get_api_key(&bound, key.id).await, "api key");
    assert_not_found(store.update_api_key(&bound, key.id, |_| {}).await, "api key");
    assert_not_found(store.delete_api_key(&bound, admin.id).await, "api key");
    assert_eq!(store.list_api_keys(&writer, first_page(10)).await.unwrap().items.len(), 3);

    let at = Timestamp(4_000_000_000_000_000);
    let change = |spec: &mut ApiKeySpec| {
        (spec.name, spec.expires_at) = ("new".to_owned(), Some(at));
    };
    let changed = store.update_api_key(&writer, key.id, change).await.unwrap();
    assert_eq!(
        (changed.spec.name.as_str(), changed.spec.expires_at, changed.spec.scopes),
        ("new", Some(at), key.spec.scopes)
    );
    assert_eq!(store.get_api_key(&writer, key.id).await.unwrap(), changed);
    store.delete_api_key(&bound, own.id).await.unwrap();
    assert_not_found(store.get_api_key(&bound, own.id).await, "api key");
    assert_not_found(store.delete_api_key(&bound, own.id).await, "api key");
}
