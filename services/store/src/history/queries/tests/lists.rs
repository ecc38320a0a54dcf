//! Lists, single objects, and who may see them.

use std::time::Duration;

use outrider_model::{
    AttemptOutcome, Delivery, DeliveryId, DeliveryReason, DeliveryStatus, EndpointState, EventId,
    Page, PageRequest, Reason, Timestamp, Verdict, page::AttemptPosition,
};

use crate::{
    AttemptFilter, DeliveryFilter, EventFilter,
    testing::{
        backends::on_both_backends,
        scene::Scene,
        world::{SUCCESS, World, attempted, route},
    },
};

on_both_backends! {
    events_come_back_as_they_were
    events_are_listed_newest_first
    deliveries_are_one_list_forth_and_back
    deliveries_are_filtered
    pending_deliveries_say_why
    attempts_come_back_as_they_were
    attempts_are_listed_by_their_start_and_those_of_a_delivery_by_number
    strangers_and_owners_see_their_own
}

const ALL: PageRequest = PageRequest { size: 500, from: None };
const ALL_ATTEMPTS: PageRequest<AttemptPosition> = PageRequest { size: 500, from: None };

async fn events_come_back_as_they_were(world: World) {
    let scene = Scene::of(world).await;
    let (world, store) = (&scene.world, &scene.world.store);
    let mut new = world.keyed(world.now, "key", 1);
    new.event.ordering_key = Some("o".to_owned());
    new.event.deliver_at = Some(world.now.plus(Duration::from_secs(9)));
    new.event.metadata.insert("m".to_owned(), "\u{e9}\"".to_owned());
    new.payload = vec![0, 255, b'{'].into();
    new.event.payload_size = 3;
    world.ledger.accept(std::slice::from_ref(&new), world.keys_since()).await.unwrap();
    let (event, payload) =
        store.get_event(&scene.principal, world.project, new.event.id).await.unwrap();
    assert_eq!((event, payload), (new.event.clone(), new.payload));
    let listed = store
        .list_events(&scene.principal, world.project, &EventFilter::default(), ALL)
        .await
        .unwrap();
    assert_eq!(listed.items, [new.event]);
    let missing = store
        .get_event(&scene.principal, world.project, EventId::new(world.now, 999))
        .await
        .unwrap_err();
    assert_eq!(missing.reason, Reason::NotFound);
}

async fn events_are_listed_newest_first(world: World) {
    let scene = Scene::of(world).await;
    let (world, store) = (&scene.world, &scene.world.store);
    let mut ids = Vec::new();
    for seconds_ago in 0..7 {
        let mut new = world.event_at(world.now.minus(Duration::from_secs(seconds_ago)));
        new.event.event_type = if seconds_ago % 2 == 0 { "even" } else { "odd" }.to_owned();
        ids.push(new.event.id);
        world.ledger.accept(&[new], world.keys_since()).await.unwrap();
    }
    let list = async |filter: EventFilter, page| {
        let page = store.list_events(&scene.principal, world.project, &filter, page).await.unwrap();
        (page.items.iter().map(|event| event.id).collect::<Vec<_>>(), page.next, page.previous)
    };
    let (first, next, previous) =
        list(EventFilter::default(), PageRequest { size: 3, from: None }).await;
    assert_eq!((first.as_slice(), previous), (&ids[..3], None));
    let (second, next, previous) =
        list(EventFilter::default(), PageRequest { size: 3, from: next }).await;
    assert_eq!(second, ids[3..6]);
    let (third, end, _) = list(EventFilter::default(), PageRequest { size: 3, from: next }).await;
    assert_eq!((third.as_slice(), end), (&ids[6..], None));
    let (back, _, start) =
        list(EventFilter::default(), PageRequest { size: 3, from: previous }).await;
    assert_eq!((back.as_slice(), start), (&ids[..3], None));
    let odd = EventFilter { event_type: Some("odd".to_owned()), ..EventFilter::default() };
    assert_eq!(list(odd, ALL).await.0, [ids[1], ids[3], ids[5]]);
    let start = Some(world.now.minus(Duration::from_secs(4)));
    let window =
        EventFilter { start, end: Some(world.now.minus(Duration::from_secs(1))), event_type: None };
    assert_eq!(list(window, ALL).await.0, ids[2..=4], "from the start on, before the end");
}

