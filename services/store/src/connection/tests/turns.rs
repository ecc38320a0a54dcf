//! Connections and configuration changes are shared among callers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use futures::future::join_all;
use outrider_model::{ApiKeyId, Principal, ProjectId, Reason, Timestamp, principal::Actor};
use outrider_shares::Holder;
use sea_orm::TransactionTrait;
use tokio::task::JoinHandle;

use crate::{
    Directory, DirectoryOptions, NewProject, Store,
    testing::{TestDatabase, tenant::*, with},
};

/// The time limit for a call that finds room.
const PROMPTLY: Duration = Duration::from_secs(20);
/// How long a caller waits for its turn. Longer than everything that must be prompt.
const PATIENCE: Duration = Duration::from_secs(60);

fn key(principal: &Principal, number: u64) -> Principal {
    Principal { actor: Actor::ApiKey(ApiKeyId::new(Timestamp(0), number)), ..principal.clone() }
}

async fn promptly<T, E: std::fmt::Debug>(
    what: &str,
    answer: impl Future<Output = Result<T, E>>,
) -> T {
    let answer = tokio::time::timeout(PROMPTLY, answer).await;
    answer
        .unwrap_or_else(|_| panic!("{what} has to wait"))
        .unwrap_or_else(|error| panic!("{what}: {error:?}"))
}

/// Starts this many calls that list endpoints.
fn flood(
    store: &Store,
    tenant: &Tenant,
    number: u64,
    times: usize,
) -> Vec<JoinHandle<Option<Reason>>> {
    let principal = key(&tenant.bound(), number);
    let project = tenant.project.id;
    let ask = |_| {
        let (store, principal) = (store.clone(), principal.clone());
        tokio::spawn(async move {
            store
                .list_endpoints(&principal, project, None, first_page(1))
                .await
                .err()
                .map(|error| error.reason)
        })
    };
    (0..times).map(ask).collect()
}

