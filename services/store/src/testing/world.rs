//! A fresh database with its ledger, for tests of history. Each test is a function of a [`World`]
//! and runs on every backend.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use outrider_model::{
    Attempt, AttemptId, AttemptOutcome, DeliveryId, DeliveryReason, DeliveryStatus, EndpointId,
    EndpointState, Event, EventId, OrganizationId, Origin, PendingDelivery, ProjectId,
    SubscriptionId, Timestamp, Verdict, principal::Actor,
};
use outrider_shares::Holder;
use sea_orm::{ConnectionTrait, Statement};

use super::{TestDatabase, granted::Granted};
use crate::{
    Backend, Store,
    ledger::{Ledger, NewEvent, Settled},
};

pub(crate) const SUCCESS: Verdict =
    Verdict::End(DeliveryStatus::Delivered, DeliveryReason::Succeeded);
pub(crate) const FAILURE: Verdict = Verdict::End(DeliveryStatus::Failed, DeliveryReason::Exhausted);
/// The epoch of deliveries that are queued when they are accepted.
pub(crate) const EPOCH: i64 = 7;
pub(crate) const DAY: Duration = Duration::from_secs(86_400);

/// A fresh database and its ledger.
pub(crate) struct World {
    pub database: TestDatabase,
    pub store: Store,
    pub ledger: Arc<dyn Ledger>,
    pub project: ProjectId,
    pub endpoint: EndpointId,
    pub now: Timestamp,
    count: AtomicU64,
}

impl World {
    pub async fn sqlite() -> Self {
        Self::of(TestDatabase::sqlite()).await
    }

    pub async fn postgres() -> Option<Self> {
        Some(Self::of(TestDatabase::postgres().await?).await)
    }

    pub async fn granted() -> Option<Self> {
        let granted = Granted::new().await?;
        let store = granted.connect().await;
        Some(Self::with(TestDatabase::given(granted.database, granted.options), store))
    }

    async fn of(database: TestDatabase) -> Self {
        let store = database.store().await;
        Self::with(database, store)
    }

    fn with(database: TestDatabase, store: Store) -> Self {
        let now = store.clock().now();
        let ledger = store.ledger();
        let (project, endpoint) = (ProjectId::new(now, 1), EndpointId::new(now, 1));
        Self { database, store, ledger, project, endpoint, now, count: AtomicU64::new(1) }
    }

    /// A caller in the project.
    pub fn holder(&self) -> Holder {
        let organization = OrganizationId::new(self.now, 1);
        Holder { organization, project: Some(self.project), actor: Actor::System }
    }

    /// Keys of the last day are valid.
    pub fn keys_since(&self) -> Timestamp {
        self.now.minus(DAY)
    }

    /// An event without deliveries.
    pub fn event_at(&self, at: Timestamp) -> NewEvent {
        let id = EventId::new(at, self.count.fetch_add(1, Ordering::Relaxed));
        let payload = Bytes::from(format!("{{\"event\":\"{id}\"}}"));
        let event = Event {
            id,
            project: self.project,
            event_type: "invoice.paid".to_owned(),
            content_type: "application/json".to_owned(),
            payload_size: u32::try_from(payload.len()).unwrap(),
            idempotency_key: None,
            headers: BTreeMap::from([("x-a".to_owned(), "1".to_owned())]),
            metadata: BTreeMap::new(),
            ordering_key: Some("customer-7".to_owned()),
            deliver_at: None,
            delivery_count: 0,
            origin: Origin::Api { actor: "system".to_owned() },
            trace: None,
            created_at: at,
            payload_erased_at: None,
        };
        NewEvent { event, payload, fingerprint: None, deliveries: Vec::new() }
    }

    /// An event with a key and the fingerprint of some content.
    pub fn keyed(&self, at: Timestamp, key: &str, content: u8) -> NewEvent {
        let mut new = self.event_at(at);
        new.event.idempotency_key = Some(key.to_owned());
        new.fingerprint = Some([content; 32]);
        route(&mut new, self.endpoint, None);
        new
    }

    /// Accepts an event with a delivery to an endpoint, which waits in the database or is queued.
    pub async fn delivery(
        &self,
        endpoint: EndpointId,
        queued_epoch: Option<i64>,
    ) -> PendingDelivery {
        let mut new = self.event_at(self.now);
        route(&mut new, endpoint, queued_epoch);
        self.ledger.accept(std::slice::from_ref(&new), self.keys_since()).await.unwrap();
        new.deliveries.remove(0)
    }

