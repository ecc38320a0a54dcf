//! Applying verdicts, once.

use std::{sync::Arc, time::Duration};

use outrider_model::{DeliveryReason, DeliveryStatus, Verdict};

use crate::{
    ledger::{CancelScope, LedgerError},
    testing::{
        backends::with_granted_rights_too,
        world::{EPOCH, FAILURE, SUCCESS, World, attempted, not_attempted},
    },
};

with_granted_rights_too! {
    success_ends_a_delivery_once
    a_retry_waits_in_the_database
    late_success_ends_and_late_failure_does_not
    a_hold_needs_its_generation
    an_end_without_an_attempt_counts_those_made
    several_reports_of_one_delivery_in_a_batch
    reports_at_once_apply_once
    what_the_database_refuses_is_not_settled
    cancelling_takes_what_waits
    many_are_settled_at_once
}

async fn success_ends_a_delivery_once(world: World) {
    let delivery = world.delivery(world.endpoint, Some(EPOCH)).await;
    let report = attempted(&delivery, 1, SUCCESS, 204);
    assert_eq!(world.ledger.settle(std::slice::from_ref(&report)).await.unwrap(), [true]);
    assert_eq!(world.ledger.settle(&[report]).await.unwrap(), [false]);
    assert_eq!(
        (
            world.rows("pending_deliveries").await,
            world.rows("deliveries").await,
            world.rows("attempts").await
        ),
        (0, 1, 1)
    );
    let ended = "SELECT count(*) FROM deliveries WHERE status = 2 AND reason = 5 \
        AND attempt_count * 1000 + last_status_code = 1204";
    assert_eq!(world.number(ended).await, 1);
}

async fn a_retry_waits_in_the_database(world: World) {
    let delivery = world.delivery(world.endpoint, Some(EPOCH)).await;
    let due = world.now.plus(Duration::from_secs(300));
    let report = attempted(&delivery, 1, Verdict::Retry(due), 503);
    assert_eq!(world.ledger.settle(std::slice::from_ref(&report)).await.unwrap(), [true]);
    assert_eq!(world.ledger.settle(&[report]).await.unwrap(), [false], "the attempt is past");
    let backlog = world.ledger.backlog(None, 10).await.unwrap();
    assert_eq!((backlog.len(), backlog[0].earliest_due), (1, due));
    assert_eq!(
        world
            .number(
                "SELECT CAST(attempt * 1000 + last_status_code AS BIGINT) FROM pending_deliveries"
            )
            .await,
        2_503
    );
    assert_eq!(world.rows("attempts").await, 1);
}

async fn late_success_ends_and_late_failure_does_not(world: World) {
    let delivery = world.delivery(world.endpoint, Some(EPOCH)).await;
    let retry = attempted(&delivery, 1, Verdict::Retry(world.now), 503);
    assert_eq!(world.ledger.settle(&[retry]).await.unwrap(), [true]);
    for early in [FAILURE, Verdict::Retry(world.now), Verdict::Ignore] {
        assert_eq!(
            world.ledger.settle(&[attempted(&delivery, 1, early, 500)]).await.unwrap(),
            [false],
            "{early:?}"
        );
    }
    let future = attempted(&delivery, 3, SUCCESS, 200);
    assert_eq!(
        world.ledger.settle(&[future]).await.unwrap(),
        [false],
        "that attempt is not due yet"
    );
    assert_eq!(
        world.ledger.settle(&[attempted(&delivery, 1, SUCCESS, 200)]).await.unwrap(),
        [true]
    );
    assert_eq!(
        world.number("SELECT CAST(attempt_count AS BIGINT) FROM deliveries WHERE status = 2").await,
        1
    );
}

async fn a_hold_needs_its_generation(world: World) {
    let delivery = world.delivery(world.endpoint, Some(EPOCH)).await;
    let mut old = not_attempted(&delivery, Verdict::Hold);
    old.generation -= 1;
    assert_eq!(world.ledger.settle(&[old]).await.unwrap(), [false]);
    assert!(world.ledger.backlog(None, 10).await.unwrap().is_empty());
    assert_eq!(
        world.ledger.settle(&[not_attempted(&delivery, Verdict::Hold)]).await.unwrap(),
        [true]
    );
    let backlog = world.ledger.backlog(None, 10).await.unwrap();
    assert_eq!(backlog[0].earliest_due, delivery.due_at, "due as before");
    assert_eq!(world.number("SELECT CAST(attempt AS BIGINT) FROM pending_deliveries").await, 1);
    assert_eq!(world.rows("attempts").await, 0);
}

async fn an_end_without_an_attempt_counts_those_made(world: World) {
    let mut delivery = world.delivery(world.endpoint, Some(EPOCH)).await;
    world.ledger.settle(&[attempted(&delivery, 1, Verdict::Retry(world.now), 503)]).await.unwrap();
    delivery.attempt = 2;
    let gone = Verdict::End(DeliveryStatus::Cancelled, DeliveryReason::EndpointDeleted);
    assert_eq!(world.ledger.settle(&[not_attempted(&delivery, gone)]).await.unwrap(), [true]);
    let ended = "SELECT CAST(attempt_count * 1000 + last_status_code AS BIGINT) FROM deliveries \
        WHERE status = 4 AND reason = 7";
    assert_eq!(world.number(ended).await, 1_503);
}

