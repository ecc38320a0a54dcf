//! On PostgreSQL no statement of the ledger scans the table of pending deliveries, however large it
//! is.

use std::time::Duration;

use outrider_model::{DeliveryId, DeliveryReason, EndpointId, Timestamp, Verdict};
use sea_orm::{ConnectionTrait, Statement};

use crate::{
    Store,
    ledger::{CancelScope, Claim},
    testing::world::{EPOCH, SUCCESS, World, attempted, route},
};

/// 100,000 rows of 20 endpoints: half wait and are due, half are queued, all of one event.
const FILL: &str = "INSERT INTO pending_deliveries
    SELECT (lpad(to_hex($MILLIS), 12, '0') || '70008000' || lpad(to_hex(n), 12, '0'))::uuid,
        '$PROJECT'::uuid, '$EVENT'::uuid, 'a',
        ('00000000-0000-7000-9000-0000000000' || lpad((n % 20)::text, 2, '0'))::uuid, '', 0, 1, n,
        CASE WHEN n % 2 = 0 THEN 7 END, 1, n, NULL, 0
    FROM generate_series(1, 100000) n";
/// The first five executions have their own plans. The next ones may share one.
const ROUNDS: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pending_deliveries_are_never_scanned() {
    let Some(world) = World::postgres().await else { return };
    let event = world.event_at(world.now);
    world.ledger.accept(std::slice::from_ref(&event), world.keys_since()).await.unwrap();
    let fill = FILL
        .replace("$MILLIS", &world.now.millis().to_string())
        .replace("$PROJECT", &world.project.0.to_string())
        .replace("$EVENT", &event.event.id.0.to_string());
    world.store.write().execute_unprepared(&fill).await.unwrap();
    world.store.write().execute_unprepared("ANALYZE pending_deliveries").await.unwrap();
    // A session reports its statistics when it ends.
    world.store.close().await;
    let before = scans(&world.database.connect().await).await;
    let store = world.database.connect().await;
    for round in 0..ROUNDS {
        work(&world, &store, round).await;
    }
    store.close().await;
    assert_eq!(scans(&world.database.connect().await).await, before);
}

async fn scans(store: &Store) -> i64 {
    let statement = "SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'pending_deliveries'";
    let statement = Statement::from_string(sea_orm::DbBackend::Postgres, statement);
    store.read().query_one_raw(statement).await.unwrap().unwrap().try_get_by_index(0).unwrap()
}

async fn work(world: &World, store: &Store, round: usize) {
    let ledger = store.ledger();
    let mut batch: Vec<_> =
        (0..100).map(|index| world.keyed(world.now, &format!("{round}-{index}"), 1)).collect();
    for new in &mut batch {
        new.deliveries.clear();
        route(new, world.endpoint, None);
    }
    ledger.accept(&batch, world.keys_since()).await.unwrap();
    let old = |number: u128| EndpointId(uuid::Uuid::from_u128(0x7000_9000_0000_0000_0000 + number));
    let claims: Vec<Claim> = (0..10)
        .map(|number| Claim {
            endpoint: if number == 0 { world.endpoint } else { old(number) },
            limit: 100,
            epoch: EPOCH,
        })
        .collect();
    let later = world.now.plus(Duration::from_secs(60));
    let jobs = ledger.claim(&claims, world.now, later, 999).await.unwrap();
    assert_eq!(jobs.len(), 600, "five of the others have rows that wait");
    let named: Vec<(DeliveryId, u32)> =
        jobs.iter().map(|job| (job.delivery.id, job.delivery.generation)).collect();
    ledger.extend(&named, later).await.unwrap();
    ledger.unqueue(&named[..10]).await.unwrap();
    let current: Vec<_> = named.iter().map(|(id, generation)| (*id, 1, *generation)).collect();
    assert_eq!(
        ledger.current(&current).await.unwrap().iter().filter(|current| **current).count(),
        590
    );
    let verdict =
        |index: usize| if index.is_multiple_of(2) { SUCCESS } else { Verdict::Retry(later) };
    let reports: Vec<_> = jobs
        .iter()
        .enumerate()
        .map(|(index, job)| attempted(&job.delivery, 1, verdict(index), 200))
        .collect();
    assert!(ledger.settle(&reports).await.unwrap().into_iter().all(|applied| applied));
    assert_eq!(ledger.overdue(Timestamp(0), world.now, 50).await.unwrap().len(), 50);
    assert!(ledger.backlog(None, 50).await.unwrap().len() >= 11);
    let cancelled = ledger
        .cancel(CancelScope::Endpoint(old(0x11)), DeliveryReason::EndpointDeleted, world.now, 100)
        .await;
    assert_eq!(cancelled.unwrap(), 100);
    let project = ledger
        .cancel(CancelScope::Project(world.project), DeliveryReason::ProjectDeleted, world.now, 10)
        .await;
    assert_eq!(project.unwrap(), 10);
}
