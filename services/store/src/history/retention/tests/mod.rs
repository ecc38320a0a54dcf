//! Days that are dropped and days that are held, on both backends.

mod one_backend;
mod owner;
mod payloads;

use std::{sync::Arc, time::Duration};

use outrider_migrations::partitions::{LEDGER, of_day};
use outrider_model::{DeliveryId, EventId, ProjectSpec, Reason, Timestamp};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{DeletedRows, Progress};
use crate::{
    Backend, Directory, DirectoryOptions, NewEvent, Store,
    days::{DAY_MICROS, day_of},
    testing::{
        backends::on_both_backends,
        scene::Scene,
        world::{SUCCESS, World, attempted, route},
    },
};

on_both_backends! {
    a_day_goes_when_all_of_it_is_older
    a_pending_delivery_holds_its_day_and_no_other
    a_pending_replay_holds_the_day_of_its_event
    a_replay_goes_before_its_event
    what_is_gone_is_not_found_and_not_retried
    keys_go_with_their_days
    changes_go_but_the_last
    nothing_pending_is_ever_deleted
    a_late_report_of_a_gone_day_holds_up_no_other
}

const DAY: Duration = Duration::from_secs(86_400);

/// Noon, this many days ago: far from midnight.
fn days_ago(world: &World, days: u32) -> Timestamp {
    Timestamp(i64::from(day_of(world.now.minus(DAY * days))) * DAY_MICROS + DAY_MICROS / 2)
}

async fn make_day(world: &World, at: Timestamp) {
    if world.store.backend() == Backend::Postgres {
        for partition in of_day(&LEDGER, day_of(at).into()) {
            let exists =
                format!("SELECT count(*) FROM pg_class WHERE relname = '{}'", partition.name);
            if world.number(&exists).await == 0 {
                for statement in &partition.statements {
                    world.execute(statement).await;
                }
            }
        }
    }
}

/// Accepts an event of this time with a pending delivery.
async fn pending(world: &World, at: Timestamp) -> NewEvent {
    make_day(world, at).await;
    let mut new = world.event_at(at);
    route(&mut new, world.endpoint, None);
    world.ledger.accept(std::slice::from_ref(&new), world.keys_since()).await.unwrap();
    new
}

/// The same, with a delivered delivery.
async fn delivered(world: &World, at: Timestamp) -> NewEvent {
    let new = pending(world, at).await;
    settle(world, &new).await;
    new
}

async fn settle(world: &World, new: &NewEvent) {
    assert_eq!(
        world.ledger.settle(&[attempted(&new.deliveries[0], 1, SUCCESS, 200)]).await.unwrap(),
        [true]
    );
}

/// Sweeps all days before a time. Returns the held days, and what was deleted.
async fn sweep(store: &Store, before: Timestamp) -> (Vec<i32>, Vec<DeletedRows>) {
    let (mut held, mut went) = (Vec::new(), Vec::new());
    for day in store.old_days(before).await.unwrap() {
        let is_held = store.is_day_held(day).await.unwrap();
        loop {
            let step = store.drop_day(day).await.unwrap();
            went.extend(step.gone);
            match step.progress {
                Progress::More => continue,
                Progress::Held => held.push(day),
                // A delivery is being retried at this moment.
                Progress::Blocked => {}
                Progress::Done => assert!(
                    !is_held || store.drop_day(day).await.unwrap().progress == Progress::Done
                ),
            }
            break;
        }
    }
    (held, went)
}

async fn counts(world: &World) -> [i64; 3] {
    [world.rows("events").await, world.rows("deliveries").await, world.rows("attempts").await]
}

async fn a_day_goes_when_all_of_it_is_older(world: World) {
    for days in [40, 31, 30, 3] {
        delivered(&world, days_ago(&world, days)).await;
    }
    let first_kept = day_of(days_ago(&world, 30));
    // The last moment of a day: the day 30 days ago has not ended 30 days ago, the one before it
    // has.
    let before = Timestamp(i64::from(first_kept + 1) * DAY_MICROS - 1);
    let old = world.store.old_days(before).await.unwrap();
    assert_eq!(old, [40, 31].map(|days| day_of(days_ago(&world, days))));
    assert!(!world.store.is_day_held(old[0]).await.unwrap());
    let (held, went) = sweep(&world.store, before).await;
    assert!(held.is_empty() && went.len() == 6, "{went:?}");
    assert!(went.iter().all(|gone| gone.partitions + gone.rows == 1));
    assert_eq!(counts(&world).await, [2, 2, 2]);
    assert_eq!(world.store.oldest_day().await.unwrap(), Some(first_kept));
    assert!(world.store.old_days(before).await.unwrap().is_empty());
    // A moment later the next day is dropped.
    let (_, went) = sweep(&world.store, Timestamp(before.0 + 1)).await;
    assert_eq!((went.len(), counts(&world).await), (3, [1, 1, 1]));
    // New events are accepted as before.
    delivered(&world, world.now).await;
}

