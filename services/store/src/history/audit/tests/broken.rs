//! Each kind of damage is found with its id, and nothing else.

use outrider_model::{DeliveryId, Verdict};
use uuid::Uuid;

use super::{AuditScope, Discrepancy, audit, delete, findings, sql};
use crate::testing::{
    backends::on_both_backends,
    scene::Scene,
    world::{EPOCH, SUCCESS, World, attempted, exchange, route},
};

on_both_backends! {
    deleted_deliveries
    doubled_deliveries
    deleted_events
    deleted_attempts
    replays
    keys
    dropped_history_is_gone_and_not_lost
    findings_are_listed_up_to_a_limit_and_counted_beyond
}

const PENDING: &str = "INSERT INTO pending_deliveries (id, project_id, event_id, event_type, \
     endpoint_id, subscription_ids, replay_number, attempt, due_at, queued_epoch, generation, \
     check_at, created_at)";

/// Makes an ended delivery also pending, with this id.
async fn double(world: &World, ended: Uuid, id: Uuid) {
    let (ended, id) = (sql(world, ended), sql(world, id));
    world
        .execute(&format!(
            "{PENDING} SELECT {id}, project_id, event_id, event_type, endpoint_id, \
             subscription_ids, replay_number, 1, 0, NULL, 0, 0, 0 \
             FROM deliveries WHERE id = {ended}"
        ))
        .await;
}

async fn deleted_deliveries(world: World) {
    let scene = Scene::of(world).await;
    let world = &scene.world;
    let pending = scene.accept(30, &[scene.endpoint, scene.owned]).await;
    let ended = scene.accept(20, &[scene.endpoint, scene.owned]).await;
    let whole = scene.accept(10, &[scene.endpoint]).await;
    scene.deliver(&ended.deliveries[0]).await;
    scene.deliver(&whole.deliveries[0]).await;
    assert!(findings(world).await.is_empty());
    delete(world, "pending_deliveries", pending.deliveries[1].id.0).await;
    let first = (Discrepancy::MissingDelivery, pending.event.id.0);
    assert_eq!(findings(world).await, [first]);
    let attempt = exchange(&ended.deliveries[0], 1, 200);
    delete(world, "deliveries", ended.deliveries[0].id.0).await;
    delete(world, "attempts", attempt.0).await;
    assert_eq!(findings(world).await, [first, (Discrepancy::MissingDelivery, ended.event.id.0)]);
    let project = &audit(&world.store, AuditScope::ALL).await.0[&world.project];
    assert_eq!(
        (project.unaccounted(), project.doubled(), project.owed, project.delivered),
        (2, 0, 5, 1)
    );
}

async fn doubled_deliveries(world: World) {
    let scene = Scene::of(world).await;
    let world = &scene.world;
    let same = scene.accept(30, &[scene.endpoint]).await;
    let twin = scene.accept(20, &[scene.endpoint]).await;
    for new in [&same, &twin] {
        scene.deliver(&new.deliveries[0]).await;
    }
    double(world, same.deliveries[0].id.0, same.deliveries[0].id.0).await;
    let other = DeliveryId::derive(twin.event.created_at, twin.event.id, scene.owned, 0);
    double(world, twin.deliveries[0].id.0, other.0).await;
    let found = findings(world).await;
    assert_eq!(
        found,
        [
            (Discrepancy::DoubledDelivery, same.event.id.0),
            (Discrepancy::DoubledDelivery, twin.event.id.0)
        ]
    );
    let project = &audit(&world.store, AuditScope::ALL).await.0[&world.project];
    assert_eq!((project.unaccounted(), project.doubled()), (0, 2));
    // An extra delivery does not make up for a missing one: each endpoint has its own.
    let both = scene.accept(10, &[scene.endpoint, scene.owned]).await;
    scene.deliver(&both.deliveries[0]).await;
    delete(world, "pending_deliveries", both.deliveries[1].id.0).await;
    let third = DeliveryId::derive(both.event.created_at, both.event.id, scene.owned, 7);
    double(world, both.deliveries[0].id.0, third.0).await;
    let found = findings(world).await;
    let kinds: Vec<Discrepancy> =
        found.iter().filter(|(_, id)| *id == both.event.id.0).map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, [Discrepancy::MissingDelivery, Discrepancy::DoubledDelivery]);
}

async fn deleted_events(world: World) {
    let scene = Scene::of(world).await;
    let world = &scene.world;
    let pending = scene.accept(30, &[scene.endpoint]).await;
    let ended = scene.accept(20, &[scene.endpoint]).await;
    scene.deliver(&ended.deliveries[0]).await;
    for new in [&pending, &ended] {
        delete(world, "events", new.event.id.0).await;
    }
    let expected =
        [&pending, &ended].map(|new| (Discrepancy::DeliveryWithoutEvent, new.deliveries[0].id.0));
    assert_eq!(findings(world).await, expected);
}

