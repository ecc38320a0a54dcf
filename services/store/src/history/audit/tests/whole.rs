//! An intact ledger adds up, at rest and while deliveries move.

use std::{sync::Arc, time::Duration};

use outrider_model::{DeliveryReason, EndpointState, ProjectId, Verdict};

use super::{AuditScope, ProjectAudit, audit, findings};
use crate::{
    ledger::CancelScope,
    testing::{
        backends::on_both_backends,
        scene::Scene,
        world::{EPOCH, FAILURE, SUCCESS, World, attempted, route},
    },
};

on_both_backends! {
    every_outcome_is_counted_in_its_place
    a_scope_is_a_time_and_a_project
    attempts_after_a_late_success_are_fine
    nothing_is_missing_while_deliveries_move
    keys_are_audited_page_by_page
    one_audits_at_a_time
    a_read_only_store_audits_beside_a_writer
}

async fn every_outcome_is_counted_in_its_place(world: World) {
    let mut scene = Scene::of(world).await;
    let paused = scene.new_endpoint(None, EndpointState::Paused).await;
    let gone = outrider_model::EndpointId::new(scene.world.now, 99);
    scene.accept(50, &[]).await;
    let new = scene.accept(40, &[scene.endpoint, scene.owned, paused, gone]).await;
    let other = scene.accept(30, &[scene.endpoint, scene.owned]).await;
    let failed = scene.fail(&new.deliveries[0]).await;
    scene.deliver(&new.deliveries[1]).await;
    let (world, store) = (&scene.world, &scene.world.store);
    let cancelled = world
        .ledger
        .cancel(CancelScope::Endpoint(gone), DeliveryReason::EndpointDeleted, world.now, 9)
        .await
        .unwrap();
    assert_eq!(cancelled, 1);
    let retry = attempted(&other.deliveries[0], 1, Verdict::Retry(world.now), 500);
    assert_eq!(world.ledger.settle(&[retry]).await.unwrap(), [true]);
    store.retry_delivery(&scene.principal, world.project, failed).await.unwrap();
    world.delivery(scene.owned, Some(EPOCH)).await;
    assert!(findings(world).await.is_empty());
    let expected = ProjectAudit {
        events: 4,
        unrouted: 1,
        owed: 7,
        replays: 1,
        delivered: 1,
        failed: 1,
        endpoint_deleted: 1,
        queued: 1,
        // Two deliveries of the second event, and the replay.
        waiting: 3,
        held: 1,
        ..ProjectAudit::default()
    };
    assert_eq!(audit(store, AuditScope::ALL).await.0, [(world.project, expected)].into());
    scene.world.project = ProjectId::new(scene.world.now, 7);
    scene.accept(20, &[scene.endpoint]).await;
    assert_eq!(audit(&scene.world.store, AuditScope::ALL).await.0.len(), 2);
}

async fn a_scope_is_a_time_and_a_project(mut world: World) {
    let times: Vec<_> =
        (0..10).map(|second| world.now.minus(Duration::from_secs(100 - second))).collect();
    let projects = [world.project, ProjectId::new(world.now, 2)];
    for (index, at) in times.iter().enumerate() {
        world.project = projects[index % 2];
        let mut new = world.event_at(*at);
        route(&mut new, world.endpoint, None);
        world.ledger.accept(&[new], world.keys_since()).await.unwrap();
    }
    let scope = AuditScope { rows: 2, ..AuditScope::ALL.during(Some(times[3]), Some(times[7])) };
    let (found, findings) = audit(&world.store, scope).await;
    assert!(findings.is_empty());
    assert_eq!(
        found.values().map(|project| (project.events, project.waiting)).collect::<Vec<_>>(),
        [(2, 2), (2, 2)]
    );
    let one = AuditScope { project: Some(projects[1]), ..scope };
    let (found, _) = audit(&world.store, one).await;
    assert_eq!(found.keys().copied().collect::<Vec<_>>(), [projects[1]]);
    assert_eq!(found[&projects[1]].owed, 2);
}

