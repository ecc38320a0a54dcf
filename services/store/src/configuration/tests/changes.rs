use std::fs;

use outrider_model::{ApiKeyId, EndpointSpec, Principal, Scope, Timestamp, principal::Actor};

use crate::{
    ChangeAction, ChangeKind,
    testing::{TestDatabase, tenant::*},
};

pub async fn tell_who_did_what_in_order_without_secrets(database: &TestDatabase) {
    let store = database.store().await;
    let mut tenant = tenant(&store, "a").await;
    let key = ApiKeyId::new(Timestamp(1), 1);
    tenant.principal = Principal { actor: Actor::ApiKey(key), ..tenant.principal };
    let (who, project) = (&tenant.principal, tenant.project.id);
    let endpoint = tenant.endpoint(&store).await;
    tenant.subscription(&store, &endpoint, "a").await;
    let change = |spec: &mut EndpointSpec| spec.description = "new".to_owned();
    store.update_endpoint(who, project, endpoint.id, change).await.unwrap();
    let (_, token) =
        store.create_api_key(who, new_api_key(&[Scope::EventsRead]), None).await.unwrap();
    store.delete_endpoint(who, project, endpoint.id).await.unwrap();
    store.delete_project(who, project).await.unwrap();

    use {ChangeAction::*, ChangeKind::*};
    let changes = store.changes(0, 100).await.unwrap();
    let told: Vec<_> = changes
        .iter()
        .map(|change| (change.seq, change.kind.unwrap(), change.action.unwrap()))
        .collect();
    let expected = [
        (1, Organization, Create),
        (2, Project, Create),
        (3, Endpoint, Create),
        (4, Subscription, Create),
        (5, Endpoint, Update),
        (6, ApiKey, Create),
        (7, Subscription, Delete),
        (8, Endpoint, Delete),
        (9, Project, Delete),
    ];
    assert_eq!(told, expected);
    assert_eq!(
        (changes[0].actor.as_str(), changes[2].actor.as_str()),
        ("system", key.to_string().as_str())
    );
    assert_eq!((changes[5].project, changes[8].project), (None, Some(project)));
    assert!(changes.iter().all(|change| change.organization == who.organization));
    assert!(
        changes[4].before.as_ref().unwrap().contains("a hook")
            && changes[4].after.as_ref().unwrap().contains("new")
    );
    assert!(changes[7].before.is_some() && changes[7].after.is_none());

    let secret = outrider_model::SigningSecret::from_bytes(&SECRET).unwrap().reveal();
    let token = token.unwrap().reveal();
    let hidden = [
        secret.trim_start_matches("whsec_"),
        token.splitn(3, '_').nth(2).unwrap(),
        "header value",
        "query-value",
    ];
    for text in changes.iter().flat_map(|change| [&change.before, &change.after]).flatten() {
        assert!(hidden.iter().all(|hidden| !text.contains(hidden)), "{text}");
    }
    // SQLite's file does not contain the secret, the token or the values of the endpoint either, in
    // any of their forms.
    store.close().await;
    let Some(directory) = database.directory() else { return };
    let files =
        fs::read_dir(directory).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap());
    let dump = files.collect::<Vec<_>>().concat();
    let holds = |bytes: &[u8]| dump.windows(bytes.len()).any(|window| window == bytes);
    assert!(holds(b"a hook"), "the dump is not of the database");
    assert!(!holds(&SECRET) && hidden.iter().all(|hidden| !holds(hidden.as_bytes())));
}

pub async fn of_many_writers_leave_no_gap(database: &TestDatabase) {
    let store = database.store().await;
    let other = database.connect().await;
    let tenant = tenant(&store, "a").await;
    let writers = async {
        let write = |index: usize| {
            let (store, tenant) = (if index.is_multiple_of(2) { &store } else { &other }, &tenant);
            async move {
                let endpoint = tenant.endpoint(store).await;
                store
                    .delete_endpoint(&tenant.principal, tenant.project.id, endpoint.id)
                    .await
                    .unwrap();
            }
        };
        futures::future::join_all((0..20).map(write)).await;
    };
    // A reader never sees a number before all smaller ones.
    let mut seen = 0;
    let mut read = async || {
        let changes = store.changes(seen + 1, 1_000).await.unwrap();
        for change in changes {
            assert_eq!(change.seq, seen + 1);
            seen = change.seq;
        }
        seen
    };
    tokio::pin!(writers);
    loop {
        tokio::select! {
            _ = &mut writers => break,
            _ = read() => {}
        }
    }
    assert_eq!(read().await, 2 + 40);
}
