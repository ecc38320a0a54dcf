//! Accepting events, and the holders of idempotency keys.

use std::{sync::Arc, time::Duration};

use outrider_model::{EndpointId, Timestamp, UsedKey};

use crate::{
    ledger::{Accepted, FoundEvent, LedgerError, NewEvent},
    testing::{
        backends::with_granted_rights_too,
        world::{DAY, EPOCH, SUCCESS, World, attempted, route},
    },
};

with_granted_rights_too! {
    an_event_and_its_deliveries_are_one
    one_key_has_one_event_however_many_claim_it
    other_content_under_a_key_is_a_conflict
    expired_keys_do_not_count
    accepted_events_are_found_by_their_keys
    two_events_of_a_batch_may_bear_one_key
    nobody_wins_on_both_sides_of_midnight
    what_the_database_refuses_leaves_nothing
    the_same_batch_again_writes_nothing
    a_large_batch_is_written_whole
    every_payload_is_stored_whole_whatever_the_sizes_beside_it
    large_batches_of_the_same_keys_do_not_deadlock
}

async fn an_event_and_its_deliveries_are_one(world: World) {
    let mut new = world.event_at(world.now);
    route(&mut new, world.endpoint, None);
    route(&mut new, EndpointId::new(world.now, 2), Some(EPOCH));
    let answers =
        world.ledger.accept(std::slice::from_ref(&new), world.keys_since()).await.unwrap();
    assert_eq!(answers, [Accepted::New]);
    assert_eq!((world.rows("events").await, world.rows("pending_deliveries").await), (1, 2));
    let payloads =
        world.ledger.payloads(&[world.event_at(world.now).event.id, new.event.id]).await.unwrap();
    assert_eq!(payloads, [None, Some(new.payload)]);
    assert_eq!(world.ledger.accept(&[], world.keys_since()).await.unwrap(), []);
}

async fn every_payload_is_stored_whole_whatever_the_sizes_beside_it(world: World) {
    // On PostgreSQL, large payloads have separate parameters, as long as one is free.
    let sizes = [10, 40_000, 32_768, 0, 32_769, 1_000_000, 7, 100_000, 50_000, 200_000, 1, 33_000];
    for part in [&sizes[..], &sizes[..2], &sizes[5..6], &sizes[..1]] {
        let mut batch: Vec<NewEvent> = part.iter().map(|_| world.event_at(world.now)).collect();
        for (index, (new, size)) in batch.iter_mut().zip(part).enumerate() {
            new.payload =
                (0..*size).map(|at| u8::try_from((at / 7 + index * 31) % 256).unwrap()).collect();
        }
        let answers = world.ledger.accept(&batch, world.keys_since()).await.unwrap();
        assert!(answers.iter().all(|answer| *answer == Accepted::New));
        let ids: Vec<_> = batch.iter().map(|new| new.event.id).collect();
        let stored = world.ledger.payloads(&ids).await.unwrap();
        let same =
            stored.iter().zip(&batch).map(|(stored, new)| stored.as_ref() == Some(&new.payload));
        assert!(same.clone().all(|same| same), "{:?}", same.collect::<Vec<_>>());
    }
}

async fn one_key_has_one_event_however_many_claim_it(world: World) {
    let world = Arc::new(world);
    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let world = Arc::clone(&world);
            tokio::spawn(async move {
                let new = world.keyed(world.now, "order-1", 1);
                (new.event.id, world.ledger.accept(&[new], world.keys_since()).await.unwrap()[0])
            })
        })
        .collect();
    let (mut winners, mut duplicates) = (Vec::new(), Vec::new());
    for task in tasks {
        match task.await.unwrap() {
            (id, Accepted::New) => winners.push(id),
            (_, Accepted::Duplicate { event, delivery_count, created_at }) => {
                assert_eq!((delivery_count, created_at), (1, world.now));
                duplicates.push(event);
            }
            (_, Accepted::Conflict) => panic!("the content was the same"),
        }
    }
    assert_eq!((winners.len(), duplicates.len()), (1, 49));
    assert!(duplicates.iter().all(|id| *id == winners[0]));
    assert_eq!((world.rows("events").await, world.rows("pending_deliveries").await), (1, 1));
}

