//! The calls of the feeder and the workers.

use std::{collections::HashSet, sync::Arc, time::Duration};

use outrider_model::{EndpointId, EndpointState, Timestamp, Trace};

use crate::{
    ledger::{Claim, PendingSummary, QueuedRef},
    testing::{
        backends::with_granted_rights_too,
        world::{EPOCH, World, route},
    },
};

with_granted_rights_too! {
    backlog_goes_from_endpoint_to_endpoint
    claims_take_the_earliest_due_and_what_their_jobs_need
    no_row_is_claimed_twice
    marks_are_taken_back_by_generation
    rows_of_other_epochs_are_taken_back
    overdue_rows_are_found_and_put_off
    the_row_says_which_job_is_current
    the_oldest_due_is_known_while_it_may_be_sent
    the_trace_of_an_event_comes_with_every_claim
}

fn endpoints(world: &World, count: u64) -> Vec<EndpointId> {
    (10..10 + count).map(|number| EndpointId::new(world.now, number)).collect()
}

fn claim(endpoint: EndpointId, limit: u32) -> Claim {
    Claim { endpoint, limit, epoch: EPOCH }
}

async fn backlog_goes_from_endpoint_to_endpoint(world: World) {
    let endpoints = endpoints(&world, 5);
    for (index, endpoint) in endpoints.iter().enumerate() {
        for late in [30, 10, 20] {
            let mut new = world.event_at(world.now);
            route(&mut new, *endpoint, (index == 3).then_some(EPOCH));
            new.deliveries[0].due_at = world.now.plus(Duration::from_secs(late));
            world.ledger.accept(&[new], world.keys_since()).await.unwrap();
        }
    }
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page = world.ledger.backlog(after, 2).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.endpoint);
        seen.extend(page);
    }
    let expected = [endpoints[0], endpoints[1], endpoints[2], endpoints[4]];
    assert_eq!(seen.iter().map(|backlog| backlog.endpoint).collect::<Vec<_>>(), expected);
    let due = world.now.plus(Duration::from_secs(10));
    assert!(
        seen.iter().all(|backlog| backlog.project == world.project && backlog.earliest_due == due)
    );
}

async fn claims_take_the_earliest_due_and_what_their_jobs_need(world: World) {
    let endpoints = endpoints(&world, 2);
    for late in [40, 0, 20, 10] {
        let mut new = world.event_at(world.now);
        route(&mut new, endpoints[0], None);
        new.deliveries[0].due_at = world.now.plus(Duration::from_secs(late));
        if late == 10 {
            new.payload = vec![b'x'; 1_000].into();
            new.event.payload_size = 1_000;
        }
        world.ledger.accept(&[new], world.keys_since()).await.unwrap();
    }
    let (now, check_at) =
        (world.now.plus(Duration::from_secs(30)), world.now.plus(Duration::from_secs(90)));
    let claims = [claim(endpoints[0], 2), claim(endpoints[1], 5)];
    let jobs = world.ledger.claim(&claims, now, check_at, 999).await.unwrap();
    let late: Vec<u64> =
        jobs.iter().map(|job| job.delivery.due_at.since(world.now).as_secs()).collect();
    assert_eq!(late, [0, 10]);
    assert!(jobs[0].payload.is_some() && jobs[1].payload.is_none());
    assert_eq!(
        (jobs[1].payload_size, jobs[0].content_type.as_str(), jobs[0].event_type.as_str()),
        (1_000, "application/json", "invoice.paid")
    );
    assert_eq!(
        (jobs[0].headers["x-a"].as_str(), jobs[0].ordering_key.as_deref()),
        ("1", Some("customer-7"))
    );
    let delivery = &jobs[0].delivery;
    assert_eq!(
        (delivery.queued_epoch, delivery.generation, delivery.check_at),
        (Some(EPOCH), 1, check_at)
    );
    assert_eq!(
        (delivery.subscriptions.len(), delivery.attempt, delivery.project),
        (2, 1, world.project)
    );
    let rest = world
        .ledger
        .claim(&[claim(endpoints[0], 9), claim(endpoints[0], 9)], now, check_at, 999)
        .await
        .unwrap();
    assert_eq!(rest.len(), 1, "the other is not due yet");
    assert!(world.ledger.claim(&[], now, check_at, 999).await.unwrap().is_empty());
}

