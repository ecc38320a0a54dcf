//! A gateway's view of API keys, over the gRPC face of a role.

use std::{
    collections::HashMap,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use outrider_model::{OrganizationId, ProjectId, ScopeSet, Timestamp};
use outrider_proto::internal::key_service_server::KeyServiceServer;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tower::util::BoxCloneSyncService;

use super::*;
use crate::{Acceptor, Authenticate, channel::channel, internal::InternalGate, server::serve};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// Knows some keys, counts questions, and can fail.
#[derive(Default)]
struct Book {
    keys: Mutex<HashMap<HashedToken, Principal>>,
    asked: AtomicUsize,
    /// A question about another key waits.
    stalls: bool,
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
        let found = self.keys.lock().unwrap().get(token).cloned();
        if found.is_none() && self.stalls {
            std::future::pending::<()>().await;
        }
        found.ok_or_else(invalid)
    }
}

fn key(number: u64) -> HashedToken {
    HashedToken { id: ApiKeyId::new(Timestamp(0), number), hash: [u8::try_from(number).unwrap(); 32] }
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
    Arc::new(Book { keys: Mutex::new(keys), asked: AtomicUsize::new(0), stalls })
}

async fn role(book: &Arc<Book>) -> Channel {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let routes = Routes::new(KeyServiceServer::new(KeyServer(Arc::clone(book) as Arc<dyn Authenticate>)));
    let gate = InternalGate::new(routes.prepare(), Some(InternalToken::new(SECRET).unwrap()));
    tokio::spawn(serve(listener, BoxCloneSyncService::new(gate), Acceptor::plain(), CancellationToken::new()));
    channel(&url, None).unwrap()
}

/// Where nobody listens.
async fn nobody() -> Channel {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    channel(&format!("http://{closed}"), None).unwrap()
}

fn reason(answer: Result<Principal>) -> Reason {
    answer.unwrap_err().reason
}

#[tokio::test]
async fn a_role_tells_whom_a_key_stands_for_by_its_hash() {
    let book = book(&[key(1)], false);
    let token = InternalToken::new(SECRET).ok();
    let keys = RemoteKeys::new([nobody().await, role(&book).await], token.clone());
    assert_eq!(keys.authenticate(&key(1)).await.unwrap(), principal(&key(1)));
    assert_eq!(reason(keys.authenticate(&key(2)).await), Reason::InvalidCredentials);
    let wrong = HashedToken { id: key(1).id, hash: [9; 32] };
    assert_eq!(reason(keys.authenticate(&wrong).await), Reason::InvalidCredentials);
    // Neither a role that is away nor one that does not know this process says anything about a
    // key.
    assert_eq!(reason(RemoteKeys::new([nobody().await], token).authenticate(&key(1)).await), Reason::Unavailable);
    let stranger = RemoteKeys::new([role(&book).await], None);
    assert_eq!(reason(stranger.authenticate(&key(1)).await), Reason::Unavailable);
}

#[tokio::test]
async fn answers_are_used_until_they_are_old() {
    let book = book(&[key(1)], false);
    let options = KeyCacheOptions { lifetime: Duration::from_millis(100), ..KeyCacheOptions::default() };
    let keys = RememberedKeys::new(Arc::clone(&book) as Arc<dyn Authenticate>, &options);
    let both = || async { (keys.authenticate(&key(1)).await.is_ok(), keys.authenticate(&key(2)).await.is_ok()) };
    let crowd = futures::future::join_all((0..50).map(|_| both())).await;
    assert!(crowd.into_iter().all(|answers| answers == (true, false)));
    // The invalid key may be asked about by those that came before it was remembered.
    assert!(book.asked() < 50, "{}", book.asked());
    book.keys.lock().unwrap().clear();
    book.keys.lock().unwrap().insert(key(2), principal(&key(2)));
    let changed = async {
        while both().await != (false, true) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(20), changed).await.expect("a revoked key is refused, and a new one let in");
}

#[tokio::test]
async fn a_flood_of_invented_keys_does_not_hold_up_a_known_one() {
    let book = book(&[key(1)], true);
    let options = KeyCacheOptions { lifetime: Duration::from_millis(1), questions: 2, ..KeyCacheOptions::default() };
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
    // Its answer is old, and is asked for all the same.
    assert!(timeout(Duration::from_secs(1), keys.authenticate(&key(1))).await.unwrap().is_ok());
    assert!(book.asked() <= 2 + 2, "two of the invented keys are asked about at once");
    flood.into_iter().for_each(|task| task.abort());
}

#[tokio::test]
async fn a_flood_of_new_keys_does_not_hold_up_one_that_is_not_remembered() {
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
    // After a restart of the gateway every good key is one that it never heard of.
    assert!(timeout(Duration::from_secs(1), keys.authenticate(&key(1))).await.unwrap().is_ok());
    assert_eq!(book.asked(), 2 + 1);
    flood.into_iter().for_each(|task| task.abort());
}

#[tokio::test]
async fn invented_keys_do_not_displace_known_ones() {
    let book = book(&[key(1)], false);
    let options = KeyCacheOptions { valid: 10, invalid: 10, lifetime: Duration::from_secs(60), questions: 64 };
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
    assert_eq!(book.asked(), asked, "it is remembered");
}
