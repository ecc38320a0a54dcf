use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use outrider_model::{
    ApiKeySpec, EndpointSpec, EndpointState, Reason, Scope, SubscriptionSpec, Token,
};
use sea_orm::EntityTrait;

use crate::{
    Directory, DirectoryOptions, NewApiKey, Store,
    configuration::entity::change,
    testing::{TestDatabase, tenant::*},
};

const PATIENCE: Duration = Duration::from_secs(20);

fn directory(store: &Store) -> Directory {
    Directory::new(store.clone(), DirectoryOptions::default())
}

fn pause(state: EndpointState) -> impl FnOnce(&mut EndpointSpec) + Send {
    move |spec| spec.state = state
}

pub async fn knows_keys_until_they_are_revoked_or_expire(database: &TestDatabase) {
    let store = database.store().await;
    let tenant = tenant(&store, "a").await;
    let who = &tenant.principal;
    let directory = directory(&store);
    let (key, token) =
        store.create_api_key(who, new_api_key(&[Scope::EventsRead]), None).await.unwrap();
    let token = token.unwrap();
    let principal = directory.principal(&token.hashed()).await.unwrap();
    assert_eq!(
        (principal.organization, principal.scopes, principal.project),
        (who.organization, key.spec.scopes, None)
    );
    assert_eq!(principal.actor, outrider_model::principal::Actor::ApiKey(key.id));
    let unknown = Token::new(outrider_model::ApiKeyId::new(store.clock().now(), 1), [1; 32]);
    assert_reason(
        directory.principal(&Token::new(key.id, [1; 32]).hashed()).await,
        Reason::InvalidCredentials,
    );
    assert_reason(directory.principal(&unknown.hashed()).await, Reason::InvalidCredentials);

    let change = |spec: &mut ApiKeySpec| spec.scopes = scope_set(&[Scope::Admin]);
    store.update_api_key(who, key.id, change).await.unwrap();
    directory.refresh().await.unwrap();
    assert!(
        directory.principal(&token.hashed()).await.unwrap().scopes.permits(Scope::EventsPublish)
    );
    store.delete_api_key(who, key.id).await.unwrap();
    directory.refresh().await.unwrap();
    assert_reason(directory.principal(&token.hashed()).await, Reason::InvalidCredentials);

    // It expires without a change.
    let expires_at = store.clock().now().plus(Duration::from_millis(400));
    let mut new = new_api_key(&[Scope::EventsRead]);
    new.spec.expires_at = Some(expires_at);
    let (_, token) = store.create_api_key(who, new, None).await.unwrap();
    let token = token.unwrap();
    let until_refused = async {
        while directory.principal(&token.hashed()).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, until_refused).await.unwrap();
    assert!(store.clock().now() >= expires_at);
    // A key that is bound to a project becomes invalid with it.
    let bound = NewApiKey { project: Some(tenant.project.id), ..new_api_key(&[Scope::EventsRead]) };
    let token = store.create_api_key(who, bound, None).await.unwrap().1.unwrap();
    assert_eq!(
        directory.principal(&token.hashed()).await.unwrap().project,
        Some(tenant.project.id)
    );
    store.delete_project(who, tenant.project.id).await.unwrap();
    directory.refresh().await.unwrap();
    assert_reason(directory.principal(&token.hashed()).await, Reason::InvalidCredentials);
}