async fn deleted_attempts(world: World) {
    let retried = world.delivery(world.endpoint, Some(EPOCH)).await;
    let delivered = world.delivery(world.endpoint, Some(EPOCH)).await;
    let other = world.delivery(world.endpoint, Some(EPOCH)).await;
    let reports = [
        attempted(&retried, 1, Verdict::Retry(world.now), 500),
        attempted(&delivered, 1, Verdict::Retry(world.now), 500),
        attempted(&other, 1, SUCCESS, 200),
    ];
    world.ledger.settle(&reports).await.unwrap();
    world.ledger.settle(&[attempted(&delivered, 2, SUCCESS, 200)]).await.unwrap();
    assert!(findings(&world).await.is_empty());
    delete(&world, "attempts", exchange(&retried, 1, 500).0).await;
    let expected = vec![(Discrepancy::MissingAttempt, retried.id.0)];
    assert_eq!(findings(&world).await, expected);
    // Of its two attempts the failed one exists, with a number that does not count any more.
    delete(&world, "attempts", exchange(&delivered, 2, 200).0).await;
    world.execute("UPDATE deliveries SET attempt_count = 1 WHERE attempt_count = 2").await;
    let mut expected = vec![expected[0], (Discrepancy::MissingAttempt, delivered.id.0)];
    expected.sort_by_key(|(_, id)| *id);
    assert_eq!(findings(&world).await, expected, "delivered without a success");
    let id = sql(&world, Uuid::from_u128(other.id.0.as_u128() ^ 1));
    let of = sql(&world, other.id.0);
    world
        .execute(&format!("UPDATE attempts SET delivery_id = {id} WHERE delivery_id = {of}"))
        .await;
    let found = findings(&world).await;
    assert_eq!(found.len(), 4);
    assert!(found.contains(&(Discrepancy::MissingAttempt, other.id.0)));
    assert!(found.contains(&(
        Discrepancy::AttemptWithoutDelivery,
        Uuid::from_u128(other.id.0.as_u128() ^ 1)
    )));
}

async fn replays(world: World) {
    let scene = Scene::of(world).await;
    let (world, store) = (&scene.world, &scene.world.store);
    let mut events = Vec::new();
    let mut made = Vec::new();
    for age in [40, 30, 20] {
        let new = scene.accept(age, &[scene.endpoint]).await;
        let failed = scene.fail(&new.deliveries[0]).await;
        made.push(
            store.retry_delivery(&scene.principal, world.project, failed).await.unwrap().id.0,
        );
        events.push(new.event.id.0);
    }
    assert!(findings(world).await.is_empty());
    delete(world, "pending_deliveries", made[0]).await;
    let id = sql(world, made[1]);
    world.execute(&format!("DELETE FROM replays WHERE delivery_id = {id}")).await;
    delete(world, "events", events[2]).await;
    let found = findings(world).await;
    assert_eq!(found[0], (Discrepancy::MissingReplay, events[0]));
    assert!(found.contains(&(Discrepancy::UnorderedReplay, made[1])), "{found:?}");
    assert!(found.contains(&(Discrepancy::DeliveryWithoutEvent, made[2])), "{found:?}");
    // The failed delivery of the deleted event lacks its event too.
    assert_eq!(found.len(), 4);
    let project = &audit(store, AuditScope::ALL).await.0[&world.project];
    assert_eq!((project.unaccounted(), project.replays), (1, 3));
}

async fn keys(world: World) {
    let batch = [
        world.keyed(world.now, "a", 1),
        world.keyed(world.now, "b", 1),
        world.keyed(world.now, "c", 1),
    ];
    world.ledger.accept(&batch, world.keys_since()).await.unwrap();
    delete(&world, "events", batch[1].event.id.0).await;
    let id = sql(&world, batch[2].event.id.0);
    world.execute(&format!("UPDATE events SET idempotency_key = 'd' WHERE id = {id}")).await;
    let audited = world.store.audit_keys(AuditScope::ALL, None).await.unwrap();
    let mut found: Vec<Uuid> = audited.findings.iter().map(|finding| finding.id).collect();
    found.dedup();
    assert_eq!(found, [batch[1].event.id.0, batch[2].event.id.0]);
    assert!(audited.findings[0].public_id().starts_with("evt_"));
}

/// Retention drops whole days. Later replays and keys of that time still refer to them.
async fn dropped_history_is_gone_and_not_lost(world: World) {
    let scene = Scene::of(world).await;
    let (world, store) = (&scene.world, &scene.world.store);
    let mut old = world.keyed(world.now.minus(std::time::Duration::from_secs(50)), "old", 1);
    old.deliveries.clear();
    old.event.delivery_count = 0;
    route(&mut old, scene.endpoint, None);
    world.ledger.accept(std::slice::from_ref(&old), world.keys_since()).await.unwrap();
    let first = scene.fail(&old.deliveries[0]).await;
    let kept = scene.accept(40, &[scene.endpoint]).await;
    scene.deliver(&kept.deliveries[0]).await;
    let replay = store.retry_delivery(&scene.principal, world.project, first).await.unwrap();
    delete(world, "events", old.event.id.0).await;
    delete(world, "deliveries", first.0).await;
    delete(world, "attempts", exchange(&old.deliveries[0], 1, 500).0).await;
    world.execute("DELETE FROM replays").await;
    assert_eq!(
        findings(world).await,
        [(Discrepancy::DeliveryWithoutEvent, replay.id.0)],
        "what is pending needs its event"
    );
    let mut pending = old.deliveries[0].clone();
    pending.id = replay.id;
    scene.deliver(&pending).await;
    assert!(findings(world).await.is_empty());
    assert!(store.audit_keys(AuditScope::ALL, None).await.unwrap().findings.is_empty());
}

async fn findings_are_listed_up_to_a_limit_and_counted_beyond(world: World) {
    let batch: Vec<_> = (0..1_200)
        .map(|_| {
            let mut new = world.event_at(world.now);
            route(&mut new, world.endpoint, None);
            new
        })
        .collect();
    world.ledger.accept(&batch, world.keys_since()).await.unwrap();
    world.execute("DELETE FROM pending_deliveries").await;
    let (projects, findings) = audit(&world.store, AuditScope::ALL).await;
    assert_eq!((projects[&world.project].unaccounted(), findings.len()), (1_200, 1_000));
}