async fn a_pending_delivery_holds_its_day_and_no_other(world: World) {
    let (held_at, free_at) = (days_ago(&world, 50), days_ago(&world, 45));
    delivered(&world, held_at).await;
    let waiting = pending(&world, Timestamp(held_at.0 + 1_000_000)).await;
    delivered(&world, free_at).await;
    let before = world.now.minus(DAY * 30);
    let (held, _) = sweep(&world.store, before).await;
    assert_eq!((held, counts(&world).await), (vec![day_of(held_at)], [2, 1, 1]));
    assert_eq!(world.store.old_days(before).await.unwrap(), [day_of(held_at)]);
    assert!(world.store.is_day_held(day_of(held_at)).await.unwrap());
    assert_eq!(
        world.ledger.payloads(&[waiting.event.id]).await.unwrap(),
        [Some(waiting.payload.clone())]
    );
    // The delivery ends in its day's partition, and then the day is dropped.
    settle(&world, &waiting).await;
    let (held, _) = sweep(&world.store, before).await;
    assert_eq!((held.len(), counts(&world).await), (0, [0, 0, 0]));
}

async fn a_pending_replay_holds_the_day_of_its_event(world: World) {
    let scene = Scene::of(world).await;
    let (world, store) = (&scene.world, &scene.world.store);
    let at = days_ago(world, 40);
    let new = delivered(world, at).await;
    let replay =
        store.retry_delivery(&scene.principal, world.project, new.deliveries[0].id).await.unwrap();
    let before = world.now.minus(DAY * 30);
    assert_eq!(sweep(store, before).await.0, [day_of(at)]);
    assert_eq!(counts(world).await, [1, 1, 1]);
    // The replay ends today. Its replay number stays as long as the delivery.
    let ended = crate::ledger::Settled {
        delivery: replay.id,
        ..attempted(&new.deliveries[0], 1, SUCCESS, 200)
    };
    let record = ended.record.clone().map(|record| outrider_model::Attempt {
        id: outrider_model::AttemptId::derive(replay.id, 1, 0, record.started_at),
        delivery: replay.id,
        ..record
    });
    assert_eq!(
        world.ledger.settle(&[crate::ledger::Settled { record, ..ended }]).await.unwrap(),
        [true]
    );
    let (held, _) = sweep(store, before).await;
    assert_eq!((held.len(), counts(world).await), (0, [0, 1, 1]));
    assert_eq!(world.rows("replays").await, 0, "its number went with its event");
    adds_up(store).await;
}

/// The day of a replay is dropped before that of its event, which another delivery holds.
async fn a_replay_goes_before_its_event(world: World) {
    let scene = Scene::of(world).await;
    let (world, store) = (&scene.world, &scene.world.store);
    let (old, less_old) = (days_ago(world, 50), days_ago(world, 40));
    make_day(world, less_old).await;
    pending(world, old).await;
    let new = delivered(world, old).await;
    let replay =
        store.retry_delivery(&scene.principal, world.project, new.deliveries[0].id).await.unwrap();
    // As if it had been requested ten days later.
    let later = outrider_model::DeliveryId::derive(less_old, replay.event, replay.endpoint, 1);
    for (table, column) in [("pending_deliveries", "id"), ("replays", "delivery_id")] {
        let [id, was] = [later.0, replay.id.0].map(|id| literal(world, id));
        world.execute(&format!("UPDATE {table} SET {column} = {id} WHERE {column} = {was}")).await;
    }
    let ended = crate::ledger::Settled {
        delivery: later,
        ..attempted(&new.deliveries[0], 1, SUCCESS, 200)
    };
    let record = ended.record.clone().map(|record| outrider_model::Attempt {
        id: outrider_model::AttemptId::derive(later, 1, 0, record.started_at),
        delivery: later,
        ..record
    });
    assert_eq!(
        world.ledger.settle(&[crate::ledger::Settled { record, ..ended }]).await.unwrap(),
        [true]
    );
    adds_up(store).await;
    assert_eq!(sweep(store, world.now.minus(DAY * 30)).await.0, [day_of(old)]);
    assert_eq!((counts(world).await, world.rows("replays").await), ([2, 1, 1], 0));
    adds_up(store).await;
}