/// The second attempt was in progress when the first turned out to have succeeded.
async fn attempts_after_a_late_success_are_fine(world: World) {
    let delivery = world.delivery(world.endpoint, Some(EPOCH)).await;
    let batch = [
        attempted(&delivery, 1, Verdict::Retry(world.now), 503),
        attempted(&delivery, 1, SUCCESS, 200),
        attempted(&delivery, 2, FAILURE, 500),
    ];
    // Another exchange of the same attempt is another row.
    for report in batch {
        world.ledger.settle(&[report]).await.unwrap();
    }
    assert_eq!((world.rows("deliveries").await, world.rows("attempts").await), (1, 3));
    assert!(findings(&world).await.is_empty());
}

/// A delivery that ends between two steps is either pending or ended in each.
async fn nothing_is_missing_while_deliveries_move(world: World) {
    const EVENTS: u32 = 1_500;
    let batch: Vec<_> = (0..EVENTS)
        .map(|_| {
            let mut new = world.event_at(world.now);
            route(&mut new, world.endpoint, Some(EPOCH));
            new
        })
        .collect();
    world.ledger.accept(&batch, world.keys_since()).await.unwrap();
    let world = Arc::new(world);
    let settling = tokio::spawn({
        let world = Arc::clone(&world);
        async move {
            for chunk in batch.chunks(5) {
                let verdict = |index: usize| {
                    if index.is_multiple_of(2) { SUCCESS } else { Verdict::Retry(world.now) }
                };
                let reports: Vec<_> = chunk
                    .iter()
                    .enumerate()
                    .map(|(index, new)| attempted(&new.deliveries[0], 1, verdict(index), 200))
                    .collect();
                world.ledger.settle(&reports).await.unwrap();
            }
        }
    });
    let mut between = 0;
    loop {
        let ended = settling.is_finished();
        let (projects, findings) = audit(&world.store, AuditScope::ALL).await;
        let project = &projects[&world.project];
        assert_eq!((findings, project.owed), (Vec::new(), u64::from(EVENTS)));
        assert_eq!(project.delivered + project.queued + project.waiting, u64::from(EVENTS));
        between += u32::from(project.delivered > 0 && project.delivered < 900);
        if ended {
            break;
        }
    }
    settling.await.unwrap();
    assert!(between > 0, "no audit saw deliveries move");
}

async fn keys_are_audited_page_by_page(world: World) {
    let batch: Vec<_> =
        (0..7).map(|number| world.keyed(world.now, &format!("key-{number}"), 1)).collect();
    world.ledger.accept(&batch, world.keys_since()).await.unwrap();
    let (mut place, mut keys) = (None, 0);
    loop {
        let audited =
            world.store.audit_keys(AuditScope { rows: 2, ..AuditScope::ALL }, place).await.unwrap();
        assert!(audited.findings.is_empty());
        keys += audited.keys.values().sum::<u64>();
        place = audited.next;
        if place.is_none() {
            break;
        }
    }
    // Near midnight a key is in two days.
    assert!(keys == 7 || keys == 14, "{keys}");
    let none = AuditScope { project: Some(ProjectId::new(world.now, 9)), ..AuditScope::ALL };
    assert!(world.store.audit_keys(none, None).await.unwrap().keys.is_empty());
}

async fn one_audits_at_a_time(world: World) {
    let other = world.database.connect().await;
    let mut turn = world.store.audit_turn().await.unwrap().expect("nobody else audits");
    assert!(turn.held().await);
    if world.store.backend() == crate::Backend::Sqlite {
        return;
    }
    assert!(other.audit_turn().await.unwrap().is_none());
    drop(turn);
    let begin = std::time::Instant::now();
    while other.audit_turn().await.unwrap().is_none() {
        assert!(begin.elapsed() < Duration::from_secs(20), "the turn is not given back");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn a_read_only_store_audits_beside_a_writer(world: World) {
    world.delivery(world.endpoint, None).await;
    let options = crate::StoreOptions { read_only: true, ..world.database.options().clone() };
    let reader = crate::Store::connect(&options).await.unwrap();
    reader.ready().await.unwrap();
    assert_eq!(audit(&reader, AuditScope::ALL).await.0[&world.project].waiting, 1);
    world.delivery(world.endpoint, None).await;
    assert_eq!(audit(&reader, AuditScope::ALL).await.0[&world.project].waiting, 2);
    let organization =
        reader.create_organization(outrider_model::principal::Actor::System, "No").await;
    assert_eq!(organization.unwrap_err().reason, outrider_model::Reason::Unavailable);
    assert_eq!(world.rows("organizations").await, 0);
}
