//! Ingest over a fresh database and a fake intake, and a client without a network.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures::StreamExt;
use outrider_model::{
    AcceptedEvent, AdmittedEvent, Error, EventId, Idempotency, Principal, Reason, Result,
    Timestamp, UsedKey, principal::Actor,
};
use outrider_proto::ingest::{
    NewEvent, PublishEventRequest, StreamEventsRequest, StreamEventsResponse, StreamOpen,
    StreamedEvent, ingest_service_server::IngestService as _, stream_events_request::Kind,
    stream_events_response::Kind as Sent,
};
use outrider_rpc::{Intake, from_status};
use outrider_store::{Directory, DirectoryOptions, MasterKeys, NewProject, Store, StoreOptions};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinHandle,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};

use crate::{
    options::{Given, Options},
    service::Ingest,
    stream::{self, Answer},
};

/// Nothing here takes this long unless it never ends.
pub const LONG: Duration = Duration::from_secs(20);

/// Accepts each key once, fails as configured, and waits while it has no permits.
pub struct Fake {
    pub calls: Mutex<Vec<Vec<AdmittedEvent>>>,
    pub failures: Mutex<VecDeque<Error>>,
    pub gate: Semaphore,
    /// Number of calls so far, including those that wait.
    pub begun: AtomicUsize,
    known: Mutex<HashMap<String, [u8; 32]>>,
}

impl Default for Fake {
    fn default() -> Self {
        Self {
            calls: Mutex::default(),
            failures: Mutex::default(),
            gate: Semaphore::new(Semaphore::MAX_PERMITS / 2),
            begun: AtomicUsize::new(0),
            known: Mutex::default(),
        }
    }
}

impl Fake {
    /// The keys of the accepted events, in order.
    pub fn keys(&self) -> Vec<String> {
        self.calls
            .lock()
            .unwrap()
            .iter()
            .flatten()
            .map(|event| event.idempotency.clone().map_or_else(String::new, |given| given.key))
            .collect()
    }

    fn accept_one(&self, event: &AdmittedEvent) -> Result<AcceptedEvent> {
        let before = match event.idempotency.clone() {
            Some(Idempotency { key, fingerprint }) => {
                let before = self.known.lock().unwrap().insert(key, fingerprint);
                if before.is_some_and(|before| before != fingerprint) {
                    return Err(Error::new(Reason::IdempotencyConflict, "another"));
                }
                before
            }
            None => None,
        };
        Ok(AcceptedEvent {
            id: EventId::new(Timestamp(0), 0),
            duplicate: before.is_some(),
            delivery_count: 2,
            created_at: Timestamp(0),
        })
    }
}

#[async_trait]
impl Intake for Fake {
    async fn accept(&self, events: Vec<AdmittedEvent>) -> Result<Vec<Result<AcceptedEvent>>> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        self.gate.acquire().await.expect("never closed").forget();
        if let Some(error) = self.failures.lock().unwrap().pop_front() {
            return Err(error);
        }
        let results = events.iter().map(|event| self.accept_one(event)).collect();
        self.calls.lock().unwrap().push(events);
        Ok(results)
    }

    /// Finds nothing: the project has no catalog, so nothing is looked up.
    async fn find(&self, keys: Vec<UsedKey>) -> Result<Vec<Option<AcceptedEvent>>> {
        Ok(vec![None; keys.len()])
    }
}

pub struct Bench {
    pub intake: Arc<Fake>,
    pub shutdown: CancellationToken,
    pub project: String,
    ingest: Ingest,
    principal: Principal,
    _directory: tempfile::TempDir,
}

impl Bench {
    pub async fn start() -> Self {
        Self::with(Options::default()).await
    }

