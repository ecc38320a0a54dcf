//! Data past its retention is removed, whatever arrives late and whatever fails.

use std::{collections::BTreeMap, time::Duration};

use outrider_model::{Event, EventId, Origin, ProjectSpec, Timestamp};
use outrider_store::NewEvent;

use super::{Bench, bench::until};
use crate::Options;

const MINUTE: Duration = Duration::from_secs(60);

/// Starts a dispatch that sweeps continually. Its project keeps payloads for a minute.
async fn sweeping() -> Bench {
    let bench =
        Bench::with(Options { sweep_period: Duration::from_millis(20), ..Options::default() })
            .await;
    let change = |spec: &mut ProjectSpec| spec.payload_retention = Some(MINUTE);
    bench.store.update_project(&bench.principal, bench.project.id, change).await.unwrap();
    bench
}

/// Commits an event of this time, without deliveries.
async fn commit(bench: &Bench, created_at: Timestamp) -> EventId {
    let id = EventId::new(created_at, rand::random());
    let event = Event {
        id,
        project: bench.project.id,
        event_type: "a.b".to_owned(),
        content_type: "application/json".to_owned(),
        payload_size: 2,
        idempotency_key: None,
        headers: BTreeMap::new(),
        metadata: BTreeMap::new(),
        ordering_key: None,
        deliver_at: None,
        delivery_count: 0,
        origin: Origin::Api { actor: "test".to_owned() },
        trace: None,
        created_at,
        payload_erased_at: None,
    };
    let new = NewEvent { event, payload: "{}".into(), fingerprint: None, deliveries: Vec::new() };
    bench.store.ledger().accept(&[new], created_at).await.unwrap();
    id
}

async fn is_erased(bench: &Bench, event: EventId) {
    until("the payload is erased", async || {
        let (event, _) =
            bench.store.get_event(&bench.principal, bench.project.id, event).await.unwrap();
        event.payload_erased_at
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn payloads_of_events_that_were_committed_late_are_erased() {
    let bench = sweeping().await;
    let now = bench.store.clock().now();
    for minutes in [2, 3, 12] {
        let event = commit(&bench, now.minus(MINUTE * minutes)).await;
        is_erased(&bench, event).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn days_that_cannot_be_dropped_keep_no_payload() {
    let bench = sweeping().await;
    bench.database.execute("ALTER TABLE deliveries RENAME TO lost").await;
    let event = commit(&bench, bench.store.clock().now().minus(MINUTE * 2)).await;
    is_erased(&bench, event).await;
}