/// An id as a literal in a statement.
fn literal(world: &World, id: uuid::Uuid) -> String {
    match world.store.backend() {
        crate::Backend::Postgres => format!("'{id}'"),
        crate::Backend::Sqlite => format!("x'{}'", id.simple()),
    }
}

async fn adds_up(store: &Store) {
    let audited = store.audit(crate::AuditScope::ALL).await.unwrap();
    assert_eq!(audited.findings, []);
}

async fn what_is_gone_is_not_found_and_not_retried(world: World) {
    let scene = Scene::of(world).await;
    let (world, store) = (&scene.world, &scene.world.store);
    let new = delivered(world, days_ago(world, 40)).await;
    // A delivery of another day than that of its event, like a replay.
    let replay =
        store.retry_delivery(&scene.principal, world.project, new.deliveries[0].id).await.unwrap();
    let ended = crate::ledger::Settled {
        delivery: replay.id,
        record: None,
        ..attempted(&new.deliveries[0], 1, SUCCESS, 200)
    };
    assert_eq!(world.ledger.settle(&[ended]).await.unwrap(), [true]);
    sweep(store, world.now.minus(DAY * 30)).await;
    let reason = |error: outrider_model::Error| error.reason;
    let event = store.get_event(&scene.principal, world.project, new.event.id).await;
    assert_eq!(event.map_err(reason).unwrap_err(), Reason::NotFound);
    let first = store.retry_delivery(&scene.principal, world.project, new.deliveries[0].id).await;
    assert_eq!(first.map_err(reason).unwrap_err(), Reason::NotFound);
    let second = store.retry_delivery(&scene.principal, world.project, replay.id).await;
    assert_eq!(second.map_err(reason).unwrap_err(), Reason::FailedPrecondition);
    let erased = store.erase_payload(&scene.principal, world.project, new.event.id).await;
    assert_eq!(erased.map_err(reason).unwrap_err(), Reason::NotFound);
    assert_eq!(
        (
            world.rows("pending_deliveries").await,
            world.ledger.payloads(&[new.event.id]).await.unwrap()
        ),
        (0, vec![None])
    );
}

async fn keys_go_with_their_days(world: World) {
    for (days, key) in [(9, "old"), (3, "less old"), (0, "new")] {
        let at = if days == 0 { world.now } else { days_ago(&world, days) };
        make_day(&world, at).await;
        world.ledger.accept(&[world.keyed(at, key, 1)], at.minus(DAY)).await.unwrap();
    }
    let before = world.rows("idempotency_keys").await;
    let mut went = Vec::new();
    loop {
        let step = world.store.prune_keys(world.now.minus(DAY)).await.unwrap();
        went.extend(step.gone);
        if step.progress != Progress::More {
            break;
        }
    }
    assert!(
        !went.is_empty() && went.iter().all(|gone| gone.table == "idempotency_keys"),
        "{went:?}"
    );
    assert_eq!(world.rows("idempotency_keys").await, before - 2);
    let again =
        world.ledger.accept(&[world.keyed(world.now, "new", 1)], world.keys_since()).await.unwrap();
    assert!(matches!(again[..], [crate::Accepted::Duplicate { .. }]), "{again:?}");
}