/// Waits until this many queries have a connection and this many wait for one.
async fn until_asked(store: &Store, held: (usize, usize)) {
    let asked = async {
        while store.caller_turns().held() != held {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let asked = tokio::time::timeout(PROMPTLY, asked).await;
    assert!(asked.is_ok(), "{:?} instead of {held:?}", store.caller_turns().held());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_whose_questions_hang_leaves_connections_to_others() {
    let Some(database) = TestDatabase::postgres().await else { return };
    database.store().await;
    let statement_timeout = Duration::from_secs(120);
    let options = with(database.options().clone(), |database| {
        database.max_connections = 10;
        database.acquire_timeout = PATIENCE;
        database.statement_timeout = statement_timeout;
    });
    let store = Store::connect(&options).await.unwrap();
    let (own, other) = (tenant(&store, "a").await, tenant(&store, "b").await);
    // This lock blocks reads of this table and no other.
    let keeper = database.connect().await.write().begin().await.unwrap();
    let lock = "LOCK TABLE endpoints IN ACCESS EXCLUSIVE MODE";
    sea_orm::ConnectionTrait::execute_unprepared(&keeper, lock).await.unwrap();
    let asked = flood(&store, &own, 1, 300);
    // A lone key may have 2 of 8 connections, and at most a quarter of the line. So 42 calls are
    // refused, or more if the line is full when a second statement joins it.
    let refused = async {
        while asked.iter().filter(|asked| asked.is_finished()).count() < 42
            || store.caller_turns().held().0 < 2
        {
            tokio::task::yield_now().await
        }
    };
    assert!(tokio::time::timeout(PROMPTLY, refused).await.is_ok());
    let (refused, waiting): (Vec<_>, Vec<_>) = asked.into_iter().partition(JoinHandle::is_finished);
    for answer in join_all(refused).await {
        assert_eq!(answer.unwrap(), Some(Reason::ShareExhausted));
    }
    let page = first_page(1);
    for (what, principal, project) in [
        ("another key of the project", key(&own.bound(), 2), own.project.id),
        ("another organization", key(&other.bound(), 3), other.project.id),
    ] {
        promptly(what, store.list_subscriptions(&principal, project, None, page)).await;
        promptly(what, store.list_projects(&principal, page)).await;
    }
    // The whole organization, and then all organizations, take what they can get.
    let mut more: Vec<_> = (10..20).flat_map(|number| flood(&store, &own, number, 5)).collect();
    let others: Vec<_> = join_all((0..8).map(|_| tenant(&store, "c"))).await;
    more.extend(
        others.iter().zip(30..).flat_map(|(other, number)| flood(&store, other, number, 1)),
    );
    let full = async {
        while store.caller_turns().held().0 < 8 {
            tokio::task::yield_now().await
        }
    };
    assert!(
        tokio::time::timeout(PROMPTLY, full).await.is_ok(),
        "{:?}",
        store.caller_turns().held()
    );
    promptly("a probe", store.ready()).await;
    let directory = Directory::new(store.clone(), DirectoryOptions::default());
    promptly("the directory", directory.project_exists(own.project.id)).await;
    keeper.rollback().await.unwrap();
    for answer in join_all(waiting.into_iter().chain(more)).await {
        // The line may be full when its next statement joins it.
        let answer = answer.unwrap();
        assert!(matches!(answer, None | Some(Reason::ShareExhausted)), "{answer:?}");
    }
    assert_eq!(store.caller_turns().held(), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_without_end_is_answered_as_a_share_and_not_as_a_fault() {
    let Some(database) = TestDatabase::postgres().await else { return };
    database.store().await;
    let options = with(database.options().clone(), |database| {
        database.acquire_timeout = Duration::from_secs(1);
    });
    let store = Store::connect(&options).await.unwrap();
    let tenant = tenant(&store, "a").await;
    let keeper = database.connect().await.write().begin().await.unwrap();
    let lock = "LOCK TABLE endpoints IN ACCESS EXCLUSIVE MODE";
    sea_orm::ConnectionTrait::execute_unprepared(&keeper, lock).await.unwrap();
    let mut asked = flood(&store, &tenant, 1, 1);
    until_asked(&store, (1, 0)).await;
    asked.extend(flood(&store, &tenant, 1, 1));
    assert_eq!(
        asked.remove(1).await.unwrap(),
        Some(Reason::ShareExhausted),
        "a key has one of six connections"
    );
    keeper.rollback().await.unwrap();
    assert_eq!(asked.remove(0).await.unwrap(), None);
}

pub async fn changes_of_configuration_go_in_turns(database: &TestDatabase) {
    let store = database.store().await;
    let (own, other) = (tenant(&store, "a").await, tenant(&store, "b").await);
    let done = Arc::new(AtomicUsize::new(0));
    let change = |principal: Principal| {
        let (store, done) = (store.clone(), Arc::clone(&done));
        tokio::spawn(async move {
            store.create_project(&principal, NewProject::default(), None).await.unwrap();
            done.fetch_add(1, SeqCst)
        })
    };
    let greedy: Vec<_> = (0..200).map(|_| change(key(&own.principal, 1))).collect();
    let waiting = async {
        while store.caller_turns().held().1 < 100 && done.load(SeqCst) < 50 {
            tokio::task::yield_now().await
        }
    };
    waiting.await;
    let before = done.load(SeqCst);
    let position = change(key(&other.principal, 2)).await.unwrap();
    // Those that have a connection already come first, and then it is one turn each.
    assert!(position - before <= 20, "{} changes of another came first", position - before);
    join_all(greedy).await.into_iter().for_each(|answer| assert!(answer.is_ok()));
    assert_eq!(store.caller_turns().held(), (0, 0));
}

pub async fn projects_that_do_not_exist_are_asked_for_in_turns(database: &TestDatabase) {
    let store = database.store().await;
    let (own, other) = (tenant(&store, "a").await, tenant(&store, "b").await);
    let directory = Directory::new(store.clone(), DirectoryOptions::default());
    directory.refresh().await.unwrap();
    // The key has as many connections as it may have.
    let greedy = key(&own.principal, 1);
    let holder = Holder::of(&greedy);
    let _turn = store.connection_turn(holder).await.unwrap();
    let invented = ProjectId::new(Timestamp(0), 9);
    let asked = {
        let (directory, greedy) = (directory.clone(), greedy.clone());
        tokio::spawn(async move { directory.project(&greedy, invented).await })
    };
    // Its own project and that of another organization, neither cached: both wait for its turn.
    let foreign = {
        let (directory, greedy, id) = (directory.clone(), greedy.clone(), other.project.id);
        tokio::spawn(async move { directory.project(&greedy, id).await })
    };
    until_asked(&store, (1, 2)).await;
    let found = promptly(
        "another organization",
        directory.project(&key(&other.bound(), 2), other.project.id),
    )
    .await;
    assert_eq!(found.id, other.project.id);
    assert!(!asked.is_finished() && !foreign.is_finished());
    drop(_turn);
    assert_not_found(asked.await.unwrap(), "project");
    assert_not_found(foreign.await.unwrap(), "project");
}