/// The pages from the start to the end, and the same pages backwards.
async fn walk(scene: &Scene, filter: &DeliveryFilter, size: u32) -> Vec<DeliveryId> {
    let page = async |from| -> Page<Delivery> {
        let request = PageRequest { size, from };
        scene
            .world
            .store
            .list_deliveries(&scene.principal, scene.world.project, filter, request)
            .await
            .unwrap()
    };
    let ids =
        |page: &Page<Delivery>| page.items.iter().map(|delivery| delivery.id).collect::<Vec<_>>();
    let mut pages = vec![page(None).await];
    while let Some(next) = pages.last().unwrap().next {
        pages.push(page(Some(next)).await);
    }
    for index in (0..pages.len() - 1).rev() {
        let back = page(pages[index + 1].previous).await;
        assert_eq!(ids(&back), ids(&pages[index]), "page {index} from behind");
        assert_eq!(back.previous.is_none(), index == 0);
    }
    pages.iter().flat_map(ids).collect()
}

async fn deliveries_are_one_list_forth_and_back(world: World) {
    let scene = Scene::of(world).await;
    let mut expected = Vec::new();
    for seconds_ago in 0..9 {
        let new = scene.accept(seconds_ago, &[scene.endpoint, scene.owned]).await;
        // Of four deliveries, the third was delivered and the fourth has failed.
        for (index, delivery) in new.deliveries.iter().enumerate() {
            match (seconds_ago as usize * 2 + index) % 4 {
                2 => scene.deliver(delivery).await,
                3 => scene.fail(delivery).await,
                _ => delivery.id,
            };
            expected.push(delivery.id);
        }
    }
    expected.sort_by_key(|id| std::cmp::Reverse(*id));
    for size in [1, 4, 7, 18, 500] {
        assert_eq!(
            walk(&scene, &DeliveryFilter::default(), size).await,
            expected,
            "pages of {size}"
        );
    }
}

async fn deliveries_are_filtered(world: World) {
    let scene = Scene::of(world).await;
    let (endpoint, owned) = (scene.endpoint, scene.owned);
    let old = scene.accept(60, &[endpoint, owned]).await;
    let new = scene.accept(5, &[endpoint, owned]).await;
    let delivered = scene.deliver(&old.deliveries[0]).await;
    let failed = scene.fail(&old.deliveries[1]).await;
    let pending: Vec<DeliveryId> = new.deliveries.iter().map(|delivery| delivery.id).collect();
    let find = async |filter: DeliveryFilter| {
        let mut found = walk(&scene, &filter, 1).await;
        found.sort();
        found
    };
    let sorted = |mut ids: Vec<DeliveryId>| {
        ids.sort();
        ids
    };
    let any = DeliveryFilter::default;
    assert_eq!(
        find(DeliveryFilter { event: Some(old.event.id), ..any() }).await,
        sorted(vec![delivered, failed])
    );
    assert_eq!(
        find(DeliveryFilter { endpoint: Some(endpoint), ..any() }).await,
        sorted(vec![delivered, pending[0]])
    );
    assert_eq!(
        find(DeliveryFilter { status: Some(DeliveryStatus::Failed), ..any() }).await,
        [failed]
    );
    assert_eq!(
        find(DeliveryFilter { status: Some(DeliveryStatus::Delivered), ..any() }).await,
        [delivered]
    );
    assert_eq!(
        find(DeliveryFilter { status: Some(DeliveryStatus::Pending), ..any() }).await,
        sorted(pending.clone())
    );
    assert_eq!(find(DeliveryFilter { event_type: Some("other".to_owned()), ..any() }).await, []);
    let end = Some(scene.world.now.minus(Duration::from_secs(5)));
    assert_eq!(find(DeliveryFilter { end, ..any() }).await, sorted(vec![delivered, failed]));
    assert_eq!(
        find(DeliveryFilter { start: end, endpoint: Some(owned), ..any() }).await,
        [pending[1]]
    );
}

