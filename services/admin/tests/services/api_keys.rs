use outrider_model::{ApiKeyId, Reason, Scope, Timestamp, Token};
use outrider_proto::admin::{
    ApiKey, CreateApiKeyRequest, DeleteApiKeyRequest, GetApiKeyRequest, ListApiKeysRequest,
    UpdateApiKeyRequest,
};

use crate::harness::{World, fields, mask, ok, reason};

fn key(scopes: &[Scope]) -> ApiKey {
    ApiKey {
        name: "key".to_owned(),
        scopes: scopes.iter().map(|scope| *scope as i32).collect(),
        expire_time: Some(prost_types::Timestamp { seconds: 4_000_000_000, nanos: 0 }),
        ..Default::default()
    }
}

fn create(api_key: ApiKey, request_id: &str) -> CreateApiKeyRequest {
    CreateApiKeyRequest { api_key: Some(api_key), request_id: request_id.to_owned() }
}

fn get(id: impl ToString) -> GetApiKeyRequest {
    GetApiKeyRequest { api_key_id: id.to_string() }
}

fn update(id: impl ToString, api_key: ApiKey, paths: &[&str]) -> UpdateApiKeyRequest {
    UpdateApiKeyRequest {
        api_key_id: id.to_string(),
        api_key: Some(api_key),
        update_mask: mask(paths),
    }
}

fn delete(id: impl ToString) -> DeleteApiKeyRequest {
    DeleteApiKeyRequest { api_key_id: id.to_string() }
}

#[tokio::test]
async fn a_key_is_created_changed_and_revoked() {
    let world = World::new().await;
    let project = world.project("Shop").await;
    let mut client = world.client(&world.admin).api_keys;
    let wanted = ApiKey {
        project_id: project.to_string(),
        ..key(&[Scope::EventsRead, Scope::EventsPublish])
    };
    let made = ok(client.create_api_key(create(wanted.clone(), "")).await);
    let key = made.api_key.unwrap();
    assert_eq!(Token::parse(&made.token).unwrap().id.to_string(), key.api_key_id);
    assert_eq!((&key.project_id, &key.expire_time), (&wanted.project_id, &wanted.expire_time));
    assert_eq!(key.scopes, [Scope::EventsPublish as i32, Scope::EventsRead as i32]);
    assert_eq!(ok(client.get_api_key(get(&key.api_key_id)).await).api_key, Some(key.clone()));

    let cleared = ok(client
        .update_api_key(update(&key.api_key_id, ApiKey::default(), &["expire_time"]))
        .await)
    .api_key
    .unwrap();
    assert_eq!(
        (cleared.expire_time, &cleared.name, &cleared.scopes),
        (None, &key.name, &key.scopes)
    );
    let listed = ok(client.list_api_keys(ListApiKeysRequest::default()).await);
    assert_eq!(listed.api_keys.len(), 1);
    ok(client.delete_api_key(delete(&key.api_key_id)).await);
    assert_eq!(reason(client.get_api_key(get(&key.api_key_id)).await), Reason::NotFound);
    assert_eq!(world.queue.count(), 3);
}

#[tokio::test]
async fn a_repeated_request_answers_the_key_without_its_token() {
    let world = World::new().await;
    let mut client = world.client(&world.admin).api_keys;
    let first = ok(client.create_api_key(create(key(&[Scope::EventsRead]), "r-1")).await);
    let again = ok(client.create_api_key(create(key(&[Scope::EventsRead]), "r-1")).await);
    assert_eq!((again.api_key, again.token.as_str()), (first.api_key, ""));
    let other = create(key(&[Scope::EventsPublish]), "r-1");
    assert_eq!(reason(client.create_api_key(other).await), Reason::IdempotencyConflict);
}

#[tokio::test]
async fn nobody_grants_scopes_that_they_lack() {
    let world = World::new().await;
    let (own, other) = (world.project("own").await, world.project("other").await);
    let mightier = ok(world
        .client(&world.admin)
        .api_keys
        .create_api_key(create(key(&[Scope::Admin]), ""))
        .await);
    let mightier = mightier.api_key.unwrap().api_key_id;
    let mut limited =
        world.client(&world.limited(&[Scope::ApiKeysWrite, Scope::EventsRead])).api_keys;
    ok(limited.create_api_key(create(key(&[Scope::EventsRead]), "")).await);
    for scope in [Scope::Admin, Scope::EventsPublish] {
        let refused = create(key(&[Scope::EventsRead, scope]), "");
        assert_eq!(
            reason(limited.create_api_key(refused).await),
            Reason::BeyondOwnScope,
            "{scope}"
        );
    }
    let longer = update(&mightier, ApiKey::default(), &["expire_time"]);
    assert_eq!(reason(limited.update_api_key(longer).await), Reason::BeyondOwnScope);

    let mut bound = world.client(&world.bound(own)).api_keys;
    for project_id in [String::new(), other.to_string()] {
        let refused = create(ApiKey { project_id, ..key(&[Scope::EventsRead]) }, "");
        assert_eq!(reason(bound.create_api_key(refused).await), Reason::BeyondOwnScope);
    }
    assert_eq!(reason(bound.get_api_key(get(&mightier)).await), Reason::NotFound);
}

#[tokio::test]
async fn keys_of_others_do_not_exist() {
    let world = World::new().await;
    let made = ok(world
        .client(&world.admin)
        .api_keys
        .create_api_key(create(key(&[Scope::EventsRead]), ""))
        .await);
    let id = made.api_key.unwrap().api_key_id;
    let mut client = world.client(&world.outsider().await).api_keys;
    for id in [id, ApiKeyId::new(Timestamp(0), 0).to_string()] {
        assert_eq!(reason(client.get_api_key(get(&id)).await), Reason::NotFound);
        assert_eq!(reason(client.delete_api_key(delete(&id)).await), Reason::NotFound);
        assert_eq!(
            reason(client.update_api_key(update(&id, key(&[Scope::Admin]), &["scopes"])).await),
            Reason::NotFound
        );
    }
    assert!(ok(client.list_api_keys(ListApiKeysRequest::default()).await).api_keys.is_empty());
}

#[tokio::test]
async fn wrong_fields_are_named() {
    let world = World::new().await;
    let mut client = world.client(&world.admin).api_keys;
    let wrong = ApiKey { project_id: "x".to_owned(), scopes: vec![1, 0], ..Default::default() };
    let expected = ["api_key.project_id", "api_key.name", "api_key.scopes[1]"];
    assert_eq!(fields(client.create_api_key(create(wrong, "")).await), expected);
    assert_eq!(fields(client.get_api_key(get("ep_1")).await), ["api_key_id"]);
    let mask = update(ApiKeyId::new(Timestamp(0), 0), ApiKey::default(), &["project_id"]);
    assert_eq!(fields(client.update_api_key(mask).await), ["update_mask"]);
    let organization_id = world.outsider().await.organization.to_string();
    let elsewhere = ApiKey { organization_id, ..key(&[Scope::EventsRead]) };
    let update = update(ApiKeyId::new(Timestamp(0), 0), elsewhere.clone(), &["name"]);
    assert_eq!(fields(client.update_api_key(update).await), ["api_key.organization_id"]);
    let refused = client.create_api_key(create(elsewhere, "")).await;
    assert_eq!(fields(refused), ["api_key.organization_id"]);
}