pub async fn remembers_keys_that_do_not_exist_within_a_bound(database: &TestDatabase) {
    let store = database.store().await;
    let tenant = tenant(&store, "a").await;
    let directory = Directory::new(
        store.clone(),
        DirectoryOptions { capacity: 200, ..DirectoryOptions::default() },
    );
    let (_, token) = store
        .create_api_key(&tenant.principal, new_api_key(&[Scope::EventsRead]), None)
        .await
        .unwrap();
    let good = token.unwrap().hashed();
    directory.principal(&good).await.unwrap();
    let invented = |number| {
        Token::new(outrider_model::ApiKeyId::new(store.clock().now(), number), [1; 32]).hashed()
    };
    let first = invented(0);
    for number in 1..500 {
        assert_reason(directory.principal(&invented(number)).await, Reason::InvalidCredentials);
        // A single wrong key, again and again.
        assert_reason(directory.principal(&first).await, Reason::InvalidCredentials);
    }
    // Without the database, only remembered keys are answered.
    let last = invented(1_000);
    store.close().await;
    directory.principal(&good).await.expect("no invented key displaced it");
    assert_reason(directory.principal(&first).await, Reason::InvalidCredentials);
    assert_reason(directory.principal(&last).await, Reason::Unavailable);
}

pub async fn follows_every_change(database: &TestDatabase) {
    let store = database.store().await;
    let (tenant, outsider) = (tenant(&store, "a").await, tenant(&store, "b").await);
    let (who, project) = (&tenant.principal, tenant.project.id);
    let directory = directory(&store);
    let routes = async |event_type: &str| {
        directory.refresh().await.unwrap();
        directory.router(project).await.unwrap().route(event_type).len()
    };
    assert_eq!(directory.project(who, project).await.unwrap().spec.name, "a");
    assert_not_found(directory.project(&outsider.principal, project).await, "project");
    assert_eq!(routes("x.y").await, 0);
    let (endpoint, other) = (tenant.endpoint(&store).await, tenant.endpoint(&store).await);
    let subscription = tenant.subscription(&store, &endpoint, "x.*").await;
    tenant.subscription(&store, &other, "*").await;
    assert_eq!(routes("x.y").await, 2);
    let change = |spec: &mut SubscriptionSpec| spec.event_types = vec!["z".parse().unwrap()];
    store.update_subscription(who, project, subscription.id, change).await.unwrap();
    assert_eq!((routes("x.y").await, routes("z").await), (1, 2));
    store.delete_subscription(who, project, subscription.id).await.unwrap();
    assert_eq!(routes("z").await, 1);

    let entry = directory.endpoint(endpoint.id).await.unwrap().unwrap();
    assert_eq!((&entry.endpoint, entry.secrets[0].expose()), (&endpoint, SECRET.as_slice()));
    assert!(
        Arc::ptr_eq(&entry, &directory.endpoint(endpoint.id).await.unwrap().unwrap()),
        "it is not cached"
    );
    store.update_endpoint(who, project, endpoint.id, pause(EndpointState::Paused)).await.unwrap();
    directory.refresh().await.unwrap();
    assert_eq!(
        directory.endpoint(endpoint.id).await.unwrap().unwrap().endpoint.spec.state,
        EndpointState::Paused
    );
    // What was missing is found once it exists.
    let id = outrider_model::EndpointId::new(store.clock().now(), 5);
    assert!(directory.endpoint(id).await.unwrap().is_none());
    let new = crate::NewEndpoint { id: Some(id), ..new_endpoint() };
    store.create_endpoint(who, project, new, None).await.unwrap();
    directory.refresh().await.unwrap();
    assert!(directory.endpoint(id).await.unwrap().is_some());
    store.delete_endpoint(who, project, other.id).await.unwrap();
    assert_eq!(routes("z").await, 0);
    assert!(directory.endpoint(other.id).await.unwrap().is_none());

    store.update_project(who, project, |spec| spec.name = "new".to_owned()).await.unwrap();
    directory.refresh().await.unwrap();
    assert_eq!(directory.project(who, project).await.unwrap().spec.name, "new");
    tenant.subscription(&store, &endpoint, "*").await;
    assert_eq!(routes("z").await, 1);
    store.delete_project(who, project).await.unwrap();
    assert_eq!(routes("z").await, 0);
    assert!(directory.endpoint(endpoint.id).await.unwrap().is_none());
    assert!(!directory.project_exists(project).await.unwrap());
    assert_not_found(directory.project(who, project).await, "project");
    assert!(directory.project_exists(outsider.project.id).await.unwrap());
}

