//! Erasing payloads, immediately and by age.

use std::time::Duration;

use outrider_model::{PageRequest, ProjectSpec, Reason};

use crate::{
    AttemptFilter, EventFilter, NewEvent, Progress,
    testing::{
        backends::with_granted_rights_too,
        scene::Scene,
        world::{SUCCESS, World, attempted, exchange},
    },
};

with_granted_rights_too! {
    one_is_erased_at_once
    what_is_pending_is_not_erased
    who_is_bound_to_an_owner_erases_nothing
    those_of_a_project_are_erased_by_age
    what_comes_below_the_mark_is_erased_by_the_next_sweep
    a_clock_that_goes_back_leaves_no_payloads
    looking_again_takes_bounded_steps
    what_was_held_is_erased_when_it_ended
    replays_and_their_answers_count
}

const HOUR: Duration = Duration::from_secs(3_600);

async fn body(scene: &Scene, new: &NewEvent, delivery: usize) -> Vec<u8> {
    let delivery = &new.deliveries[delivery];
    let id = exchange(delivery, 1, 200);
    scene
        .world
        .store
        .get_attempt(&scene.principal, scene.world.project, id)
        .await
        .unwrap()
        .response_body
}

async fn is_erased(scene: &Scene, new: &NewEvent) -> bool {
    let (event, payload) = scene
        .world
        .store
        .get_event(&scene.principal, scene.world.project, new.event.id)
        .await
        .unwrap();
    assert_eq!(payload.is_empty(), event.payload_erased_at.is_some());
    assert_eq!(event.payload_size, new.event.payload_size);
    let known = scene.world.ledger.payloads(&[new.event.id]).await.unwrap();
    assert_eq!(known, [(!payload.is_empty()).then(|| new.payload.clone())]);
    payload.is_empty()
}

async fn one_is_erased_at_once(world: World) {
    let scene = Scene::of(world).await;
    let (project, store) = (scene.world.project, &scene.world.store);
    let new = scene.accept(5, &[scene.endpoint, scene.owned]).await;
    let other = scene.accept(5, &[scene.endpoint]).await;
    for delivery in new.deliveries.iter().chain(&other.deliveries) {
        scene.deliver(delivery).await;
    }
    assert!(!body(&scene, &new, 0).await.is_empty());
    let (event, now) = store.erase_payload(&scene.principal, project, new.event.id).await.unwrap();
    assert!(now && event.payload_erased_at.is_some());
    assert!(is_erased(&scene, &new).await && !is_erased(&scene, &other).await);
    assert!(body(&scene, &new, 0).await.is_empty() && body(&scene, &new, 1).await.is_empty());
    assert!(!body(&scene, &other, 0).await.is_empty());
    let (again, now) = store.erase_payload(&scene.principal, project, new.event.id).await.unwrap();
    assert_eq!((again.payload_erased_at, now), (event.payload_erased_at, false));
    let refused =
        store.retry_delivery(&scene.principal, project, new.deliveries[0].id).await.unwrap_err();
    assert_eq!(refused.reason, Reason::PayloadErased);
    let page = PageRequest { size: 10, from: None };
    let listed =
        store.list_events(&scene.principal, project, &EventFilter::default(), page).await.unwrap();
    assert_eq!(listed.items.iter().filter(|event| event.payload_erased_at.is_some()).count(), 1);
    let attempts = store
        .list_attempts(
            &scene.principal,
            project,
            &AttemptFilter::default(),
            PageRequest { size: 500, from: None },
        )
        .await
        .unwrap();
    assert_eq!(attempts.items.len(), 3);
}

async fn what_is_pending_is_not_erased(world: World) {
    let scene = Scene::of(world).await;
    let (project, store) = (scene.world.project, &scene.world.store);
    let new = scene.accept(5, &[scene.endpoint, scene.owned]).await;
    scene.deliver(&new.deliveries[0]).await;
    let refused = store.erase_payload(&scene.principal, project, new.event.id).await.unwrap_err();
    assert_eq!(refused.reason, Reason::DeliveriesPending);
    assert!(!is_erased(&scene, &new).await && !body(&scene, &new, 0).await.is_empty());
    scene.fail(&new.deliveries[1]).await;
    let replay =
        store.retry_delivery(&scene.principal, project, new.deliveries[1].id).await.unwrap();
    let refused = store.erase_payload(&scene.principal, project, new.event.id).await.unwrap_err();
    assert_eq!((refused.reason, replay.replay_number), (Reason::DeliveriesPending, 1));
}