async fn other_content_under_a_key_is_a_conflict(world: World) {
    let accept = async |new| world.ledger.accept(&[new], world.keys_since()).await.unwrap()[0];
    assert_eq!(accept(world.keyed(world.now, "order-1", 1)).await, Accepted::New);
    assert_eq!(accept(world.keyed(world.now, "order-1", 2)).await, Accepted::Conflict);
    let mut elsewhere = world.keyed(world.now, "order-1", 2);
    elsewhere.event.project = outrider_model::ProjectId::new(world.now, 99);
    assert_eq!(accept(elsewhere).await, Accepted::New);
    assert_eq!(world.rows("events").await, 2);
}

async fn expired_keys_do_not_count(world: World) {
    let yesterday = world.now.minus(DAY);
    let first = world.keyed(yesterday, "order-1", 1);
    assert_eq!(
        world.ledger.accept(std::slice::from_ref(&first), yesterday.minus(DAY)).await.unwrap(),
        [Accepted::New]
    );
    let again = world.keyed(world.now, "order-1", 1);
    let duplicate =
        Accepted::Duplicate { event: first.event.id, delivery_count: 1, created_at: yesterday };
    assert_eq!(
        world.ledger.accept(std::slice::from_ref(&again), yesterday).await.unwrap(),
        [duplicate]
    );
    assert_eq!(
        world.ledger.accept(&[again], Timestamp(yesterday.0 + 1)).await.unwrap(),
        [Accepted::New]
    );
    // An expired key of the same day is overwritten.
    let later = world.keyed(world.now.plus(Duration::from_micros(5)), "order-1", 2);
    assert_eq!(
        world.ledger.accept(&[later], Timestamp(world.now.0 + 1)).await.unwrap(),
        [Accepted::New]
    );
    assert_eq!(world.rows("events").await, 3);
}

async fn accepted_events_are_found_by_their_keys(world: World) {
    let first = world.keyed(world.now, "order-1", 1);
    let second = world.keyed(world.now, "order-2", 2);
    world
        .ledger
        .accept(&[first.clone(), second.clone(), world.event_at(world.now)], world.keys_since())
        .await
        .unwrap();
    let key = |new: &NewEvent| UsedKey {
        project: new.event.project,
        key: new.event.idempotency_key.clone().unwrap(),
        fingerprint: new.fingerprint.unwrap(),
    };
    let elsewhere =
        UsedKey { project: outrider_model::ProjectId::new(world.now, 99), ..key(&first) };
    let unused = UsedKey { key: "order-3".to_owned(), ..key(&first) };
    let other_content = UsedKey { fingerprint: [9; 32], ..key(&first) };
    let wanted = [key(&second), elsewhere, key(&first), unused, other_content, key(&second)];
    let found = world.ledger.find(&wanted, world.keys_since()).await.unwrap();
    let of = |new: &NewEvent| {
        Some(FoundEvent { event: new.event.id, delivery_count: 1, created_at: world.now })
    };
    assert_eq!(found, [of(&second), None, of(&first), None, None, of(&second)]);
    assert_eq!(world.ledger.find(&wanted[..1], Timestamp(world.now.0 + 1)).await.unwrap(), [None]);
    assert_eq!(world.ledger.find(&[], world.keys_since()).await.unwrap(), []);
    assert_eq!(world.rows("events").await, 3);
}

async fn two_events_of_a_batch_may_bear_one_key(world: World) {
    let batch = [
        world.keyed(world.now, "b", 1),
        world.keyed(world.now, "a", 1),
        world.event_at(world.now),
        world.keyed(world.now, "b", 1),
        world.keyed(world.now, "a", 2),
    ];
    let answers = world.ledger.accept(&batch, world.keys_since()).await.unwrap();
    let duplicate =
        Accepted::Duplicate { event: batch[0].event.id, delivery_count: 1, created_at: world.now };
    assert_eq!(
        answers,
        [Accepted::New, Accepted::New, Accepted::New, duplicate, Accepted::Conflict]
    );
    assert_eq!((world.rows("events").await, world.rows("pending_deliveries").await), (3, 2));
}