async fn pending_deliveries_say_why(world: World) {
    let scene = Scene::of(world).await;
    let (world, store) = (&scene.world, &scene.world.store);
    let paused = scene.new_endpoint(None, EndpointState::Paused).await;
    let mut new = world.event_at(world.now);
    for endpoint in [scene.endpoint, scene.owned, paused] {
        route(&mut new, endpoint, None);
    }
    new.deliveries[1].due_at = world.now.plus(Duration::from_secs(600));
    world.ledger.accept(std::slice::from_ref(&new), world.keys_since()).await.unwrap();
    let get = async |index: usize| {
        store.get_delivery(&scene.principal, world.project, new.deliveries[index].id).await.unwrap()
    };
    assert_eq!(get(0).await.reason, DeliveryReason::Due);
    assert_eq!(get(1).await.reason, DeliveryReason::Scheduled);
    assert_eq!(get(2).await.reason, DeliveryReason::EndpointPaused);
    let later = world.now.plus(Duration::from_secs(900));
    world
        .ledger
        .settle(&[attempted(&new.deliveries[0], 1, Verdict::Retry(later), 503)])
        .await
        .unwrap();
    let retrying = get(0).await;
    assert_eq!(
        (retrying.reason, retrying.status),
        (DeliveryReason::Retrying, DeliveryStatus::Pending)
    );
    assert_eq!((retrying.attempt_count, retrying.last_status_code), (1, Some(503)));
    assert_eq!((retrying.next_attempt_at, retrying.finished_at), (Some(later), None));
    scene.deliver(&new.deliveries[1]).await;
    let delivered = get(1).await;
    assert_eq!((delivered.reason, delivered.attempt_count), (DeliveryReason::Succeeded, 1));
    assert_eq!(
        (delivered.next_attempt_at, delivered.subscriptions),
        (None, new.deliveries[1].subscriptions.clone())
    );
    assert_eq!(delivered.finished_at, Some(new.deliveries[1].due_at.plus(Duration::from_secs(1))));
}

async fn attempts_come_back_as_they_were(world: World) {
    let scene = Scene::of(world).await;
    let (world, store) = (&scene.world, &scene.world.store);
    let new = scene.accept(3, &[scene.endpoint, scene.owned]).await;
    let first = attempted(&new.deliveries[0], 1, Verdict::Retry(world.now), 503);
    let second = attempted(&new.deliveries[0], 2, SUCCESS, 200);
    let other = attempted(&new.deliveries[1], 1, SUCCESS, 200);
    for report in [&first, &second, &other] {
        assert_eq!(world.ledger.settle(std::slice::from_ref(report)).await.unwrap(), [true]);
    }
    let (first, second, other) =
        (first.record.unwrap(), second.record.unwrap(), other.record.unwrap());
    let got = store.get_attempt(&scene.principal, world.project, first.id).await.unwrap();
    assert_eq!(got, first);
    let find =
        async |filter: AttemptFilter| {
            let page = store
                .list_attempts(&scene.principal, world.project, &filter, ALL_ATTEMPTS)
                .await
                .unwrap();
            assert!(
                page.items.iter().all(|attempt| attempt.response_body.is_empty()
                    && attempt.response_headers.is_empty())
            );
            page.items.into_iter().map(|attempt| attempt.id).collect::<Vec<_>>()
        };
    let any = AttemptFilter::default;
    // The second attempt began a minute after both first ones. Of these, the one with the answer
    // 503 began 303 microseconds later.
    assert_eq!(find(any()).await, [second.id, first.id, other.id]);
    assert_eq!(
        find(AttemptFilter { delivery: Some(new.deliveries[0].id), ..any() }).await,
        [second.id, first.id]
    );
    assert_eq!(find(AttemptFilter { endpoint: Some(scene.owned), ..any() }).await, [other.id]);
    assert_eq!(
        find(AttemptFilter { outcome: Some(AttemptOutcome::Rejected), ..any() }).await,
        [first.id]
    );
    assert_eq!(
        find(AttemptFilter { outcome: Some(AttemptOutcome::Succeeded), ..any() }).await,
        [second.id, other.id]
    );
    let of_first = AttemptFilter { delivery: Some(new.deliveries[0].id), ..any() };
    assert_eq!(find(AttemptFilter { endpoint: Some(scene.owned), ..of_first }).await, []);
    assert_eq!(
        find(AttemptFilter { outcome: Some(AttemptOutcome::Rejected), ..of_first }).await,
        [first.id]
    );
}