async fn no_row_is_claimed_twice(world: World) {
    let batch: Vec<_> =
        (0..200).map(|index| world.keyed(world.now, &index.to_string(), 1)).collect();
    world.ledger.accept(&batch, world.keys_since()).await.unwrap();
    let world = Arc::new(world);
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let world = Arc::clone(&world);
            tokio::spawn(async move {
                let mut mine = Vec::new();
                loop {
                    let jobs = world
                        .ledger
                        .claim(&[claim(world.endpoint, 7)], world.now, world.now, 9)
                        .await
                        .unwrap();
                    if jobs.is_empty() {
                        return mine;
                    }
                    mine.extend(jobs.into_iter().map(|job| job.delivery.id));
                }
            })
        })
        .collect();
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await.unwrap());
    }
    // Rows that another call had locked at the last look belong to that call.
    assert_eq!(all.len(), all.iter().collect::<HashSet<_>>().len());
    assert_eq!(all.len(), 200);
}

async fn marks_are_taken_back_by_generation(world: World) {
    let delivery = world.delivery(world.endpoint, Some(EPOCH)).await;
    world.ledger.unqueue(&[(delivery.id, delivery.generation + 1)]).await.unwrap();
    assert!(world.ledger.backlog(None, 9).await.unwrap().is_empty());
    world.ledger.unqueue(&[(delivery.id, delivery.generation)]).await.unwrap();
    assert_eq!(world.ledger.backlog(None, 9).await.unwrap().len(), 1);
    let jobs =
        world.ledger.claim(&[claim(world.endpoint, 1)], world.now, world.now, 9).await.unwrap();
    assert_eq!(jobs[0].delivery.generation, delivery.generation + 1);
    world.ledger.unqueue(&[]).await.unwrap();
}

async fn rows_of_other_epochs_are_taken_back(world: World) {
    for epoch in [Some(1), Some(2), Some(2), Some(-3), None] {
        world.delivery(world.endpoint, epoch).await;
    }
    assert_eq!(world.ledger.unqueue_other_epochs(&[2, 5]).await.unwrap(), 2);
    assert_eq!(world.ledger.unqueue_other_epochs(&[2, 5]).await.unwrap(), 0);
    assert_eq!(
        world.number("SELECT count(*) FROM pending_deliveries WHERE queued_epoch IS NULL").await,
        3
    );
    assert_eq!(world.ledger.unqueue_other_epochs(&[]).await.unwrap(), 2);
}

async fn overdue_rows_are_found_and_put_off(world: World) {
    let queued = world.delivery(world.endpoint, Some(EPOCH)).await;
    world.delivery(world.endpoint, None).await;
    let before = Timestamp(queued.check_at.0 - 1);
    let found = async |after, until| world.ledger.overdue(after, until, 9).await.unwrap();
    assert!(found(Timestamp(0), before).await.is_empty());
    let expected =
        QueuedRef { delivery: queued.id, endpoint: queued.endpoint, attempt: 1, generation: 1 };
    assert_eq!(found(before, queued.check_at).await, [expected]);
    assert!(
        found(queued.check_at, Timestamp(i64::MAX)).await.is_empty(),
        "what an earlier look found is left out"
    );
    let later = queued.check_at.plus(Duration::from_secs(60));
    world.ledger.extend(&[(queued.id, 0)], later).await.unwrap();
    assert_eq!(found(before, queued.check_at).await.len(), 1, "of another generation");
    world.ledger.extend(&[(queued.id, 1)], later).await.unwrap();
    assert!(found(Timestamp(0), queued.check_at).await.is_empty());
    assert_eq!(found(queued.check_at, later).await.len(), 1);
}

async fn the_row_says_which_job_is_current(world: World) {
    let queued = world.delivery(world.endpoint, Some(EPOCH)).await;
    let waiting = world.delivery(world.endpoint, None).await;
    let unknown = outrider_model::DeliveryId::derive(world.now, queued.event, world.endpoint, 9);
    let jobs = [
        (queued.id, 1, 1),
        (queued.id, 1, 2),
        (queued.id, 2, 1),
        (waiting.id, 1, 0),
        (unknown, 1, 1),
        (queued.id, 1, 1),
    ];
    assert_eq!(
        world.ledger.current(&jobs).await.unwrap(),
        [true, false, false, false, false, true]
    );
}

