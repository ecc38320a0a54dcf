//! Tails over a real store.

use std::time::Duration;

use futures::{Stream, StreamExt};
use outrider_model::{
    ApiKeyId, DeliveryStatus, Error, Event, EventId, PageRequest, Reason, Result, principal::Actor,
};
use outrider_shares::Holder;
use outrider_store::EventFilter;
use tokio_util::sync::CancellationToken;

use super::{
    AcceptedEvents, Around, DeliveryUpdates, DeliveryWish, EventWish, Message, Opening,
    stream::Source,
};
use crate::{Options, tests::Bench};

const PATIENCE: Duration = Duration::from_secs(20);

/// Heartbeats and polls that are short enough to wait for.
fn quick() -> Options {
    Options {
        tail_heartbeat: Duration::from_millis(100),
        tail_poll: Duration::from_millis(20),
        ..Options::default()
    }
}

fn around(bench: &Bench) -> Around {
    let shared = &bench.dispatch.shared;
    Around {
        tails: shared.tails.clone(),
        directory: shared.directory.clone(),
        shutdown: CancellationToken::new(),
    }
}

fn holder(bench: &Bench) -> Holder {
    Holder::within(&bench.principal, bench.project.id)
}

fn events(
    bench: &Bench,
    cursor: &str,
    event_types: &[&str],
    with_payload: bool,
) -> Opening<AcceptedEvents> {
    let event_types = event_types.iter().map(|text| text.parse().unwrap()).collect();
    let source = AcceptedEvents {
        store: bench.store.clone(),
        ledger: bench.store.ledger(),
        holder: holder(bench),
        project: bench.project.id,
        wish: EventWish { event_types, with_payload },
    };
    Opening {
        around: around(bench),
        holder: holder(bench),
        project: bench.project.id,
        cursor: cursor.to_owned(),
        source,
    }
}

fn deliveries(bench: &Bench, wish: DeliveryWish) -> Opening<DeliveryUpdates> {
    let (store, principal) = (bench.store.clone(), bench.principal.clone());
    let source = DeliveryUpdates { store, principal, project: bench.project.id, wish };
    Opening {
        around: around(bench),
        holder: holder(bench),
        project: bench.project.id,
        cursor: String::new(),
        source,
    }
}

async fn next<T>(tail: &mut (impl Stream<Item = Result<Message<T>>> + Unpin)) -> Message<T> {
    tokio::time::timeout(PATIENCE, tail.next())
        .await
        .expect("a message comes")
        .expect("the tail goes on")
        .unwrap()
}

/// Returns the next message that is not a heartbeat.
async fn item<T>(tail: &mut (impl Stream<Item = Result<Message<T>>> + Unpin)) -> (String, T) {
    let found = async {
        loop {
            let Message { cursor, item, .. } = next(tail).await;
            if let Some(item) = item {
                return (cursor, item);
            }
        }
    };
    tokio::time::timeout(PATIENCE, found).await.expect("something comes that is no heartbeat")
}