async fn attempts_are_listed_by_their_start_and_those_of_a_delivery_by_number(world: World) {
    let scene = Scene::of(world).await;
    let (world, store) = (&scene.world, &scene.world.store);
    // There are four events. Attempts of an older one continue after those of a younger one have
    // begun.
    let mut expected = Vec::new();
    for minutes in [3, 2, 1, 0] {
        let new = scene.accept(60 * minutes, &[scene.endpoint]).await;
        for attempt in 1..=4 {
            let report = attempted(&new.deliveries[0], attempt, Verdict::Retry(world.now), 500);
            assert_eq!(world.ledger.settle(std::slice::from_ref(&report)).await.unwrap(), [true]);
            let record = report.record.unwrap();
            expected.push((record.started_at, record.id, record.delivery, record.number));
        }
    }
    expected.sort_unstable_by_key(|attempt| std::cmp::Reverse((attempt.0, attempt.1)));
    let list = async |filter: &AttemptFilter, page: PageRequest<AttemptPosition>| {
        let page =
            store.list_attempts(&scene.principal, world.project, filter, page).await.unwrap();
        let seen = |attempt: &outrider_model::Attempt| {
            (attempt.started_at, attempt.id, attempt.delivery, attempt.number)
        };
        (page.items.iter().map(seen).collect::<Vec<_>>(), page.next, page.previous)
    };
    let walk = async |filter: AttemptFilter| {
        let mut pages = vec![list(&filter, PageRequest { size: 3, from: None }).await];
        while let Some(next) = pages.last().unwrap().1 {
            pages.push(list(&filter, PageRequest { size: 3, from: Some(next) }).await);
        }
        for at in (1..pages.len()).rev() {
            let back = list(&filter, PageRequest { size: 3, from: pages[at].2 }).await;
            assert_eq!(back.0, pages[at - 1].0, "back from page {at}");
        }
        pages.into_iter().flat_map(|page| page.0).collect::<Vec<_>>()
    };
    let any = AttemptFilter::default;
    assert_eq!(walk(any()).await, expected);
    assert_eq!(walk(AttemptFilter { endpoint: Some(scene.endpoint), ..any() }).await, expected);
    assert_eq!(
        walk(AttemptFilter { outcome: Some(AttemptOutcome::Rejected), ..any() }).await,
        expected
    );
    // Times are compared with those of the attempts, to the microsecond: from one of them on and
    // before another.
    let (end, start) = (expected[2].0, expected[9].0);
    let between: Vec<_> =
        expected.iter().filter(|attempt| (start..end).contains(&attempt.0)).copied().collect();
    assert!(between.len() >= 4, "{between:?}");
    assert_eq!(walk(AttemptFilter { start: Some(start), end: Some(end), ..any() }).await, between);
    // The attempts of one delivery, whatever their start times.
    let delivery = expected[15].2;
    let own: Vec<_> = expected.iter().filter(|attempt| attempt.2 == delivery).copied().collect();
    assert_eq!(own.iter().map(|attempt| attempt.3).collect::<Vec<_>>(), [4, 3, 2, 1]);
    let of_delivery = AttemptFilter { delivery: Some(delivery), ..any() };
    assert_eq!(walk(of_delivery.clone()).await, own);
    let last = AttemptFilter { start: Some(own[0].0), ..of_delivery };
    assert_eq!(walk(last).await, own[..1]);
    let before_all = AttemptFilter { end: Some(Timestamp(0)), ..any() };
    assert_eq!(walk(before_all).await, []);
}