/// Only for the owner of the tables.
mod preparing {
    use std::time::Duration;

    use crate::testing::{
        backends::on_both_backends,
        world::{World, route},
    };

    on_both_backends! { preparing_twice_at_once_is_fine }

    async fn preparing_twice_at_once_is_fine(world: World) {
        let (ledger, other) = (world.store.ledger(), world.database.connect().await.ledger());
        let week = world.now.plus(Duration::from_secs(6 * 86_400));
        let (first, second) = tokio::join!(ledger.prepare(week), other.prepare(week));
        first.unwrap();
        second.unwrap();
        ledger.prepare(week).await.unwrap();
        let mut late = world.event_at(world.now.plus(Duration::from_secs(13 * 86_400)));
        route(&mut late, world.endpoint, None);
        ledger.accept(&[late], world.keys_since()).await.unwrap();
        assert_eq!(world.rows("events").await, 1);
        if world.store.backend() == crate::Backend::Postgres {
            let beyond = world.event_at(world.now.plus(Duration::from_secs(30 * 86_400)));
            let refused = ledger.accept(&[beyond], world.keys_since()).await;
            assert!(
                matches!(refused, Err(crate::LedgerError::Unavailable(_))),
                "a missing partition is not the event's fault"
            );
        }
    }
}

async fn the_oldest_due_is_known_while_it_may_be_sent(world: World) {
    let endpoints = endpoints(&world, 4);
    let at = |seconds: u64| world.now.plus(Duration::from_secs(seconds));
    let summary =
        async |now: Timestamp, limit: u32| world.ledger.pending_summary(now, limit).await.unwrap();
    assert_eq!(summary(at(100), 10).await, PendingSummary { pending: 0, oldest_due: None });
    // Unqueued and queued twice.
    for (endpoint, late, epoch) in
        [(0, 20, None), (0, 10, None), (1, 30, Some(EPOCH)), (2, 40, None), (3, 5, Some(EPOCH))]
    {
        let mut new = world.event_at(world.now);
        route(&mut new, endpoints[endpoint], epoch);
        new.deliveries[0].due_at = at(late);
        world.ledger.accept(&[new], world.keys_since()).await.unwrap();
    }
    assert_eq!(summary(at(100), 100).await, PendingSummary { pending: 5, oldest_due: Some(at(5)) });
    assert_eq!(summary(at(100), 3).await.pending, 3, "no more are counted than asked for");
    assert_eq!(summary(at(4), 100).await.oldest_due, None, "nothing is due yet");
    world.execute("DELETE FROM pending_deliveries WHERE queued_epoch IS NOT NULL").await;
    assert_eq!(summary(at(100), 100).await.oldest_due, Some(at(10)));
    world.gate(endpoints[0], EndpointState::Paused, None).await;
    assert_eq!(
        summary(at(100), 100).await.oldest_due,
        Some(at(40)),
        "what is paused waits rightly"
    );
    world.gate(endpoints[2], EndpointState::Active, Some(at(1))).await;
    assert_eq!(
        summary(at(100), 100).await,
        PendingSummary { pending: 3, oldest_due: None },
        "what is deleted is cancelled"
    );
}

async fn the_trace_of_an_event_comes_with_every_claim(world: World) {
    let trace = Trace {
        parent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned(),
        state: "a=b".to_owned(),
    };
    for trace in [Some(trace), None] {
        let mut new = world.event_at(world.now);
        new.event.trace = trace.clone();
        route(&mut new, world.endpoint, None);
        world.ledger.accept(&[new], world.keys_since()).await.unwrap();
        for _ in 0..2 {
            let jobs = world
                .ledger
                .claim(&[claim(world.endpoint, 1)], world.now, world.now, 999)
                .await
                .unwrap();
            assert_eq!(jobs[0].trace, trace);
            world
                .ledger
                .unqueue(&[(jobs[0].delivery.id, jobs[0].delivery.generation)])
                .await
                .unwrap();
        }
        world.execute("DELETE FROM pending_deliveries").await;
    }
}