    pub async fn with(options: Options) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", directory.path().join("outrider.db").display());
        let keys = MasterKeys::parse(&MasterKeys::generate_text("test")).unwrap();
        let store = Store::connect(&StoreOptions::new(url, keys)).await.unwrap();
        store.migrate_up().await.unwrap();
        let organization = store.create_organization(Actor::System, "Acme").await.unwrap();
        let principal = Principal::system(organization.id);
        let new = NewProject::default();
        let project = store.create_project(&principal, new, None).await.unwrap().id.to_string();
        let (intake, shutdown) = (Arc::new(Fake::default()), CancellationToken::new());
        let clock = store.clock().clone();
        let directory_of_store = Directory::new(store, DirectoryOptions::default());
        let ingest = Ingest::new(
            options,
            Given::default(),
            directory_of_store,
            clock,
            Arc::clone(&intake) as Arc<dyn Intake>,
            shutdown.clone(),
        );
        Self { intake, shutdown, project, ingest, principal, _directory: directory }
    }

    /// Publishes an event with this payload by a call.
    pub fn publish(&self, payload: &str) -> JoinHandle<Result<(), Status>> {
        let event = NewEvent {
            event_type: "a.b".into(),
            payload: payload.to_owned().into(),
            ..NewEvent::default()
        };
        let request = PublishEventRequest { project_id: self.project.clone(), event: Some(event) };
        let mut request = Request::new(request);
        request.extensions_mut().insert(self.principal.clone());
        let ingest = self.ingest.clone();
        tokio::spawn(async move { ingest.publish_event(request).await.map(drop) })
    }

    /// Number of large requests that have their turn, and that wait for it.
    pub fn large(&self) -> (usize, usize) {
        self.ingest.admission.large().held()
    }

    /// Opens a connection on which nothing was sent.
    pub fn connect(&self) -> Result<Client> {
        self.connect_by(self.principal.clone())
    }

    /// Like `connect`, by another caller.
    pub fn connect_by(&self, principal: Principal) -> Result<Client> {
        let (sender, receiver) = mpsc::channel(1);
        let answer = stream::answer(
            self.ingest.admission.clone(),
            &self.ingest.streams,
            principal,
            ReceiverStream::new(receiver),
        )?;
        Ok(Client { sender: Some(sender), answer })
    }

    /// Opens a stream.
    pub async fn open(&self, stream_id: &str) -> Client {
        let mut client = self.connect().unwrap();
        client
            .send(Kind::Open(StreamOpen {
                project_id: self.project.clone(),
                stream_id: stream_id.to_owned(),
            }))
            .await;
        assert!(matches!(client.message().await, Some(Sent::Opened(_))));
        client
    }
}

/// The other side of a stream.
pub struct Client {
    sender: Option<mpsc::Sender<Result<StreamEventsRequest, Status>>>,
    answer: Answer,
}

impl Client {
    pub async fn send(&self, kind: Kind) {
        assert!(
            tokio::time::timeout(LONG, self.offer(kind)).await.expect("the server reads"),
            "the stream has ended"
        );
    }

    /// Waits until the server takes the message. Returns false if the stream has ended.
    pub async fn offer(&self, kind: Kind) -> bool {
        let sender = self.sender.as_ref().expect("not ended by the test");
        sender.send(Ok(StreamEventsRequest { kind: Some(kind) })).await.is_ok()
    }

    pub async fn events(&self, sequences: impl IntoIterator<Item = u64>) {
        self.send_all(sequences.into_iter().map(|sequence| event(sequence, "1"))).await;
    }

    pub async fn send_all(&self, kinds: impl IntoIterator<Item = Kind>) {
        for kind in kinds {
            self.send(kind).await;
        }
    }

    /// Resolves when the server stops reading.
    pub async fn closed(&self) {
        self.sender.as_ref().expect("not ended by the test").closed().await;
    }

    /// Ends the client's side.
    pub fn half_close(&mut self) {
        self.sender = None;
    }

    async fn next(&mut self) -> Option<Result<StreamEventsResponse, Status>> {
        tokio::time::timeout(LONG, self.answer.next()).await.expect("an answer")
    }

    /// Returns the next message, or `None` at an end without an error.
    pub async fn message(&mut self) -> Option<Sent> {
        self.next().await.map(|message| message.unwrap().kind.unwrap())
    }

    /// Reads until everything up to `sequence` is acknowledged. Returns the numbers of accepted
    /// events and duplicates, and the rejections with their reasons.
    pub async fn acked(&mut self, sequence: u64) -> (u32, u32, Vec<(u64, Reason)>) {
        let (mut accepted, mut duplicates, mut rejected) = (0, 0, Vec::new());
        loop {
            match self.message().await.expect("the stream goes on") {
                Sent::Ack(ack) => {
                    accepted += ack.accepted_count;
                    duplicates += ack.duplicate_count;
                    assert_eq!(ack.delivery_count, u64::from(ack.accepted_count) * 2);
                    assert!(
                        rejected.iter().all(|(rejected, _)| *rejected <= ack.sequence),
                        "rejections come first"
                    );
                    assert!(ack.sequence <= sequence, "{ack:?}");
                    if ack.sequence == sequence {
                        return (accepted, duplicates, rejected);
                    }
                }
                Sent::Rejection(rejection) => {
                    rejected.push((
                        rejection.sequence,
                        outrider_rpc::status::from_message(&rejection.error.unwrap()).reason,
                    ));
                }
                Sent::Opened(_) => panic!("opened twice"),
            }
        }
    }

    /// Returns the error that ends the stream, and the last acknowledged sequence number before it.
    pub async fn failure(&mut self) -> (Error, u64) {
        let mut acked = 0;
        loop {
            match self.next().await.expect("an error") {
                Ok(StreamEventsResponse { kind: Some(Sent::Ack(ack)) }) => acked = ack.sequence,
                Ok(_) => {}
                Err(status) => return (from_status(&status), acked),
            }
        }
    }
}

pub fn event(sequence: u64, payload: &str) -> Kind {
    let event = NewEvent {
        event_type: "a.b".into(),
        payload: payload.to_owned().into(),
        ..NewEvent::default()
    };
    Kind::Event(StreamedEvent { sequence, event: Some(event), ..StreamedEvent::default() })
}