/// Two workers sent the same job, or one reported it twice.
async fn several_reports_of_one_delivery_in_a_batch(world: World) {
    let first = world.delivery(world.endpoint, Some(EPOCH)).await;
    let second = world.delivery(world.endpoint, Some(EPOCH)).await;
    let third = world.delivery(world.endpoint, Some(EPOCH)).await;
    let batch = [
        attempted(&first, 1, FAILURE, 500),
        attempted(&second, 1, Verdict::Retry(world.now), 500),
        attempted(&first, 1, SUCCESS, 200),
        attempted(&second, 1, Verdict::Retry(world.now), 500),
        attempted(&third, 1, SUCCESS, 200),
        attempted(&second, 2, SUCCESS, 200),
    ];
    // A success comes first, unless its attempt is in the future: that of attempt 2 was, before the
    // failure of attempt 1 was known.
    let applied = world.ledger.settle(&batch).await.unwrap();
    assert_eq!(applied, [false, true, true, false, true, false]);
    assert_eq!(world.ledger.settle(&batch[5..]).await.unwrap(), [true]);
    assert_eq!(world.number("SELECT count(*) FROM deliveries WHERE status = 2").await, 3);
    assert_eq!((world.rows("pending_deliveries").await, world.rows("attempts").await), (0, 5));
}

async fn reports_at_once_apply_once(world: World) {
    let mut deliveries = Vec::new();
    for _ in 0..20 {
        deliveries.push(world.delivery(world.endpoint, Some(EPOCH)).await);
    }
    let (world, deliveries) = (Arc::new(world), Arc::new(deliveries));
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let (world, deliveries) = (Arc::clone(&world), Arc::clone(&deliveries));
            tokio::spawn(async move {
                let mut batch: Vec<_> = deliveries
                    .iter()
                    .map(|row| {
                        attempted(
                            row,
                            1,
                            if task % 2 == 0 { SUCCESS } else { Verdict::Retry(row.due_at) },
                            200,
                        )
                    })
                    .collect();
                batch.rotate_left(task);
                world.ledger.settle(&batch).await.unwrap()
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    // Some were retried first. The success of the earlier attempt ended them nevertheless.
    assert_eq!((world.rows("pending_deliveries").await, world.rows("deliveries").await), (0, 20));
    assert_eq!(world.number("SELECT count(*) FROM deliveries WHERE status = 2").await, 20);
}

async fn what_the_database_refuses_is_not_settled(world: World) {
    if world.store.backend() == crate::Backend::Sqlite {
        // SQLite accepts any text, so it refuses nothing here.
        return;
    }
    let delivery = world.delivery(world.endpoint, Some(EPOCH)).await;
    let other = world.delivery(world.endpoint, Some(EPOCH)).await;
    let mut report = attempted(&delivery, 1, FAILURE, 500);
    report.record.as_mut().unwrap().error_message = Some("a\0b".to_owned());
    let batch = [attempted(&other, 1, SUCCESS, 200), report];
    assert!(matches!(world.ledger.settle(&batch).await, Err(LedgerError::Data(_))));
    assert_eq!((world.rows("pending_deliveries").await, world.rows("attempts").await), (2, 0));
}

async fn cancelling_takes_what_waits(world: World) {
    let other = outrider_model::EndpointId::new(world.now, 50);
    for _ in 0..5 {
        world.delivery(world.endpoint, None).await;
    }
    world.delivery(other, None).await;
    world.delivery(world.endpoint, Some(EPOCH)).await;
    let scope = CancelScope::Endpoint(world.endpoint);
    assert_eq!(
        world.ledger.cancel(scope, DeliveryReason::EndpointDeleted, world.now, 3).await.unwrap(),
        3
    );
    assert_eq!(
        world.ledger.cancel(scope, DeliveryReason::EndpointDeleted, world.now, 3).await.unwrap(),
        2
    );
    assert_eq!(
        world.ledger.cancel(scope, DeliveryReason::EndpointDeleted, world.now, 3).await.unwrap(),
        0
    );
    let ended =
        "SELECT count(*) FROM deliveries WHERE status = 4 AND reason = 7 AND attempt_count = 0";
    assert_eq!((world.number(ended).await, world.rows("pending_deliveries").await), (5, 2));
    let scope = CancelScope::Project(world.project);
    assert_eq!(
        world.ledger.cancel(scope, DeliveryReason::ProjectDeleted, world.now, 9).await.unwrap(),
        1
    );
}

async fn many_are_settled_at_once(world: World) {
    let batch: Vec<_> =
        (0..500).map(|index| world.keyed(world.now, &index.to_string(), 1)).collect();
    world.ledger.accept(&batch, world.keys_since()).await.unwrap();
    let verdict =
        |index: usize| if index.is_multiple_of(3) { Verdict::Retry(world.now) } else { SUCCESS };
    let reports: Vec<_> = batch
        .iter()
        .enumerate()
        .map(|(index, new)| attempted(&new.deliveries[0], 1, verdict(index), 200))
        .collect();
    assert!(world.ledger.settle(&reports).await.unwrap().into_iter().all(|applied| applied));
    assert_eq!(
        (world.rows("pending_deliveries").await, world.rows("deliveries").await),
        (167, 333)
    );
    assert_eq!(world.rows("attempts").await, 500);
}
