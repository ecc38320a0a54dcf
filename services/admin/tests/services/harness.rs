//! The role over a fresh database, and clients with any principal.

use std::{
    collections::HashMap,
    fmt::Debug,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use outrider_admin::{Admin, Given};
use outrider_model::{
    ApiKeyId, DeliveryId, EndpointId, Error, HashedToken, Principal, ProjectId, ProjectSpec,
    Reason, Receipt, Recipient, Result, Scope, ScopeSet, Timestamp, Token, principal::Actor,
};
use outrider_proto::admin as wire;
use outrider_queue::{Done, Enqueued, LeasedJob, NewJob, Queue};
use outrider_rpc::{
    Authenticate, from_status,
    server::{Backend, guarded},
};
use outrider_store::{MasterKeys, NewProject, Store, StoreOptions};
use tonic::{
    Request, Response, Status, metadata::MetadataValue, service::Interceptor,
    service::interceptor::InterceptedService,
};

type Guarded = InterceptedService<Backend, Bearer>;
pub type Answer<T> = std::result::Result<Response<T>, Status>;

/// The environment of a test.
pub struct World {
    pub store: Store,
    pub queue: Arc<Announcements>,
    /// All scopes in the organization.
    pub admin: Principal,
    backend: Backend,
    keys: Arc<Keys>,
    _directory: tempfile::TempDir,
}

impl World {
    pub async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", directory.path().join("outrider.db").display());
        let keys = MasterKeys::parse(&MasterKeys::generate_text("test")).unwrap();
        let store = Store::connect(&StoreOptions::new(url, keys)).await.unwrap();
        store.migrate_up().await.unwrap();
        let organization = store.create_organization(Actor::System, "Acme").await.unwrap();
        let queue = Arc::new(Announcements::default());
        let keys = Arc::new(Keys::default());
        let routes = Admin::new(Given::default(), store.clone(), queue.clone()).routes();
        let backend = guarded(routes, keys.clone());
        Self {
            store,
            queue,
            admin: Principal::system(organization.id),
            backend,
            keys,
            _directory: directory,
        }
    }

    pub async fn project(&self, name: &str) -> ProjectId {
        let spec = ProjectSpec { name: name.to_owned(), ..Default::default() };
        let new = NewProject { id: None, spec };
        self.store.create_project(&self.admin, new, None).await.unwrap().id
    }

    /// All scopes in another organization.
    pub async fn outsider(&self) -> Principal {
        Principal::system(self.store.create_organization(Actor::System, "Other").await.unwrap().id)
    }

    /// Only these scopes.
    pub fn limited(&self, scopes: &[Scope]) -> Principal {
        Principal { scopes: scopes.iter().copied().collect::<ScopeSet>(), ..self.admin.clone() }
    }

    /// All scopes in one project.
    pub fn bound(&self, project: ProjectId) -> Principal {
        Principal { project: Some(project), ..self.admin.clone() }
    }

    pub fn client(&self, principal: &Principal) -> Client {
        let bearer = self.keys.issue(principal.clone());
        let guarded = InterceptedService::new(self.backend.clone(), bearer);
        Client {
            organizations: wire::organization_service_client::OrganizationServiceClient::new(
                guarded.clone(),
            ),
            projects: wire::project_service_client::ProjectServiceClient::new(guarded.clone()),
            api_keys: wire::api_key_service_client::ApiKeyServiceClient::new(guarded.clone()),
            endpoints: wire::endpoint_service_client::EndpointServiceClient::new(guarded.clone()),
            subscriptions: wire::subscription_service_client::SubscriptionServiceClient::new(
                guarded.clone(),
            ),
            event_types: wire::event_type_service_client::EventTypeServiceClient::new(guarded),
        }
    }
}