async fn changes_go_but_the_last(world: World) {
    let scene = Scene::of(world).await;
    let (world, store) = (&scene.world, &scene.world.store);
    let directory = Directory::new(store.clone(), DirectoryOptions::default());
    let name = async || {
        directory.project(&scene.principal, world.project).await.unwrap().spec.name.clone()
    };
    assert_eq!(name().await, "p");
    let last = store.last_change().await.unwrap().unwrap();
    assert!(last.seq > 3);
    assert!(store.prune_changes(world.now.minus(DAY)).await.unwrap().gone.is_empty());
    let later = store.clock().now().plus(DAY);
    let step = store.prune_changes(later).await.unwrap();
    assert_eq!((step.gone[0].rows, step.progress), (last.seq.unsigned_abs() - 1, Progress::Done));
    assert_eq!(store.changes(0, 100).await.unwrap(), std::slice::from_ref(&last));
    // Numbers continue, for a directory that had read everything and for one that had not.
    let behind = Directory::new(store.clone(), DirectoryOptions::default());
    behind.refresh().await.unwrap();
    for new in ["q", "r"] {
        let change = |spec: &mut ProjectSpec| spec.name = new.to_owned();
        store.update_project(&scene.principal, world.project, change).await.unwrap();
        directory.refresh().await.unwrap();
        assert_eq!(name().await, new);
        store.prune_changes(store.clock().now().plus(DAY)).await.unwrap();
    }
    assert_eq!(store.last_change().await.unwrap().unwrap().seq, last.seq + 2);
    behind.refresh().await.unwrap();
    assert_eq!(behind.project(&scene.principal, world.project).await.unwrap().spec.name, "r");
}

/// Random days, retries and erasures, while days are dropped and payloads are erased continuously.
async fn nothing_pending_is_ever_deleted(world: World) {
    let seed = std::env::var("OUTRIDER_TEST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(rand::random);
    eprintln!("OUTRIDER_TEST_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let scene = Arc::new(Scene::of(world).await);
    let world = &scene.world;
    let (mut ended, mut waiting): (Vec<(EventId, DeliveryId)>, usize) = (Vec::new(), 0);
    for _ in 0..60 {
        let at = Timestamp(
            days_ago(world, random.random_range(32..44)).0 + random.random_range(0..3_600_000_000),
        );
        let new = pending(world, at).await;
        if random.random_bool(0.8) {
            settle(world, &new).await;
            ended.push((new.event.id, new.deliveries[0].id));
        } else {
            waiting += 1;
        }
    }
    let sweeper = tokio::spawn({
        let scene = Arc::clone(&scene);
        let picks: Vec<EventId> =
            (0..20).map(|_| ended[random.random_range(0..ended.len())].0).collect();
        async move {
            let (store, project) = (&scene.world.store, scene.world.project);
            for event in picks {
                let _ = store.erase_payload(&scene.principal, project, event).await;
                sweep(store, scene.world.now.minus(DAY * 30)).await;
                store
                    .erase_old_payloads(project, scene.world.now.minus(DAY * 38), None)
                    .await
                    .unwrap();
            }
        }
    });
    let mut retried = 0;
    while !sweeper.is_finished() {
        let (_, delivery) = ended[random.random_range(0..ended.len())];
        match world.store.retry_delivery(&scene.principal, world.project, delivery).await {
            Ok(_) => retried += 1,
            Err(error) => {
                let expected =
                    [Reason::NotFound, Reason::FailedPrecondition, Reason::PayloadErased];
                assert!(expected.contains(&error.reason), "{error:?}");
            }
        }
    }
    sweeper.await.unwrap();
    assert_eq!(world.rows("pending_deliveries").await, i64::try_from(waiting + retried).unwrap());
    let lacking = "SELECT count(*) FROM pending_deliveries p \
        LEFT JOIN events e ON e.id = p.event_id \
        WHERE e.id IS NULL OR e.payload_erased_at IS NOT NULL
            OR length(e.payload) <> e.payload_size";
    assert_eq!(world.number(lacking).await, 0);
    // All deliveries that were pending from the start can still end.
    assert!(waiting == 0 || counts(world).await[0] > 0);
}

async fn a_late_report_of_a_gone_day_holds_up_no_other(world: World) {
    let gone = delivered(&world, days_ago(&world, 40)).await;
    sweep(&world.store, world.now.minus(DAY * 30)).await;
    let waiting = pending(&world, world.now).await;
    let mut late = attempted(&gone.deliveries[0], 2, SUCCESS, 200);
    late.at = world.now;
    let batch = [late, attempted(&waiting.deliveries[0], 1, SUCCESS, 200)];
    assert_eq!(world.ledger.settle(&batch).await.unwrap(), [false, true]);
    assert_eq!(world.rows("pending_deliveries").await, 0);
}
