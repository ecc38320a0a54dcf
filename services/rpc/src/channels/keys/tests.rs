//! API keys as a gateway sees them, over the gRPC service of a role.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use outrider_model::{
    ApiKeyId, Error, HashedToken, OrganizationId, Principal, ProjectId, Reason, Result, Scope,
    ScopeSet, Timestamp, principal::Actor,
};
use tokio::{net::TcpListener, sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tower::util::BoxCloneSyncService;

use super::{remote::AWAY, *};
use crate::{
    channels::{channel::channel, role::RoleChannel, server::serve},
    guard::{
        auth::Authenticate,
        internal::{InternalGate, InternalToken},
    },
    tls::Acceptor,
};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// Knows some keys, counts lookups, and can fail.
#[derive(Default)]
struct Book {
    keys: Mutex<HashMap<HashedToken, Principal>>,
    asked: AtomicUsize,
    /// The lookup of an unknown key never ends.
    stalls: bool,
    fails: AtomicBool,
}

impl Book {
    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Authenticate for Book {
    async fn authenticate(&self, token: &HashedToken) -> Result<Principal> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if self.fails.load(Ordering::SeqCst) {
            return Err(Error::unavailable("no role is available"));
        }
        let found = self.keys.lock().unwrap().get(token).cloned();
        if found.is_none() && self.stalls {
            std::future::pending::<()>().await;
        }
        found.ok_or_else(invalid)
    }
}

fn key(number: u64) -> HashedToken {
    HashedToken {
        id: ApiKeyId::new(Timestamp(0), number),
        hash: [u8::try_from(number).unwrap(); 32],
    }
}

fn principal(of: &HashedToken) -> Principal {
    Principal {
        organization: OrganizationId::new(Timestamp(0), 7),
        project: Some(ProjectId::new(Timestamp(0), 8)),
        owner: Some("acme".to_owned()),
        actor: Actor::ApiKey(of.id),
        scopes: [Scope::EventsPublish, Scope::EventTypesWrite].into_iter().collect::<ScopeSet>(),
    }
}

fn book(keys: &[HashedToken], stalls: bool) -> Arc<Book> {
    let keys = keys.iter().map(|key| (*key, principal(key))).collect();
    Arc::new(Book { keys: Mutex::new(keys), stalls, ..Book::default() })
}

async fn role(book: &Arc<Book>) -> RoleChannel {
    serving(Arc::clone(book) as Arc<dyn Authenticate>).await
}

async fn serving(keys: Arc<dyn Authenticate>) -> RoleChannel {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    serve_on(listener, keys);
    channel(&url, None).unwrap()
}

fn serve_on(listener: TcpListener, keys: Arc<dyn Authenticate>) {
    let routes = Routes::new(service(keys));
    let gate = InternalGate::new(routes.prepare(), Some(InternalToken::new(SECRET).unwrap()));
    tokio::spawn(serve(
        listener,
        BoxCloneSyncService::new(gate),
        Acceptor::plain(),
        CancellationToken::new(),
    ));
}

/// A channel to an address without a listener.
async fn nobody() -> RoleChannel {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    channel(&format!("http://{closed}"), None).unwrap()
}

fn reason(answer: Result<Principal>) -> Reason {
    answer.unwrap_err().reason
}

#[tokio::test]
async fn a_role_looks_up_a_key_by_its_hash() {
    let book = book(&[key(1)], false);
    let token = InternalToken::new(SECRET).ok();
    let keys = RemoteKeys::new([nobody().await, role(&book).await], token.clone());
    assert_eq!(keys.authenticate(&key(1)).await.unwrap(), principal(&key(1)));
    assert_eq!(reason(keys.authenticate(&key(2)).await), Reason::InvalidCredentials);
    let wrong = HashedToken { id: key(1).id, hash: [9; 32] };
    assert_eq!(reason(keys.authenticate(&wrong).await), Reason::InvalidCredentials);
    // Neither a role that is away nor one that refuses this process says anything about a key.
    assert_eq!(
        reason(RemoteKeys::new([nobody().await], token).authenticate(&key(1)).await),
        Reason::Unavailable
    );
    let without_token = RemoteKeys::new([role(&book).await], None);
    assert_eq!(reason(without_token.authenticate(&key(1)).await), Reason::Unavailable);
}

/// A role that takes calls and does not answer until the sender says so.
async fn silent(book: &Arc<Book>) -> (RoleChannel, watch::Sender<bool>) {
    struct Silent(Arc<Book>, watch::Receiver<bool>);

    #[async_trait]
    impl Authenticate for Silent {
        async fn authenticate(&self, token: &HashedToken) -> Result<Principal> {
            self.0.asked.fetch_add(1, Ordering::SeqCst);
            let _ = self.1.clone().wait_for(|speaks| *speaks).await;
            self.0.keys.lock().unwrap().get(token).cloned().ok_or_else(invalid)
        }
    }

    let (speak, told) = watch::channel(false);
    (serving(Arc::new(Silent(Arc::clone(book), told))).await, speak)
}

#[tokio::test]
async fn a_role_that_does_not_answer_costs_the_first_question_its_patience_and_no_other() {
    let book = book(&[key(1), key(2)], false);
    let token = InternalToken::new(SECRET).ok();
    let (channel, speak) = silent(&book).await;
    let patience = Duration::from_millis(300);
    let mut keys = RemoteKeys::new([channel], token);
    keys.patience = patience;
    let keys = Arc::new(keys);
    keys.ready().await.unwrap_err();
    let asked = book.asked();
    for number in 0..20 {
        let refused = timeout(patience / 2, keys.authenticate(&key(number)))
            .await
            .expect("it is refused at once");
        assert_eq!(reason(refused), Reason::Unavailable);
    }
    assert!(keys.ready().await.is_err() && book.asked() == asked, "the role is not asked");
    let probing = tokio::spawn({
        let keys = Arc::clone(&keys);
        async move { keys.run().await }
    });
    speak.send(true).unwrap();
    let back = async {
        while keys.authenticate(&key(1)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(20), back).await.expect("a probe reaches it");
    assert_eq!(keys.authenticate(&key(2)).await.unwrap(), principal(&key(2)));
    keys.ready().await.unwrap();
    probing.abort();
}

#[tokio::test]
async fn a_role_that_starts_late_is_found() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let late = channel(&format!("http://{}", listener.local_addr().unwrap()), None).unwrap();
    let keys = Arc::new(RemoteKeys::new([nobody().await, late], InternalToken::new(SECRET).ok()));
    let probing = tokio::spawn({
        let keys = Arc::clone(&keys);
        async move { keys.run().await }
    });
    // More connections than one lookup makes, so that it fails.
    let closed = tokio::spawn(async move {
        for _ in 0..5 {
            drop(listener.accept().await.unwrap());
        }
        listener
    });
    keys.ready().await.unwrap_err();
    let listener = timeout(AWAY * 2, closed).await.expect("the role is probed").unwrap();
    serve_on(listener, book(&[key(1)], false));
    let found = async {
        while keys.ready().await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(AWAY / 2, found).await.expect("a probe reaches it");
    assert_eq!(keys.authenticate(&key(1)).await.unwrap(), principal(&key(1)));
    probing.abort();
}

#[tokio::test]
async fn answers_are_used_for_a_while_when_no_role_is_available() {
    tokio::time::pause();
    let book = book(&[key(1), key(2)], false);
    let lifetime = Duration::from_millis(1);
    let options = KeyCacheOptions { lifetime, ..KeyCacheOptions::default() };
    let keys = RememberedKeys::new(Arc::clone(&book) as Arc<dyn Authenticate>, &options);
    keys.authenticate(&key(1)).await.unwrap();
    // The cache uses a clock that does not stop.
    let old = async |keys: &RememberedKeys| {
        while keys.valid.get(&key(1)).await.is_some() {
            std::thread::sleep(lifetime);
        }
    };
    book.fails.store(true, Ordering::SeqCst);
    tokio::time::advance(Duration::from_secs(59)).await;
    old(&keys).await;
    assert!(keys.authenticate(&key(1)).await.is_ok(), "it was good a minute ago");
    assert_eq!(reason(keys.authenticate(&key(2)).await), Reason::Unavailable);
    tokio::time::advance(Duration::from_secs(2)).await;
    old(&keys).await;
    assert_eq!(reason(keys.authenticate(&key(1)).await), Reason::Unavailable);
    book.fails.store(false, Ordering::SeqCst);
    assert!(keys.authenticate(&key(1)).await.is_ok());
    // A key that a role refuses is refused, whatever was cached.
    book.keys.lock().unwrap().clear();
    old(&keys).await;
    assert_eq!(reason(keys.authenticate(&key(1)).await), Reason::InvalidCredentials);
    book.fails.store(true, Ordering::SeqCst);
    while keys.invalid.get(&key(1)).await.is_some() {
        std::thread::sleep(lifetime);
    }
    assert_eq!(reason(keys.authenticate(&key(1)).await), Reason::Unavailable);
}

#[tokio::test]
async fn answers_are_used_until_they_are_old() {
    let book = book(&[key(1)], false);
    let options =
        KeyCacheOptions { lifetime: Duration::from_millis(100), ..KeyCacheOptions::default() };
    let keys = RememberedKeys::new(Arc::clone(&book) as Arc<dyn Authenticate>, &options);
    let both = || async {
        (keys.authenticate(&key(1)).await.is_ok(), keys.authenticate(&key(2)).await.is_ok())
    };
    let crowd = futures::future::join_all((0..50).map(|_| both())).await;
    assert!(crowd.into_iter().all(|answers| answers == (true, false)));
    // Requests that came before the invalid key was cached may look it up too.
    assert!(book.asked() < 50, "{}", book.asked());
    book.keys.lock().unwrap().clear();
    book.keys.lock().unwrap().insert(key(2), principal(&key(2)));
    let changed = async {
        while both().await != (false, true) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(20), changed)
        .await
        .expect("a revoked key is refused, and a new one let in");
}

#[tokio::test]
async fn a_flood_of_invented_keys_does_not_hold_up_a_known_one() {
    let book = book(&[key(1)], true);
    let options = KeyCacheOptions {
        lifetime: Duration::from_millis(1),
        questions: 2,
        ..KeyCacheOptions::default()
    };
    let keys = RememberedKeys::new(Arc::clone(&book) as Arc<dyn Authenticate>, &options);
    keys.authenticate(&key(1)).await.unwrap();
    let flood = (2..20).map(|number| {
        let keys = Arc::clone(&keys);
        tokio::spawn(async move { keys.authenticate(&key(number)).await })
    });
    let flood: Vec<_> = flood.collect();
    while book.asked() < 3 {
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(Duration::from_millis(5)).await;
    // Its answer has expired, so it is looked up again.
    assert!(timeout(Duration::from_secs(1), keys.authenticate(&key(1))).await.unwrap().is_ok());
    assert!(book.asked() <= 2 + 2, "two of the invented keys are looked up at once");
    flood.into_iter().for_each(|task| task.abort());
}

#[tokio::test]
async fn a_flood_of_new_keys_does_not_hold_up_one_that_is_not_cached() {
    let book = book(&[key(1)], true);
    let options = KeyCacheOptions { questions: 2, ..KeyCacheOptions::default() };
    let keys = RememberedKeys::new(Arc::clone(&book) as Arc<dyn Authenticate>, &options);
    let micros = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros();
    let now = Timestamp(i64::try_from(micros).unwrap());
    let flood: Vec<_> = (0..100_u64)
        .map(|number| {
            let (keys, id) = (Arc::clone(&keys), ApiKeyId::new(now, number));
            tokio::spawn(async move { keys.authenticate(&HashedToken { id, hash: [0; 32] }).await })
        })
        .collect();
    while book.asked() < 2 {
        tokio::task::yield_now().await;
    }
    // After a restart of the gateway, every valid key is unknown to it.
    assert!(timeout(Duration::from_secs(1), keys.authenticate(&key(1))).await.unwrap().is_ok());
    assert_eq!(book.asked(), 2 + 1);
    flood.into_iter().for_each(|task| task.abort());
}

#[tokio::test]
async fn invented_keys_do_not_displace_known_ones() {
    let book = book(&[key(1)], false);
    let options = KeyCacheOptions {
        valid: 10,
        invalid: 10,
        lifetime: Duration::from_secs(60),
        questions: 64,
    };
    let keys = RememberedKeys::new(Arc::clone(&book) as Arc<dyn Authenticate>, &options);
    keys.authenticate(&key(1)).await.unwrap();
    for number in 0..1_000_u64 {
        let invented = HashedToken { id: ApiKeyId::new(Timestamp(1), number), hash: [0; 32] };
        assert_eq!(reason(keys.authenticate(&invented).await), Reason::InvalidCredentials);
    }
    keys.invalid.run_pending_tasks().await;
    assert!(keys.invalid.entry_count() <= 10);
    let asked = book.asked();
    keys.authenticate(&key(1)).await.unwrap();
    assert_eq!(book.asked(), asked, "it is cached");
}
