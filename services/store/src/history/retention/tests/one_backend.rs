//! Days on PostgreSQL, as partitions, and days on SQLite, in chunks.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use outrider_model::{EventId, Reason};
use sea_orm::{ConnectionTrait, TransactionTrait};

use super::{DAY, adds_up, counts, days_ago, delivered, literal, pending, sweep};
use crate::{
    days::day_of,
    history::retention::{DeletedRows, Progress, sweep::begin_sweep},
    testing::{
        scene::Scene,
        world::{SUCCESS, World, attempted},
    },
};

/// A long read keeps a partition from being dropped, but blocks publishing only as long as a sweep
/// waits for a lock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_in_use_is_left_for_later() {
    let Some(world) = World::postgres().await else { return };
    let at = days_ago(&world, 40);
    delivered(&world, at).await;
    let reader = world.store.read().begin().await.unwrap();
    reader.execute_unprepared("SELECT count(*) FROM events").await.unwrap();
    let blocked = world.store.drop_day(day_of(at));
    let published = async {
        for _ in 0..20 {
            let new = world.event_at(world.store.clock().now());
            let began = std::time::Instant::now();
            world.ledger.accept(&[new], world.keys_since()).await.unwrap();
            assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
        }
    };
    let (blocked, ()) = tokio::join!(blocked, published);
    assert_eq!(blocked.unwrap().progress, Progress::Blocked);
    reader.rollback().await.unwrap();
    assert_eq!(world.rows("events").await, 21);
    let step = world.store.drop_day(day_of(at)).await.unwrap();
    assert_eq!(
        (step.gone.iter().any(|gone| gone.table == "events"), step.progress),
        (true, Progress::Done)
    );
    assert_eq!(counts(&world).await, [20, 0, 0]);
}

/// However long deleting replay numbers takes, only calls that create a replay wait, and there is
/// no deadlock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replays_go_before_anybody_waits() {
    const SLOWLY: [&str; 2] = [
        "CREATE FUNCTION slowly() RETURNS trigger \
            LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(3); RETURN NULL; END'",
        "CREATE TRIGGER slowly BEFORE DELETE ON replays FOR EACH STATEMENT \
            EXECUTE FUNCTION slowly()",
    ];
    const DELETING: &str = "SELECT count(*) FROM pg_locks WHERE relation = 'replays'::regclass \
        AND mode = 'RowExclusiveLock' \
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    let Some(world) = World::postgres().await else { return };
    let scene = Scene::of(world).await;
    let (world, store) = (&scene.world, &scene.world.store);
    let at = days_ago(world, 40);
    let new = delivered(world, at).await;
    let first = new.deliveries[0].id;
    let replay = store.retry_delivery(&scene.principal, world.project, first).await.unwrap();
    let ended = crate::ledger::Settled {
        delivery: replay.id,
        record: None,
        ..attempted(&new.deliveries[0], 1, SUCCESS, 200)
    };
    assert_eq!(world.ledger.settle(&[ended]).await.unwrap(), [true]);
    for statement in SLOWLY {
        world.execute(statement).await;
    }
    let dropped = AtomicBool::new(false);
    let dropping = async {
        let step = store.drop_day(day_of(at)).await.unwrap();
        dropped.store(true, Ordering::SeqCst);
        step
    };
    let meanwhile = async {
        while world.number(DELETING).await == 0 {
            tokio::task::yield_now().await;
        }
        pending(world, world.now).await;
        assert_eq!(world.rows("events").await, 2);
        assert!(!dropped.load(Ordering::SeqCst), "publishing and reading waited");
        store.retry_delivery(&scene.principal, world.project, first).await
    };
    let (step, retried) = tokio::join!(dropping, meanwhile);
    assert_eq!((step.progress, step.gone.len()), (Progress::Done, 4), "{step:?}");
    assert_eq!(retried.unwrap_err().reason, Reason::FailedPrecondition);
    assert_eq!((counts(world).await, world.rows("replays").await), ([1, 1, 0], 0));
}

/// Another process is sweeping.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_sweeps_at_a_time() {
    let Some(world) = World::postgres().await else { return };
    let at = days_ago(&world, 40);
    delivered(&world, at).await;
    let other = world.database.connect().await;
    let sweeping = begin_sweep(&other).await.unwrap().unwrap();
    assert_eq!(world.store.drop_day(day_of(at)).await.unwrap().progress, Progress::Blocked);
    assert_eq!(world.store.prune_changes(world.now).await.unwrap().progress, Progress::Blocked);
    sweeping.rollback().await.unwrap();
    assert_eq!(world.store.drop_day(day_of(at)).await.unwrap().gone.len(), 3);
}

/// Deleting a day on SQLite takes many small transactions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_day_goes_in_chunks() {
    let world = World::sqlite().await;
    let at = days_ago(&world, 40);
    for _ in 0..12 {
        let mut new = world.event_at(at);
        new.payload = vec![b'x'; 1024 * 1024].into();
        new.event.payload_size = 1024 * 1024;
        world.ledger.accept(&[new], world.keys_since()).await.unwrap();
    }
    let first = world.store.drop_day(day_of(at)).await.unwrap();
    let four = vec![DeletedRows { table: "events", partitions: 0, rows: 4 }];
    assert_eq!((first.gone, first.progress), (four, Progress::More), "4 MiB at once");
    adds_up(&world.store).await;
    sweep(&world.store, world.now).await;
    assert_eq!(counts(&world).await, [0, 0, 0]);
}

/// A key outlives its event, whose day is partly deleted while an older day is held.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_a_day_that_is_being_deleted_are_in_order() {
    let world = World::sqlite().await;
    let at = days_ago(&world, 40);
    pending(&world, days_ago(&world, 41)).await;
    let mut events = Vec::new();
    for key in ["a", "b", "c", "d", "e", "f"] {
        let mut new = world.keyed(at, key, 1);
        new.deliveries.clear();
        new.event.delivery_count = 0;
        new.payload = vec![b'x'; 1024 * 1024].into();
        world.ledger.accept(std::slice::from_ref(&new), at.minus(DAY)).await.unwrap();
        events.push(new.event.id);
    }
    let missing = async || {
        let audited = world.store.audit_keys(crate::AuditScope::ALL, None).await.unwrap();
        audited.findings.into_iter().map(|finding| EventId(finding.id)).collect::<Vec<_>>()
    };
    assert_eq!(world.store.drop_day(day_of(at)).await.unwrap().progress, Progress::More);
    assert_eq!((world.rows("events").await, missing().await), (3, vec![]));
    // An event that disappears after the first existing one counts as missing.
    world.execute(&format!("DELETE FROM events WHERE id = {}", literal(&world, events[5].0))).await;
    assert_eq!(missing().await, [events[5]]);
}
