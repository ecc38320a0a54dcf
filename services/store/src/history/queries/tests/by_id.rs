//! Many objects by their ids.

use outrider_model::{DeliveryId, EventId, ProjectId, Reason, Timestamp};

use crate::testing::{
    backends::with_granted_rights_too,
    scene::Scene,
    world::{World, exchange},
};

with_granted_rights_too! {
    what_is_asked_for_comes_in_order_and_once
    nobody_gets_what_is_not_theirs
}

async fn what_is_asked_for_comes_in_order_and_once(world: World) {
    let scene = Scene::of(world).await;
    let (store, project) = (&scene.world.store, scene.world.project);
    let old = scene.accept(86_000, &[]).await;
    let pending = scene.accept(5, &[scene.endpoint]).await;
    let ended = scene.accept(3, &[scene.endpoint]).await;
    scene.deliver(&ended.deliveries[0]).await;
    let events = [&ended, &old, &pending].map(|new| new.event.id);
    let asked: Vec<EventId> = [&events[..], &[EventId::new(Timestamp(0), 1), events[0]]].concat();
    let found = store.events_by_id(scene.world.holder(), project, &asked).await.unwrap();
    assert_eq!(found.iter().map(|event| event.id).collect::<Vec<_>>(), events);
    let deliveries = [ended.deliveries[0].id, pending.deliveries[0].id];
    let asked: Vec<DeliveryId> = [&deliveries[..], &[DeliveryId(uuid::Uuid::max())]].concat();
    let found = store.deliveries_by_id(&scene.principal, project, &asked).await.unwrap();
    assert_eq!(found.iter().map(|delivery| delivery.id).collect::<Vec<_>>(), deliveries);
    let attempt = exchange(&ended.deliveries[0], 1, 200);
    let found = store.attempts_by_id(&scene.principal, project, &[attempt, attempt]).await.unwrap();
    assert_eq!(found.iter().map(|attempt| attempt.id).collect::<Vec<_>>(), [attempt]);
    assert!(store.events_by_id(scene.world.holder(), project, &[]).await.unwrap().is_empty());
    assert!(store.deliveries_by_id(&scene.principal, project, &[]).await.unwrap().is_empty());
}

async fn nobody_gets_what_is_not_theirs(world: World) {
    let scene = Scene::of(world).await;
    let (store, project) = (&scene.world.store, scene.world.project);
    let event = scene.accept(5, &[scene.endpoint, scene.owned]).await;
    let deliveries: Vec<DeliveryId> = event.deliveries.iter().map(|delivery| delivery.id).collect();
    let mut attempts = Vec::new();
    for delivery in &event.deliveries {
        scene.deliver(delivery).await;
        attempts.push(exchange(delivery, 1, 200));
    }
    let other = ProjectId::new(Timestamp(0), 99);
    assert!(
        store
            .events_by_id(scene.world.holder(), other, &[event.event.id])
            .await
            .unwrap()
            .is_empty()
    );
    assert!(store.deliveries_by_id(&scene.principal, other, &deliveries).await.unwrap().is_empty());
    assert!(store.attempts_by_id(&scene.principal, other, &attempts).await.unwrap().is_empty());
    let own = store.deliveries_by_id(&scene.owner(), project, &deliveries).await.unwrap();
    assert_eq!(own.iter().map(|delivery| delivery.endpoint).collect::<Vec<_>>(), [scene.owned]);
    let own = store.attempts_by_id(&scene.owner(), project, &attempts).await.unwrap();
    assert_eq!(own.iter().map(|attempt| attempt.endpoint).collect::<Vec<_>>(), [scene.owned]);
    store.reads_all_events(&scene.principal, project).await.unwrap();
    for outsider in [scene.owner(), scene.outsider()] {
        assert_eq!(
            store.reads_all_events(&outsider, project).await.unwrap_err().reason,
            Reason::NotFound
        );
    }
}