pub async fn is_fresh_within_a_second_of_another_process(database: &TestDatabase) {
    let (store, other) = (database.store().await, database.connect().await);
    let tenant = tenant(&store, "a").await;
    let endpoint = tenant.endpoint(&store).await;
    let directory = directory(&store);
    let running = tokio::spawn({
        let directory = directory.clone();
        async move { directory.run().await }
    });
    directory.endpoint(endpoint.id).await.unwrap().unwrap();
    let paused = pause(EndpointState::Paused);
    other.update_endpoint(&tenant.principal, tenant.project.id, endpoint.id, paused).await.unwrap();
    let changed = tokio::time::Instant::now();
    let until_seen = async {
        while directory.endpoint(endpoint.id).await.unwrap().unwrap().endpoint.spec.state
            == EndpointState::Active
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, until_seen).await.unwrap();
    // It polls twice a second. The rest of the time is for slow machines.
    assert!(changed.elapsed() < Duration::from_secs(5), "{:?}", changed.elapsed());
    eprintln!("seen after {:?}", changed.elapsed());
    running.abort();
}

pub async fn is_never_stale_after_a_refresh(database: &TestDatabase) {
    let (store, other) = (database.store().await, database.connect().await);
    let tenant = tenant(&store, "a").await;
    let endpoint = tenant.endpoint(&store).await;
    let directory = directory(&store);
    // Loads that are in progress while changes are made and seen.
    let readers: Vec<_> = (0..4)
        .map(|_| {
            let (directory, id) = (directory.clone(), endpoint.id);
            tokio::spawn(async move {
                loop {
                    directory.endpoint(id).await.unwrap();
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for round in 0..60 {
        let state = if round % 2 == 0 { EndpointState::Paused } else { EndpointState::Active };
        other
            .update_endpoint(&tenant.principal, tenant.project.id, endpoint.id, pause(state))
            .await
            .unwrap();
        directory.refresh().await.unwrap();
        for _ in 0..3 {
            let seen = directory.endpoint(endpoint.id).await.unwrap().unwrap();
            assert_eq!(seen.endpoint.spec.state, state, "round {round}");
            tokio::task::yield_now().await;
        }
    }
    assert!(readers.iter().all(|reader| !reader.is_finished()));
    readers.iter().for_each(tokio::task::JoinHandle::abort);
}

pub async fn follows_a_flood_of_announcements_at_a_pace(database: &TestDatabase) {
    let (store, other) = (database.store().await, database.connect().await);
    let tenant = tenant(&store, "a").await;
    let endpoint = tenant.endpoint(&store).await;
    let directory = directory(&store);
    directory.endpoint(endpoint.id).await.unwrap().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let following = tokio::spawn({
        let (directory, asked) = (directory.clone(), Arc::clone(&asked));
        async move {
            // There is always an announcement.
            let announced = || {
                asked.fetch_add(1, SeqCst);
                std::future::ready(())
            };
            directory.follow(announced).await;
        }
    });
    let began = tokio::time::Instant::now();
    while asked.load(SeqCst) < 24 {
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(began.elapsed() < PATIENCE);
    }
    // Beyond the first ones, which need no pause: one every 50 ms, of which one is waiting.
    assert!(began.elapsed() >= 6 * Duration::from_millis(50), "{:?}", began.elapsed());
    let paused = pause(EndpointState::Paused);
    other.update_endpoint(&tenant.principal, tenant.project.id, endpoint.id, paused).await.unwrap();
    let until_seen = async {
        while directory.endpoint(endpoint.id).await.unwrap().unwrap().endpoint.spec.state
            == EndpointState::Active
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, until_seen).await.unwrap();
    following.abort();
}

pub async fn drops_everything_when_the_feed_was_replaced(database: &TestDatabase) {
    let store = database.store().await;
    let tenant = tenant(&store, "a").await;
    let endpoint = tenant.endpoint(&store).await;
    let directory = directory(&store);
    let before = directory.endpoint(endpoint.id).await.unwrap().unwrap();
    directory.refresh().await.unwrap();
    assert!(Arc::ptr_eq(&before, &directory.endpoint(endpoint.id).await.unwrap().unwrap()));
    // As after a restore from a backup.
    let last = store.last_change().await.unwrap().unwrap();
    change::Entity::delete_by_id(last.seq).exec(store.write()).await.unwrap();
    directory.refresh().await.unwrap();
    assert!(!Arc::ptr_eq(&before, &directory.endpoint(endpoint.id).await.unwrap().unwrap()));
    // And it continues from there.
    store
        .update_endpoint(
            &tenant.principal,
            tenant.project.id,
            endpoint.id,
            pause(EndpointState::Paused),
        )
        .await
        .unwrap();
    directory.refresh().await.unwrap();
    assert_eq!(
        directory.endpoint(endpoint.id).await.unwrap().unwrap().endpoint.spec.state,
        EndpointState::Paused
    );
}

pub async fn forgets_the_endpoints_of_deleted_projects(database: &TestDatabase) {
    let store = database.store().await;
    let (gone, stays) = (tenant(&store, "a").await, tenant(&store, "b").await);
    let directory = directory(&store);
    let endpoints = [gone.endpoint(&store).await.id, stays.endpoint(&store).await.id];
    // The change that created an endpoint drops it too.
    directory.refresh().await.unwrap();
    let entry = async |id| Arc::downgrade(&directory.endpoint(id).await.unwrap().unwrap());
    let (gone_entry, entry_that_stays) = (entry(endpoints[0]).await, entry(endpoints[1]).await);
    store.delete_project(&gone.principal, gone.project.id).await.unwrap();
    let forgotten = async {
        while gone_entry.strong_count() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        () = directory.run() => unreachable!("it runs until it is dropped"),
        forgotten = tokio::time::timeout(PATIENCE, forgotten) => forgotten.unwrap(),
    }
    assert!(entry_that_stays.strong_count() > 0);
}

pub async fn knows_endpoints_that_cannot_be_decrypted(database: &TestDatabase) {
    let store = database.store().await;
    let tenant = tenant(&store, "a").await;
    let endpoint = tenant.endpoint(&store).await;
    // A process with other keys.
    let master_keys =
        crate::MasterKeys::parse(&crate::MasterKeys::generate_text("another")).unwrap();
    let outsider =
        Store::connect(&crate::StoreOptions { master_keys, ..database.options().clone() })
            .await
            .unwrap();
    let entry = directory(&outsider).endpoint(endpoint.id).await.unwrap().unwrap();
    assert_eq!(
        (entry.is_readable, entry.secrets.len(), &entry.endpoint),
        (false, 0, &endpoint.clone().masked())
    );
    assert!(directory(&store).endpoint(endpoint.id).await.unwrap().unwrap().is_readable);
}

pub async fn trusts_no_longer_than_it_may(database: &TestDatabase) {
    let store = database.store().await;
    let tenant = tenant(&store, "a").await;
    let max_stale = Duration::from_millis(300);
    let directory = Directory::new(
        store.clone(),
        DirectoryOptions { max_stale, ..DirectoryOptions::default() },
    );
    assert!(directory.project_exists(tenant.project.id).await.unwrap());
    store.close().await;
    let until_refused = async {
        while directory.project_exists(tenant.project.id).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let began = tokio::time::Instant::now();
    tokio::time::timeout(PATIENCE, until_refused).await.unwrap();
    assert_reason(directory.project_exists(tenant.project.id).await, Reason::Unavailable);
    assert!(began.elapsed() < Duration::from_secs(10));
}
