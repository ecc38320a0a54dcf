//! Manual retries.

use std::{sync::Arc, time::Duration};

use outrider_model::{DeliveryReason, DeliveryStatus, PageRequest, Reason};

use crate::{
    DeliveryFilter,
    ledger::Claim,
    testing::{
        backends::with_granted_rights_too,
        scene::Scene,
        world::{EPOCH, SUCCESS, World, attempted, route},
    },
};

with_granted_rights_too! {
    what_waits_becomes_due
    what_is_queued_stays_as_it_is
    what_ended_is_delivered_anew
    many_at_once_make_a_replay_each
    what_has_no_endpoint_is_refused
}

async fn what_waits_becomes_due(world: World) {
    let scene = Scene::of(world).await;
    let (world, store) = (&scene.world, &scene.world.store);
    let mut new = world.event_at(world.now);
    route(&mut new, scene.endpoint, None);
    new.deliveries[0].due_at = world.now.plus(Duration::from_secs(3_600));
    world.ledger.accept(std::slice::from_ref(&new), world.keys_since()).await.unwrap();
    let retried =
        store.retry_delivery(&scene.principal, world.project, new.deliveries[0].id).await.unwrap();
    assert_eq!(
        (retried.id, retried.status, retried.reason),
        (new.deliveries[0].id, DeliveryStatus::Pending, DeliveryReason::Due)
    );
    let claim = Claim { endpoint: scene.endpoint, limit: 9, epoch: EPOCH };
    assert_eq!(
        world.ledger.claim(&[claim], store.clock().now(), world.now, 9).await.unwrap().len(),
        1
    );
}

async fn what_is_queued_stays_as_it_is(world: World) {
    let scene = Scene::of(world).await;
    let (world, store) = (&scene.world, &scene.world.store);
    let delivery = world.delivery(scene.endpoint, Some(EPOCH)).await;
    let retried = store.retry_delivery(&scene.principal, world.project, delivery.id).await.unwrap();
    assert_eq!((retried.id, retried.next_attempt_at), (delivery.id, Some(delivery.due_at)));
    assert_eq!(world.ledger.current(&[(delivery.id, 1, 1)]).await.unwrap(), [true]);
    assert_eq!(world.rows("pending_deliveries").await, 1);
}

async fn what_ended_is_delivered_anew(world: World) {
    let scene = Scene::of(world).await;
    let (world, store) = (&scene.world, &scene.world.store);
    let new = scene.accept(5, &[scene.endpoint, scene.owned]).await;
    let first = scene.fail(&new.deliveries[0]).await;
    let second = store.retry_delivery(&scene.principal, world.project, first).await.unwrap();
    assert_eq!(
        (second.replay_number, second.status, second.attempt_count),
        (1, DeliveryStatus::Pending, 0)
    );
    assert_eq!(
        (second.event, second.endpoint, &second.subscriptions),
        (new.event.id, scene.endpoint, &new.deliveries[0].subscriptions)
    );
    let claim = Claim { endpoint: scene.endpoint, limit: 9, epoch: EPOCH };
    let jobs = world.ledger.claim(&[claim], store.clock().now(), world.now, 9_999).await.unwrap();
    assert_eq!((jobs[0].delivery.id, jobs[0].payload.as_ref()), (second.id, Some(&new.payload)));
    let report = attempted(&jobs[0].delivery, 1, SUCCESS, 200);
    assert_eq!(world.ledger.settle(&[report]).await.unwrap(), [true]);
    let third = store.retry_delivery(&scene.principal, world.project, second.id).await.unwrap();
    assert_eq!(third.replay_number, 2);
    // The deliveries of the event: the first ones and both replays, newest first, whatever the page
    // size.
    let filter = DeliveryFilter { event: Some(new.event.id), ..DeliveryFilter::default() };
    let mut from = None;
    let mut listed = Vec::new();
    loop {
        let page = PageRequest { size: 1, from };
        let page =
            store.list_deliveries(&scene.principal, world.project, &filter, page).await.unwrap();
        listed.extend(page.items.iter().map(|delivery| delivery.id));
        from = page.next;
        if from.is_none() {
            break;
        }
    }
    let mut expected = vec![first, new.deliveries[1].id, second.id, third.id];
    expected.sort_by_key(|id| std::cmp::Reverse(*id));
    assert_eq!(listed, expected);
}

async fn many_at_once_make_a_replay_each(world: World) {
    let scene = Arc::new(Scene::of(world).await);
    let new = scene.accept(5, &[scene.endpoint]).await;
    let first = scene.fail(&new.deliveries[0]).await;
    let tasks: Vec<_> = (0..6)
        .map(|_| {
            let scene = Arc::clone(&scene);
            tokio::spawn(async move {
                scene
                    .world
                    .store
                    .retry_delivery(&scene.principal, scene.world.project, first)
                    .await
                    .unwrap()
            })
        })
        .collect();
    let mut numbers = Vec::new();
    for task in tasks {
        numbers.push(task.await.unwrap().replay_number);
    }
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6]);
    assert_eq!(scene.world.rows("pending_deliveries").await, 6);
}

async fn what_has_no_endpoint_is_refused(world: World) {
    let scene = Scene::of(world).await;
    let (project, store) = (scene.world.project, &scene.world.store);
    let new = scene.accept(5, &[scene.endpoint]).await;
    let ended = scene.accept(4, &[scene.endpoint]).await;
    scene.fail(&ended.deliveries[0]).await;
    store.delete_endpoint(&scene.principal, project, scene.endpoint).await.unwrap();
    for delivery in [&new.deliveries[0], &ended.deliveries[0]] {
        let refused =
            store.retry_delivery(&scene.principal, project, delivery.id).await.unwrap_err();
        assert_eq!(refused.reason, Reason::FailedPrecondition);
    }
    assert_eq!(scene.world.rows("pending_deliveries").await, 1);
}
