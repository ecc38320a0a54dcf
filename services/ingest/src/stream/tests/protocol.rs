//! The messages of a stream and their meaning.

use outrider_model::{Error, Reason};
use outrider_proto::ingest::{NewEvent, StreamOpen, StreamedEvent, stream_events_request::Kind};

use super::bench::{Bench, event};

#[tokio::test]
async fn events_are_known_by_stream_and_sequence_and_a_resend_doubles_nothing() {
    let bench = Bench::start().await;
    let mut client = bench.open("s").await;
    client.events(1..=3).await;
    assert_eq!(client.acked(3).await, (3, 0, vec![]));
    assert_eq!(bench.intake.keys(), ["stream s 1", "stream s 2", "stream s 3"]);
    drop(client);
    let mut client = bench.open("s").await;
    client.events(2..=4).await;
    assert_eq!(client.acked(4).await, (3, 2, vec![]));
    // Another stream with the same numbers.
    let mut other = bench.open("t").await;
    other.events(1..=1).await;
    assert_eq!(other.acked(1).await, (1, 0, vec![]));
    client.half_close();
    assert!(client.message().await.is_none(), "it ends without an error");
}

#[tokio::test]
async fn a_key_of_the_producers_own_stays() {
    let bench = Bench::start().await;
    let mut client = bench.open("s").await;
    let own = NewEvent {
        event_type: "a".into(),
        payload: "1".into(),
        idempotency_key: "mine".into(),
        ..NewEvent::default()
    };
    client
        .send(Kind::Event(StreamedEvent {
            sequence: 1,
            event: Some(own.clone()),
            ..StreamedEvent::default()
        }))
        .await;
    // A producer cannot give the key of a stream, because that contains a space.
    let theft = NewEvent { idempotency_key: "stream s 3".into(), ..own };
    client
        .send(Kind::Event(StreamedEvent {
            sequence: 2,
            event: Some(theft),
            ..StreamedEvent::default()
        }))
        .await;
    client.events(3..=3).await;
    assert_eq!(client.acked(3).await, (2, 0, vec![(2, Reason::InvalidField)]));
    assert_eq!(bench.intake.keys(), ["mine", "stream s 3"]);
}

#[tokio::test]
async fn what_is_refused_for_good_is_rejected_and_the_rest_goes_on() {
    let bench = Bench::start().await;
    let mut client = bench.open("s").await;
    client.events(1..=1).await;
    client.send(event(2, "{")).await;
    client.send(Kind::Event(StreamedEvent { sequence: 3, ..StreamedEvent::default() })).await;
    client.events(4..=4).await;
    assert_eq!(
        client.acked(4).await,
        (2, 0, vec![(2, Reason::InvalidField), (3, Reason::InvalidField)])
    );
    let mut again = bench.open("s").await;
    again.send(event(1, "2")).await;
    assert_eq!(again.acked(1).await, (0, 0, vec![(1, Reason::IdempotencyConflict)]));
}

#[tokio::test]
async fn a_gap_or_a_step_back_ends_the_stream_and_names_it() {
    let bench = Bench::start().await;
    for (first, next, description) in [
        (5, 7, "is 7; the next is 6"),
        (5, 5, "is 5; the next is 6"),
        (5, 0, "is 0; the next is 6"),
    ] {
        let mut client = bench.open("s").await;
        client.events([first, next]).await;
        let (error, acked) = client.failure().await;
        assert_eq!(
            (error.reason, error.violations[0].field.as_str()),
            (Reason::InvalidField, "event.sequence")
        );
        assert_eq!((error.violations[0].description.as_str(), acked), (description, first));
    }
    let mut client = bench.open("s").await;
    client.events([0]).await;
    assert_eq!(client.failure().await.0.violations[0].description, "is 0; the next is 1");
}

#[tokio::test]
async fn the_first_message_names_the_stream_and_only_the_first() {
    let bench = Bench::start().await;
    let first = async |kind: Kind| {
        let mut client = bench.connect().unwrap();
        client.send(kind).await;
        let error = client.failure().await.0;
        (
            error.reason,
            error.violations.first().map(|violation| violation.field.clone()).unwrap_or_default(),
        )
    };
    let open = |project: &str, stream: &str| {
        Kind::Open(StreamOpen { project_id: project.into(), stream_id: stream.into() })
    };
    let invalid = |field: &str| (Reason::InvalidField, field.to_owned());
    assert_eq!(first(event(1, "1")).await, invalid("open"));
    for bad in ["", "a b", "é", &"x".repeat(65)] {
        assert_eq!(first(open(&bench.project, bad)).await, invalid("open.stream_id"), "{bad}");
    }
    assert_eq!(first(open("prj_", "s")).await, invalid("open.project_id"));
    assert_eq!(
        first(open("prj_01h455vb4pex5vsknk084sn02q", "s")).await,
        (Reason::NotFound, String::new())
    );
    let mut client = bench.open("s").await;
    client.send(open(&bench.project, "s")).await;
    assert_eq!(client.failure().await.0.violations[0].field, "open");
}

#[tokio::test]
async fn overload_is_waited_out_and_an_unknown_outcome_ends_the_stream() {
    let bench = Bench::start().await;
    let mut client = bench.open("s").await;
    client.events(1..=1).await;
    assert_eq!(client.acked(1).await, (1, 0, vec![]));
    bench
        .intake
        .failures
        .lock()
        .unwrap()
        .extend([Error::overloaded("full"), Error::overloaded("full")]);
    client.events(2..=2).await;
    assert_eq!(client.acked(2).await, (1, 0, vec![]));
    bench.intake.failures.lock().unwrap().push_back(Error::unavailable("nobody knows"));
    client.events(3..=3).await;
    let (error, acked) = client.failure().await;
    assert_eq!((error.reason, acked), (Reason::Unavailable, 0));
    assert!(error.retry_after.is_some());
    let mut client = bench.open("s").await;
    client.events(3..=4).await;
    assert_eq!(client.acked(4).await, (2, 0, vec![]));
}