/// A client of each service.
pub struct Client {
    pub organizations: wire::organization_service_client::OrganizationServiceClient<Guarded>,
    pub projects: wire::project_service_client::ProjectServiceClient<Guarded>,
    pub api_keys: wire::api_key_service_client::ApiKeyServiceClient<Guarded>,
    pub endpoints: wire::endpoint_service_client::EndpointServiceClient<Guarded>,
    pub subscriptions: wire::subscription_service_client::SubscriptionServiceClient<Guarded>,
    pub event_types: wire::event_type_service_client::EventTypeServiceClient<Guarded>,
}

/// Returns the message of an answer.
pub fn ok<T>(answer: Answer<T>) -> T {
    answer.unwrap().into_inner()
}

/// Returns the reason of an error.
pub fn reason<T: Debug>(answer: Answer<T>) -> Reason {
    from_status(&answer.unwrap_err()).reason
}

/// Returns the fields that an error names.
pub fn fields<T: Debug>(answer: Answer<T>) -> Vec<String> {
    let error = from_status(&answer.unwrap_err());
    assert_eq!(error.reason, Reason::InvalidField, "{error}");
    error.violations.into_iter().map(|violation| violation.field).collect()
}

/// Returns an update mask.
pub fn mask(paths: &[&str]) -> Option<prost_types::FieldMask> {
    Some(prost_types::FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() })
}

/// Adds a token to requests.
#[derive(Clone)]
pub struct Bearer(MetadataValue<tonic::metadata::Ascii>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> std::result::Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// Principals by the ids of their tokens.
#[derive(Default)]
struct Keys(Mutex<HashMap<ApiKeyId, Principal>>);

impl Keys {
    fn issue(&self, principal: Principal) -> Bearer {
        let mut keys = self.0.lock().unwrap();
        let token = Token::new(ApiKeyId::new(Timestamp(0), keys.len() as u64), [1; 32]);
        keys.insert(token.id, principal);
        Bearer(format!("Bearer {}", token.reveal()).parse().unwrap())
    }
}

#[async_trait]
impl Authenticate for Keys {
    async fn authenticate(&self, token: &HashedToken) -> Result<Principal> {
        self.0
            .lock()
            .unwrap()
            .get(&token.id)
            .cloned()
            .ok_or_else(|| Error::new(Reason::InvalidCredentials, "unknown"))
    }
}

/// A queue that counts announcements, and neither passes them on nor holds jobs.
#[derive(Default)]
pub struct Announcements {
    count: AtomicUsize,
    hang: std::sync::atomic::AtomicBool,
}

impl Announcements {
    pub fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// From now on, announcements do not return.
    pub fn hang(&self) {
        self.hang.store(true, Ordering::SeqCst);
    }
}

fn nothing<T>() -> Result<T> {
    Err(Error::unavailable("this queue only announces"))
}

#[async_trait]
impl Queue for Announcements {
    fn shard(&self, _: EndpointId) -> u32 {
        0
    }
    async fn epochs(&self) -> Result<Vec<i64>> {
        nothing()
    }
    async fn enqueue(&self, _: &[NewJob]) -> Result<Vec<Enqueued>> {
        nothing()
    }
    async fn read(&self, _: &str, _: usize, _: Duration) -> Result<Vec<LeasedJob>> {
        nothing()
    }
    async fn reclaim(&self, _: &str, _: usize) -> Result<Vec<LeasedJob>> {
        nothing()
    }
    async fn renew(&self, _: &str, _: &[Receipt]) -> Result<Vec<Receipt>> {
        nothing()
    }
    async fn finish(&self, _: &[Done]) -> Result<()> {
        nothing()
    }
    async fn held(&self, _: &[(EndpointId, DeliveryId)]) -> Result<Vec<Option<u32>>> {
        nothing()
    }
    async fn room(&self, _: &[(Recipient, u32)]) -> Result<Vec<u32>> {
        nothing()
    }
    async fn depths(&self) -> Result<Vec<u64>> {
        nothing()
    }
    async fn announce_change(&self) -> Result<()> {
        self.count.fetch_add(1, Ordering::SeqCst);
        if self.hang.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        nothing()
    }
    async fn change_announced(&self) {
        std::future::pending().await
    }
}
