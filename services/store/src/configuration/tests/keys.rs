//! Keys that do not exist, and keys that do.

use std::time::Duration;

use outrider_model::{ApiKeyId, HashedToken, Reason, Scope, Timestamp, Token};
use sea_orm::EntityTrait;
use tokio::time::timeout;

use crate::{
    Directory, DirectoryOptions, Store,
    configuration::entity::change,
    testing::{TestDatabase, tenant::*},
};

const PATIENCE: Duration = Duration::from_secs(20);

/// A key that does not exist, with this time in its id.
fn invented(at: Timestamp, number: u64) -> HashedToken {
    Token::new(ApiKeyId::new(at, number), [1; 32]).hashed()
}

async fn known(store: &Store, options: DirectoryOptions) -> Directory {
    let directory = Directory::new(store.clone(), options);
    directory.refresh().await.unwrap();
    directory
}

async fn key(store: &Store, tenant: &Tenant) -> (ApiKeyId, HashedToken) {
    let (key, token) = store
        .create_api_key(&tenant.principal, new_api_key(&[Scope::EventsRead]), None)
        .await
        .unwrap();
    (key.id, token.unwrap().hashed())
}

pub async fn that_are_invented_are_not_in_the_way_of_those_that_exist(database: &TestDatabase) {
    let store = database.store().await;
    let tenant = tenant(&store, "a").await;
    let (_, good) = key(&store, &tenant).await;
    let directory = known(&store, DirectoryOptions::default()).await;
    let now = store.clock().now();
    let still = directory.without_feed().await;
    let flood: Vec<_> = (0..2_000)
        .map(|number| {
            let (directory, token) = (directory.clone(), invented(now, number));
            tokio::spawn(async move { directory.principal(&token).await.unwrap_err().reason })
        })
        .collect();
    // More calls than may wait for the feed.
    let full = async {
        while !flood.iter().any(tokio::task::JoinHandle::is_finished) {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, full).await.unwrap();
    timeout(PATIENCE, directory.principal(&good)).await.expect("nobody precedes it").unwrap();
    // These cost no query.
    let hour = Duration::from_secs(3600);
    for at in [Timestamp(0), now.minus(hour), now.plus(hour)] {
        let refused = timeout(PATIENCE, directory.principal(&invented(at, 1)))
            .await
            .expect("it is refused at once");
        assert_reason(refused, Reason::InvalidCredentials);
    }
    drop(still);
    let mut waited = 0;
    for refused in flood {
        match timeout(PATIENCE, refused).await.expect("the feed is read for all").unwrap() {
            Reason::InvalidCredentials => waited += 1,
            reason => assert_eq!(reason, Reason::Overloaded),
        }
    }
    assert!(waited >= 1_024, "{waited}");
}

pub async fn of_another_process_are_good_at_once(database: &TestDatabase) {
    let (store, other) = (database.store().await, database.connect().await);
    let tenant = tenant(&store, "a").await;
    let directory = known(&store, DirectoryOptions::default()).await;
    for _ in 0..3 {
        let (_, token) = key(&other, &tenant).await;
        directory.principal(&token).await.unwrap();
    }
    // While the feed cannot be read, it is unknown whether a recent key is valid, but known for old
    // ones.
    let new = invented(store.clock().now(), 1);
    store.close().await;
    assert_reason(directory.principal(&new).await, Reason::Unavailable);
    assert_reason(
        directory.principal(&invented(Timestamp(0), 1)).await,
        Reason::InvalidCredentials,
    );
}

pub async fn are_known_by_their_ids_as_they_come_and_go(database: &TestDatabase) {
    let store = database.store().await;
    let tenant = tenant(&store, "a").await;
    let (first, _) = key(&store, &tenant).await;
    let directory = known(&store, DirectoryOptions::default()).await;
    assert_eq!(directory.key_ids(), 1);
    let (_, second) = key(&store, &tenant).await;
    directory.refresh().await.unwrap();
    assert_eq!(directory.key_ids(), 2);
    store.delete_api_key(&tenant.principal, first).await.unwrap();
    directory.refresh().await.unwrap();
    assert_eq!(directory.key_ids(), 1);
    // As after a restore from a backup.
    let last = store.last_change().await.unwrap().unwrap();
    change::Entity::delete_by_id(last.seq).exec(store.write()).await.unwrap();
    directory.refresh().await.unwrap();
    assert_eq!(directory.key_ids(), 1);

    // There are more keys than ids may be kept: each one is looked up.
    let (_, third) = key(&store, &tenant).await;
    for key_ids in [0, 1] {
        let directory =
            known(&store, DirectoryOptions { key_ids, ..DirectoryOptions::default() }).await;
        assert_eq!(directory.key_ids(), 0);
        for good in [&second, &third] {
            directory.principal(good).await.unwrap();
        }
        assert_reason(
            directory.principal(&invented(Timestamp(0), 1)).await,
            Reason::InvalidCredentials,
        );
    }
    let directory =
        known(&store, DirectoryOptions { key_ids: 2, ..DirectoryOptions::default() }).await;
    assert_eq!(directory.key_ids(), 2);
    key(&store, &tenant).await;
    directory.refresh().await.unwrap();
    assert_eq!(directory.key_ids(), 0);
    directory.principal(&second).await.unwrap();
}