async fn who_is_bound_to_an_owner_erases_nothing(world: World) {
    let scene = Scene::of(world).await;
    let (project, store) = (scene.world.project, &scene.world.store);
    let new = scene.accept(5, &[scene.owned]).await;
    scene.deliver(&new.deliveries[0]).await;
    for (who, reason) in
        [(scene.owner(), Reason::BeyondOwnScope), (scene.outsider(), Reason::NotFound)]
    {
        assert_eq!(
            store.erase_payload(&who, project, new.event.id).await.unwrap_err().reason,
            reason
        );
    }
    let elsewhere = outrider_model::EventId::new(scene.world.now, 999);
    assert_eq!(
        store.erase_payload(&scene.principal, project, elsewhere).await.unwrap_err().reason,
        Reason::NotFound
    );
    assert!(!is_erased(&scene, &new).await);
}

async fn those_of_a_project_are_erased_by_age(world: World) {
    let scene = Scene::of(world).await;
    let (project, store) = (scene.world.project, &scene.world.store);
    assert!(store.payload_retentions(None, 10).await.unwrap().is_empty());
    let change = |spec: &mut ProjectSpec| spec.payload_retention = Some(HOUR);
    let changed = store.update_project(&scene.principal, project, change).await.unwrap();
    assert_eq!(changed.spec.payload_retention, Some(HOUR));
    assert_eq!(store.payload_retentions(None, 10).await.unwrap(), [(project, HOUR)]);
    assert!(store.payload_retentions(Some(project), 10).await.unwrap().is_empty());
    let old = scene.accept(7_000, &[scene.endpoint]).await;
    let unrouted = scene.accept(6_000, &[]).await;
    let new = scene.accept(5, &[scene.endpoint]).await;
    scene.deliver(&old.deliveries[0]).await;
    scene.deliver(&new.deliveries[0]).await;
    let before = scene.world.now.minus(HOUR);
    let step = store.erase_old_payloads(project, before, None).await.unwrap();
    assert_eq!((step.payloads, step.progress), (2, Progress::Done));
    assert!(
        is_erased(&scene, &old).await
            && is_erased(&scene, &unrouted).await
            && !is_erased(&scene, &new).await
    );
    assert!(body(&scene, &old, 0).await.is_empty() && !body(&scene, &new, 0).await.is_empty());
    assert_eq!(store.erase_old_payloads(project, before, None).await.unwrap().payloads, 0);
    let later = scene.world.now.plus(HOUR);
    assert_eq!(store.erase_old_payloads(project, later, None).await.unwrap().payloads, 1);
    let change = |spec: &mut ProjectSpec| spec.payload_retention = None;
    let changed = store.update_project(&scene.principal, project, change).await.unwrap();
    assert_eq!(changed.spec.payload_retention, None);
}

/// As if it waited long for its commit.
async fn what_comes_below_the_mark_is_erased_by_the_next_sweep(world: World) {
    let scene = Scene::of(world).await;
    let (project, store) = (scene.world.project, &scene.world.store);
    let before = scene.world.now.minus(HOUR);
    scene.accept(3_700, &[]).await;
    assert_eq!(store.erase_old_payloads(project, before, None).await.unwrap().payloads, 1);
    let late = scene.accept(3_800, &[]).await;
    assert_eq!(store.erase_old_payloads(project, before, None).await.unwrap().payloads, 0);
    let step = store.erase_old_payloads(project, before, Some(before.minus(HOUR))).await.unwrap();
    assert_eq!((step.payloads, step.progress), (1, Progress::Done));
    assert!(is_erased(&scene, &late).await);
}