async fn strangers_and_owners_see_their_own(world: World) {
    let scene = Scene::of(world).await;
    let (project, store) = (scene.world.project, &scene.world.store);
    let both = scene.accept(9, &[scene.endpoint, scene.owned]).await;
    let foreign = scene.accept(8, &[scene.endpoint]).await;
    scene.deliver(&both.deliveries[0]).await;
    scene.deliver(&both.deliveries[1]).await;
    let attempt = attempted(&both.deliveries[0], 1, SUCCESS, 200).record.unwrap().id;
    let outsider = scene.outsider();
    let bound = outrider_model::Principal {
        project: Some(outrider_model::ProjectId::new(scene.world.now, 5)),
        ..scene.principal.clone()
    };
    for nobody in [&outsider, &bound] {
        let reasons = [
            store.get_event(nobody, project, both.event.id).await.err(),
            store.list_events(nobody, project, &EventFilter::default(), ALL).await.err(),
            store.get_delivery(nobody, project, both.deliveries[0].id).await.err(),
            store.list_deliveries(nobody, project, &DeliveryFilter::default(), ALL).await.err(),
            store.get_attempt(nobody, project, attempt).await.err(),
            store
                .list_attempts(nobody, project, &AttemptFilter::default(), ALL_ATTEMPTS)
                .await
                .err(),
            store.retry_delivery(nobody, project, both.deliveries[0].id).await.err(),
        ];
        assert!(
            reasons
                .iter()
                .all(|error| error.as_ref().is_some_and(|error| error.reason == Reason::NotFound)),
            "{reasons:?}"
        );
    }
    let owner = scene.owner();
    let deliveries = store
        .list_deliveries(&owner, project, &DeliveryFilter::default(), ALL)
        .await
        .unwrap()
        .items;
    assert_eq!(
        deliveries.iter().map(|delivery| delivery.id).collect::<Vec<_>>(),
        [both.deliveries[1].id]
    );
    let attempts = store
        .list_attempts(&owner, project, &AttemptFilter::default(), ALL_ATTEMPTS)
        .await
        .unwrap()
        .items;
    assert!(attempts.len() == 1 && attempts[0].endpoint == scene.owned);
    assert!(store.get_event(&owner, project, both.event.id).await.is_ok());
    let hidden = [
        store.get_event(&owner, project, foreign.event.id).await.err(),
        store.list_events(&owner, project, &EventFilter::default(), ALL).await.err(),
        store.get_delivery(&owner, project, both.deliveries[0].id).await.err(),
        store.get_attempt(&owner, project, attempt).await.err(),
        store.retry_delivery(&owner, project, both.deliveries[0].id).await.err(),
    ];
    assert!(
        hidden
            .iter()
            .all(|error| error.as_ref().is_some_and(|error| error.reason == Reason::NotFound)),
        "{hidden:?}"
    );
    store.delete_endpoint(&scene.principal, project, scene.owned).await.unwrap();
    assert!(
        store.get_delivery(&owner, project, both.deliveries[1].id).await.is_ok(),
        "the history stays the owner's"
    );
    store.delete_project(&scene.principal, project).await.unwrap();
    let gone =
        store.get_delivery(&scene.principal, project, both.deliveries[1].id).await.unwrap_err();
    assert_eq!(gone.reason, Reason::NotFound);
}