    /// The number of rows of a table.
    pub async fn rows(&self, table: &str) -> i64 {
        self.number(&format!("SELECT count(*) FROM {table}")).await
    }

    /// Carries out a statement.
    pub async fn execute(&self, statement: &str) {
        self.store.write().execute_unprepared(statement).await.unwrap();
    }

    /// Writes an endpoint in this state, deleted or not. Its other columns do not matter here.
    pub async fn gate(
        &self,
        endpoint: EndpointId,
        state: EndpointState,
        deleted_at: Option<Timestamp>,
    ) {
        let sql = match self.store.backend() {
            Backend::Postgres => format!("'{}'", endpoint.0),
            Backend::Sqlite => format!("x'{}'", endpoint.0.simple()),
        };
        let deleted_at = deleted_at.map_or("NULL".to_owned(), |at| at.0.to_string());
        self.execute(&format!(
            "INSERT INTO endpoints (id, project_id, target_kind, target, description, state, \
             timeout_micros, max_in_flight, headers, metadata, created_at, updated_at, deleted_at) \
             VALUES ({sql}, {sql}, 'http', '', '', {}, 1, 1, '{{}}', '{{}}', 0, 0, {deleted_at})",
            state as i16
        ))
        .await;
    }

    /// The one number that a statement returns.
    pub async fn number(&self, statement: &str) -> i64 {
        let statement = Statement::from_string(self.store.backend().into(), statement);
        self.store
            .read()
            .query_one_raw(statement)
            .await
            .unwrap()
            .unwrap()
            .try_get_by_index(0)
            .unwrap()
    }
}

/// Adds a delivery that is due immediately.
pub(crate) fn route(new: &mut NewEvent, endpoint: EndpointId, queued_epoch: Option<i64>) {
    let event = &new.event;
    let delivery = PendingDelivery {
        id: DeliveryId::derive(event.created_at, event.id, endpoint, 0),
        project: event.project,
        event: event.id,
        event_type: event.event_type.clone(),
        endpoint,
        subscriptions: vec![
            SubscriptionId::new(event.created_at, 1),
            SubscriptionId::new(event.created_at, 2),
        ],
        replay_number: 0,
        attempt: 1,
        due_at: event.created_at,
        queued_epoch,
        generation: u32::from(queued_epoch.is_some()),
        check_at: event.created_at.plus(Duration::from_secs(60)),
        created_at: event.created_at,
    };
    new.deliveries.push(delivery);
    new.event.delivery_count += 1;
}

/// The start of the exchange of an attempt whose answer has this status. Another answer belongs to
/// another exchange, and the next attempt begins a minute later.
fn started(delivery: &PendingDelivery, attempt: u32, status: u16) -> Timestamp {
    delivery
        .due_at
        .plus(Duration::from_secs(60) * (attempt - 1) + Duration::from_micros(status.into()))
}

/// The id of an exchange that [`attempted`] reports.
pub(crate) fn exchange(delivery: &PendingDelivery, attempt: u32, status: u16) -> AttemptId {
    AttemptId::derive(delivery.id, attempt, delivery.generation, started(delivery, attempt, status))
}

/// The report of an attempt with an answer.
pub(crate) fn attempted(
    delivery: &PendingDelivery,
    attempt: u32,
    verdict: Verdict,
    status: u16,
) -> Settled {
    let outcome =
        if verdict == SUCCESS { AttemptOutcome::Succeeded } else { AttemptOutcome::Rejected };
    let record = Attempt {
        id: exchange(delivery, attempt, status),
        delivery: delivery.id,
        event: delivery.event,
        endpoint: delivery.endpoint,
        project: delivery.project,
        number: attempt,
        outcome,
        status_code: Some(status),
        started_at: started(delivery, attempt, status),
        duration: Duration::from_millis(12),
        response_headers: vec![
            ("x-b".to_owned(), "2".to_owned()),
            ("x-b".to_owned(), "3".to_owned()),
        ],
        response_body: b"\0answer".to_vec(),
        response_truncated: true,
        error_message: None,
        resent: status >= 500,
    };
    let at = delivery.due_at.plus(Duration::from_secs(1));
    Settled {
        delivery: delivery.id,
        attempt,
        generation: delivery.generation,
        verdict,
        record: Some(record),
        at,
    }
}

/// The report of a job for which nothing was sent.
pub(crate) fn not_attempted(delivery: &PendingDelivery, verdict: Verdict) -> Settled {
    Settled { record: None, ..attempted(delivery, delivery.attempt, verdict, 0) }
}