async fn a_clock_that_goes_back_leaves_no_payloads(world: World) {
    let scene = Scene::of(world).await;
    let (project, store, now) = (scene.world.project, &scene.world.store, scene.world.now);
    assert_eq!(
        store.erase_old_payloads(project, now.plus(HOUR), Some(now)).await.unwrap().progress,
        Progress::Done
    );
    // The clock went back by an hour.
    let new = scene.accept(0, &[]).await;
    let sweep = async |before| {
        store
            .erase_old_payloads(project, before, Some(before.minus(HOUR / 4)))
            .await
            .unwrap()
            .payloads
    };
    assert_eq!(sweep(now.minus(HOUR / 6)).await, 0);
    assert_eq!(sweep(now.plus(HOUR / 2)).await, 1);
    assert!(is_erased(&scene, &new).await);
}

async fn looking_again_takes_bounded_steps(world: World) {
    let scene = Scene::of(world).await;
    let (project, store) = (scene.world.project, &scene.world.store);
    let before = scene.world.now.minus(HOUR);
    let batch: Vec<_> = (0..5_100).map(|_| scene.world.event_at(before.minus(HOUR))).collect();
    for batch in batch.chunks(1_000) {
        scene.world.ledger.accept(batch, scene.world.keys_since()).await.unwrap();
    }
    scene.world.execute("UPDATE events SET payload_erased_at = 1").await;
    let late = scene.accept(3_700, &[]).await;
    for again in [None, Some(before.minus(HOUR * 2))] {
        let first = store.erase_old_payloads(project, before, again).await.unwrap();
        assert_eq!((first.payloads, first.progress), (0, Progress::More));
        let second = store.erase_old_payloads(project, before, None).await.unwrap();
        assert_eq!(
            (second.payloads, second.progress),
            (u64::from(again.is_none()), Progress::Done)
        );
    }
    assert!(is_erased(&scene, &late).await);
}

async fn what_was_held_is_erased_when_it_ended(world: World) {
    let scene = Scene::of(world).await;
    let (project, store) = (scene.world.project, &scene.world.store);
    let held = scene.accept(7_000, &[scene.endpoint]).await;
    let free = scene.accept(6_000, &[scene.endpoint]).await;
    scene.deliver(&free.deliveries[0]).await;
    let before = scene.world.now.minus(HOUR);
    assert_eq!(store.erase_old_payloads(project, before, None).await.unwrap().payloads, 1);
    assert!(!is_erased(&scene, &held).await && is_erased(&scene, &free).await);
    assert_eq!(store.erase_held_payloads(project, before, None).await.unwrap().0.payloads, 0);
    scene.deliver(&held.deliveries[0]).await;
    // Noted events are not examined again.
    assert_eq!(
        store.erase_old_payloads(project, before, Some(before.minus(HOUR))).await.unwrap().payloads,
        0
    );
    // The project keeps payloads for longer now.
    let longer = scene.world.now.minus(HOUR * 3);
    assert_eq!(store.erase_held_payloads(project, longer, None).await.unwrap().0.payloads, 0);
    let (step, next) = store.erase_held_payloads(project, before, None).await.unwrap();
    assert_eq!((step.payloads, next), (1, None));
    assert!(is_erased(&scene, &held).await);
    assert_eq!(scene.world.rows("payload_holds").await, 0);
}

async fn replays_and_their_answers_count(world: World) {
    let scene = Scene::of(world).await;
    let (project, store) = (scene.world.project, &scene.world.store);
    let new = scene.accept(7_000, &[scene.endpoint]).await;
    scene.fail(&new.deliveries[0]).await;
    let replay =
        store.retry_delivery(&scene.principal, project, new.deliveries[0].id).await.unwrap();
    let before = scene.world.now.minus(HOUR);
    assert_eq!(store.erase_old_payloads(project, before, None).await.unwrap().payloads, 0);
    let pending = outrider_model::PendingDelivery {
        id: replay.id,
        replay_number: 1,
        ..new.deliveries[0].clone()
    };
    assert_eq!(
        scene.world.ledger.settle(&[attempted(&pending, 1, SUCCESS, 200)]).await.unwrap(),
        [true]
    );
    assert_eq!(store.erase_held_payloads(project, before, None).await.unwrap().0.payloads, 1);
    assert_eq!(
        scene.world.number("SELECT count(*) FROM attempts WHERE length(response_body) > 0").await,
        0
    );
    assert_eq!(scene.world.rows("attempts").await, 2);
}