/// Concurrent processes whose clocks are on both sides of midnight.
async fn nobody_wins_on_both_sides_of_midnight(world: World) {
    let day = 86_400_000_000;
    let midnight = Timestamp((world.now.0 / day + 2) * day);
    let world = Arc::new(world);
    for round in 0..10 {
        // Within the overlap, and just outside of it on one side.
        let times = [-9_000_000, -11_000_000, 1, 9_000_000, 11_000_000]
            .map(|micros| Timestamp(midnight.0 + micros));
        let tasks: Vec<_> = (0..20)
            .map(|index| {
                let (world, key) = (Arc::clone(&world), format!("order-{round}"));
                tokio::spawn(async move {
                    // The pairs that the overlap must keep apart: at most ten seconds from midnight
                    // on one side.
                    let at = times[if round % 2 == 0 {
                        [0, 2, 3, 4][index % 4]
                    } else {
                        [0, 1, 2, 3][index % 4]
                    }];
                    let new = world.keyed(at, &key, 1);
                    let answer = world
                        .ledger
                        .accept(std::slice::from_ref(&new), midnight.minus(DAY))
                        .await
                        .unwrap()[0];
                    (new.event.id, answer)
                })
            })
            .collect();
        let mut holders = Vec::new();
        let mut new = 0;
        for task in tasks {
            match task.await.unwrap() {
                (id, Accepted::New) => {
                    new += 1;
                    holders.push(id);
                }
                (_, Accepted::Duplicate { event, .. }) => holders.push(event),
                (_, Accepted::Conflict) => panic!("the content was the same"),
            }
        }
        holders.sort();
        holders.dedup();
        assert_eq!((new, holders.len()), (1, 1), "round {round}");
    }
    assert_eq!(world.rows("events").await, 10);
}

async fn what_the_database_refuses_leaves_nothing(world: World) {
    let mut twice = world.keyed(world.now, "twice", 1);
    let again = twice.deliveries[0].clone();
    twice.deliveries.push(again);
    let batch = [world.keyed(world.now, "good", 1), twice];
    let refused = world.ledger.accept(&batch, world.keys_since()).await;
    assert!(matches!(refused, Err(LedgerError::Data(_))), "{refused:?}");
    for table in ["events", "pending_deliveries", "idempotency_keys"] {
        assert_eq!(world.rows(table).await, 0, "{table}");
    }
    // Alone, the good event is accepted, and its key is not taken.
    assert_eq!(
        world.ledger.accept(&batch[..1], world.keys_since()).await.unwrap(),
        [Accepted::New]
    );
    let mut nameless = world.keyed(world.now, "x", 1);
    nameless.fingerprint = None;
    assert!(matches!(
        world.ledger.accept(&[nameless], world.keys_since()).await,
        Err(LedgerError::Data(_))
    ));
}

/// As if the outcome of the first call was unknown.
async fn the_same_batch_again_writes_nothing(world: World) {
    let mut plain = world.event_at(world.now);
    route(&mut plain, world.endpoint, Some(EPOCH));
    let batch = [plain, world.keyed(world.now, "order-1", 1)];
    for _ in 0..2 {
        assert_eq!(
            world.ledger.accept(&batch, world.keys_since()).await.unwrap(),
            [Accepted::New, Accepted::New]
        );
        assert_eq!((world.rows("events").await, world.rows("pending_deliveries").await), (2, 2));
    }
    // A delivery that ended meanwhile is not made again.
    assert_eq!(
        world.ledger.settle(&[attempted(&batch[0].deliveries[0], 1, SUCCESS, 200)]).await.unwrap(),
        [true]
    );
    world.ledger.accept(&batch, world.keys_since()).await.unwrap();
    assert_eq!(world.rows("pending_deliveries").await, 1);
}

async fn a_large_batch_is_written_whole(world: World) {
    let batch: Vec<_> = (0..777)
        .map(|index| world.keyed(world.now, &format!("key-{}", index * 7 % 1_000), 1))
        .collect();
    let answers = world.ledger.accept(&batch, world.keys_since()).await.unwrap();
    assert!(answers.iter().all(|answer| *answer == Accepted::New));
    assert_eq!((world.rows("events").await, world.rows("pending_deliveries").await), (777, 777));
}

async fn large_batches_of_the_same_keys_do_not_deadlock(world: World) {
    let world = Arc::new(world);
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let world = Arc::clone(&world);
            tokio::spawn(async move {
                let mut batch: Vec<_> =
                    (0..100).map(|key| world.keyed(world.now, &format!("k{key}"), 1)).collect();
                batch.rotate_left(task * 13);
                let answers = world.ledger.accept(&batch, world.keys_since()).await.unwrap();
                answers.into_iter().filter(|answer| *answer == Accepted::New).count()
            })
        })
        .collect();
    let mut new = 0;
    for task in tasks {
        new += task.await.unwrap();
    }
    assert_eq!((new, world.rows("events").await), (100, 100));
}