async fn refused<S: Source>(opening: Opening<S>) -> Reason {
    opening.open().await.err().expect("it is refused").reason
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_come_once_from_now_on_and_from_any_cursor() {
    let bench = Bench::start().await;
    bench.publish().await;
    let mut tail = Box::pin(events(&bench, "", &[], true).open().await.unwrap());
    let first = next(&mut tail).await;
    assert!(first.item.is_none(), "a tail says at once that it lives");
    let mut published = Vec::new();
    for _ in 0..20 {
        published.push(bench.publish().await.id.to_string());
    }
    let mut cursors = vec![first.cursor];
    for id in &published {
        let (cursor, (event, payload)) = item(&mut tail).await;
        assert_eq!(
            (event.id.to_string(), payload.as_deref()),
            (id.clone(), Some(b"{}".as_slice()))
        );
        cursors.push(cursor);
    }
    for (index, cursor) in cursors.iter().enumerate() {
        let mut rest = Box::pin(events(&bench, cursor, &[], false).open().await.unwrap());
        for id in &published[index..] {
            let (_, (event, payload)) = item(&mut rest).await;
            assert_eq!((event.id.to_string(), payload), (id.clone(), None));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_out_moves_the_cursor_of_heartbeats() {
    let bench = Bench::with(quick()).await;
    let mut tail = Box::pin(events(&bench, "", &["b.*", "c"], false).open().await.unwrap());
    let begin = next(&mut tail).await.cursor;
    bench.publish().await;
    let moved = loop {
        let message = next(&mut tail).await;
        assert!(message.item.is_none(), "a.b is not wanted");
        if message.cursor != begin {
            break message.cursor;
        }
    };
    // A tail that starts before the event gets it. A tail that starts at the heartbeat's cursor
    // gets nothing.
    let mut all = Box::pin(events(&bench, &begin, &["a.*"], false).open().await.unwrap());
    assert_eq!(item(&mut all).await.1.0.event_type, "a.b");
    let mut rest = Box::pin(events(&bench, &moved, &[], false).open().await.unwrap());
    for _ in 0..3 {
        assert!(next(&mut rest).await.item.is_none());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_payloads_come_few_at_a_time_and_all() {
    let bench = Bench::start().await;
    let begin =
        next(&mut Box::pin(events(&bench, "", &[], true).open().await.unwrap())).await.cursor;
    let sizes = [700_000, 700_000, 10, 2_000_000, 5, 5];
    for size in sizes {
        bench.publish_bytes(vec![b' '; size].into()).await;
    }
    let mut tail = Box::pin(events(&bench, &begin, &[], true).open().await.unwrap());
    for size in sizes {
        assert_eq!(item(&mut tail).await.1.1.map(|payload| payload.len()), Some(size));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tails_that_are_not_read_hold_their_share_and_no_more() {
    const MIB: usize = 1024 * 1024;
    let bench = Bench::with(Options { tail_buffer_bytes: MIB, ..quick() }).await;
    let begin =
        next(&mut Box::pin(events(&bench, "", &[], true).open().await.unwrap())).await.cursor;
    for _ in 0..3 {
        bench.publish_bytes(vec![b' '; 100_000].into()).await;
    }
    let room = &bench.dispatch.shared.tails.inner.room;
    // Each gets an event, and is then not asked for another.
    let mut stuck = Vec::new();
    for _ in 0..2 {
        let mut tail = Box::pin(events(&bench, &begin, &[], true).open().await.unwrap());
        item(&mut tail).await;
        stuck.push(tail);
    }
    assert!((200_000..=MIB / 4).contains(&room.held()), "{}", room.held());
    let mut third = Box::pin(events(&bench, &begin, &[], true).open().await.unwrap());
    for _ in 0..3 {
        assert!(next(&mut third).await.item.is_none(), "it lives, and waits for room");
    }
    // Another key of the project is not affected.
    let other = Actor::ApiKey(ApiKeyId::new(bench.store.clock().now(), 1));
    let mut opening = events(&bench, &begin, &[], true);
    opening.holder = Holder { actor: other, ..holder(&bench) };
    let mut apart = Box::pin(opening.open().await.unwrap());
    for _ in 0..3 {
        item(&mut apart).await;
    }
    drop((stuck, apart));
    for _ in 0..3 {
        item(&mut third).await;
    }
    drop(third);
    assert_eq!(room.held(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tails_read_in_turns() {
    let bench = Bench::with(Options { tail_readers: 8, ..quick() }).await;
    let begin =
        next(&mut Box::pin(events(&bench, "", &[], true).open().await.unwrap())).await.cursor;
    bench.publish().await;
    let reads = bench.dispatch.shared.tails.inner.reads.clone();
    // A lone key makes as many queries as it may have at once, and they take long.
    let held = [reads.wait(holder(&bench)).await, reads.wait(holder(&bench)).await];
    let mut late = Box::pin(events(&bench, &begin, &[], true).open().await.unwrap());
    let late = tokio::spawn(async move { item(&mut late).await });
    let in_line = async {
        while reads.held() != (2, 1) {
            tokio::task::yield_now().await
        }
    };
    tokio::time::timeout(PATIENCE, in_line).await.expect("it waits for its turn");
    let other = Actor::ApiKey(ApiKeyId::new(bench.store.clock().now(), 1));
    let mut opening = events(&bench, &begin, &[], true);
    opening.holder = Holder { actor: other, ..holder(&bench) };
    item(&mut Box::pin(opening.open().await.unwrap())).await;
    assert!(!late.is_finished());
    drop(held);
    tokio::time::timeout(PATIENCE, late).await.expect("it is its turn").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deliveries_come_with_their_attempts() {
    let bench = Bench::start().await;
    let endpoint = bench.endpoint(64).await;
    let everything = || DeliveryWish { endpoint: None, event: None, statuses: Vec::new() };
    let mut all = Box::pin(deliveries(&bench, everything()).open().await.unwrap());
    let delivered = DeliveryWish {
        statuses: vec![DeliveryStatus::Delivered],
        endpoint: Some(endpoint.id),
        ..everything()
    };
    let mut ended = Box::pin(deliveries(&bench, delivered).open().await.unwrap());
    let nothing =
        DeliveryWish { event: Some(EventId::new(bench.store.clock().now(), 7)), ..everything() };
    let mut none = Box::pin(deliveries(&bench, nothing).open().await.unwrap());
    bench.publish_when_routed(1).await;
    bench.report(&bench.jobs().await[0], 500).await;
    let (_, (delivery, attempt)) = item(&mut all).await;
    assert_eq!((delivery.status, delivery.attempt_count), (DeliveryStatus::Pending, 1));
    assert_eq!(attempt.map(|attempt| (attempt.number, attempt.status_code)), Some((1, Some(500))));
    bench.report(&bench.jobs().await[0], 204).await;
    let (_, (delivery, attempt)) = item(&mut all).await;
    assert_eq!((delivery.status, delivery.attempt_count), (DeliveryStatus::Delivered, 2));
    assert_eq!(attempt.map(|attempt| attempt.number), Some(2));
    // A late reader gets both attempts, each with the present state of the delivery.
    for number in [1, 2] {
        let (_, (delivery, attempt)) = item(&mut ended).await;
        assert_eq!(
            (delivery.status, attempt.map(|attempt| attempt.number)),
            (DeliveryStatus::Delivered, Some(number))
        );
    }
    assert!(next(&mut none).await.item.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_of_another_process_are_found_by_the_poll() {
    let bench = Bench::with(quick()).await;
    let mut tail = Box::pin(events(&bench, "", &[], false).open().await.unwrap());
    next(&mut tail).await;
    // Written by another process, so nobody here is notified.
    let page = PageRequest { size: 1, from: None };
    bench.publish().await;
    item(&mut tail).await;
    let mut list = bench
        .store
        .list_events(&bench.principal, bench.project.id, &EventFilter::default(), page)
        .await
        .unwrap();
    let event = Event { id: EventId::new(bench.store.clock().now(), 7), ..list.items.remove(0) };
    let id = event.id;
    let new = outrider_store::NewEvent {
        event,
        payload: "{}".into(),
        fingerprint: None,
        deliveries: Vec::new(),
    };
    bench.store.ledger().accept(&[new], outrider_model::Timestamp(0)).await.unwrap();
    assert_eq!(item(&mut tail).await.1.0.id, id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tails_are_bounded_and_end_with_the_process_the_project_or_the_cursor() {
    let bench = Bench::with(Options { max_tails: 8, ..quick() }).await;
    let shutdown = CancellationToken::new();
    let mut opening = events(&bench, "", &[], false);
    opening.around.shutdown = shutdown.clone();
    let mut ended = Box::pin(opening.open().await.unwrap());
    let mut tail = Box::pin(events(&bench, "", &[], false).open().await.unwrap());
    assert_eq!(
        refused(events(&bench, "", &[], false)).await,
        Reason::ShareExhausted,
        "a key has a quarter of eight"
    );
    let cursor = next(&mut tail).await.cursor;
    next(&mut ended).await;
    shutdown.cancel();
    let last = async |tail: &mut (dyn Stream<Item = Result<Message<_>>> + Unpin + Send)| -> Error {
        let last = async {
            loop {
                if let Err(error) = tail.next().await.expect("it says why it ends") {
                    return error;
                }
            }
        };
        tokio::time::timeout(PATIENCE, last).await.unwrap()
    };
    let error = last(&mut ended).await;
    assert!(error.reason == Reason::ShuttingDown && error.retry_after.is_some());
    assert!(ended.next().await.is_none());
    drop(ended);
    assert_eq!(refused(events(&bench, "?", &[], false)).await, Reason::InvalidField);
    bench.store.delete_project(&bench.principal, bench.project.id).await.unwrap();
    assert_eq!(last(&mut tail).await.reason, Reason::NotFound);
    drop(tail);
    assert!(bench.dispatch.shared.tails.readers().is_empty(), "nobody is left to be told");

    while bench
        .store
        .ledger()
        .prune_log(bench.store.clock().now().plus(Duration::from_secs(60)))
        .await
        .unwrap()
    {}
    bench.publish().await;
    let later = bench.store.clock().now().plus(Duration::from_secs(2 * 3600));
    while bench.store.ledger().prune_log(later).await.unwrap() {}
    assert_eq!(refused(events(&bench, &cursor, &[], false)).await, Reason::CursorExpired);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erased_payload_is_told_as_such() {
    let bench = Bench::start().await;
    let mut tail = Box::pin(events(&bench, "", &[], true).open().await.unwrap());
    let cursor = next(&mut tail).await.cursor;
    let published = [bench.publish().await.id.to_string(), bench.publish().await.id.to_string()];
    let erased = published[0].parse().unwrap();
    bench.store.erase_payload(&bench.principal, bench.project.id, erased).await.unwrap();
    let mut late = Box::pin(events(&bench, &cursor, &[], true).open().await.unwrap());
    let (_, (event, payload)) = item(&mut late).await;
    assert_eq!((event.id, event.payload_erased_at.is_some(), payload), (erased, true, None));
    let (_, (event, payload)) = item(&mut late).await;
    assert_eq!(
        (event.id.to_string(), payload.as_deref()),
        (published[1].clone(), Some(b"{}".as_slice()))
    );
}
