//! Messages of every kind within their bounds and beyond.

use std::collections::{HashMap, HashSet};

use outrider_model::{Error, Reason, Scope, limits};
use outrider_proto::{
    admin::{ApiKey, CreateApiKeyRequest},
    dispatch::TailDeliveriesRequest,
    ingest::{BatchPublishEventsRequest, NewEvent, StreamEventsRequest, StreamedEvent, stream_events_request::Kind as Sent},
};
use prost::Message;

use super::{body::Messages, *};

const BATCH: &str = "/outrider.ingest.v1.IngestService/BatchPublishEvents";
const STREAM: &str = "/outrider.ingest.v1.IngestService/StreamEvents";

fn framed(message: &impl Message) -> Vec<u8> {
    let length = u32::try_from(message.encoded_len()).unwrap().to_be_bytes();
    [&[0], length.as_slice(), &message.encode_to_vec()].concat()
}

/// What becomes of bytes, whole and in pieces.
fn pushed(path: &str, bytes: &[u8]) -> Result<(), Error> {
    let of = |size: usize| {
        let mut messages = Messages::of(SHAPES.by_path[path]);
        bytes.chunks(size).try_for_each(|chunk| messages.push(chunk))
    };
    let whole = of(usize::MAX);
    for size in [1, 2, 3, 7, 1_000] {
        let field = |outcome: &Result<(), Error>| outcome.as_ref().err().map(|error| (error.reason, error.violations.clone()));
        assert_eq!(field(&of(size)), field(&whole), "in pieces of {size}");
    }
    whole
}

fn fault(path: &str, message: &impl Message) -> Option<String> {
    pushed(path, &framed(message)).err().map(|error| format!("{} {}", error.violations[0].field, error.violations[0].description))
}

fn map(entries: usize) -> HashMap<String, String> {
    (0..entries).map(|number| (number.to_string(), "x".to_owned())).collect()
}

fn batch(events: Vec<NewEvent>) -> BatchPublishEventsRequest {
    BatchPublishEventsRequest { project_id: "prj".into(), events }
}

#[test]
fn entries_are_counted_up_to_their_bounds() {
    let events = |count| vec![NewEvent::default(); count];
    assert_eq!(fault(BATCH, &batch(events(1_000))), None);
    assert_eq!(fault(BATCH, &batch(events(1_001))).unwrap(), "events must have at most 1000 entries");
    let full = NewEvent { headers: map(32), metadata: map(32), payload: vec![8; 70_000].into(), ..NewEvent::default() };
    assert_eq!(fault(BATCH, &batch(vec![full.clone(); 3])), None);
    let over = NewEvent { metadata: map(33), ..full.clone() };
    let error = fault(BATCH, &batch(vec![full.clone(), full.clone(), over.clone()])).unwrap();
    assert_eq!(error, "events[2].metadata must have at most 32 entries");
    let streamed =
        |event| StreamEventsRequest { kind: Some(Sent::Event(StreamedEvent { event: Some(event), ..Default::default() })) };
    let both = [framed(&streamed(full)), framed(&streamed(over))].concat();
    assert_eq!(pushed(STREAM, &both).unwrap_err().violations[0].field, "event.event.metadata");
}

#[test]
fn a_message_weighs_what_its_entries_take() {
    let weight = |message: &BatchPublishEventsRequest| {
        let (mut weight, mut last) = (Weight::of(BATCH).unwrap(), 0);
        for piece in framed(message).chunks(1_000) {
            last = weight.push(piece).unwrap();
        }
        last
    };
    assert_eq!(weight(&batch(vec![NewEvent::default(); 1_000])), 0, "it is small");
    let payload = NewEvent { payload: vec![8; 70_000].into(), ..NewEvent::default() };
    assert_eq!(weight(&batch(vec![payload])), 2 * 320);
    let full = NewEvent { headers: map(32), metadata: map(32), ..NewEvent::default() };
    assert_eq!(weight(&batch(vec![full; 1_000])), 320 + 1_000 * (320 + 64 * 192));
}

#[test]
fn numbers_are_counted_packed_or_not() {
    let key = |count| CreateApiKeyRequest {
        api_key: Some(ApiKey { scopes: vec![1; count], ..Default::default() }),
        ..Default::default()
    };
    const CREATE: &str = "/outrider.admin.v1.ApiKeyService/CreateApiKey";
    assert_eq!(fault(CREATE, &key(14)), None);
    assert_eq!(fault(CREATE, &key(15)).unwrap(), "api_key.scopes must have at most 14 entries");
    const TAIL: &str = "/outrider.dispatch.v1.DeliveryService/TailDeliveries";
    assert_eq!(fault(TAIL, &TailDeliveriesRequest { statuses: vec![1; 16], ..Default::default() }), None);
    let one_by_one = [5 << 3, 1].repeat(17);
    let length = u32::try_from(one_by_one.len()).unwrap().to_be_bytes();
    assert!(pushed(TAIL, &[&[0], length.as_slice(), &one_by_one].concat()).is_err());
}

#[test]
fn what_is_no_message_is_refused_and_unknown_fields_pass() {
    let framed = |bytes: &[u8]| [&[0], u32::try_from(bytes.len()).unwrap().to_be_bytes().as_slice(), bytes].concat();
    for good in [&b""[..], b"\x78\x05", b"\x79\0\0\0\0\0\0\0\0", b"\x7d\0\0\0\0", b"\x7a\x02hi", b"\x12\0", b"\x12\x02\x78\x05"] {
        pushed(BATCH, &framed(good)).unwrap_or_else(|error| panic!("{good:?}: {error}"));
    }
    let endless = [&[0x78][..], &[0x80; 10], &[1]].concat();
    let bad: [&[u8]; 9] =
        [b"\x12", b"\x12\x05hi", b"\x7d\0\0\0", b"\x13\x14", b"\x00\x01", b"\x16", b"\x12\x02\x12\x01", &endless, b"\x78\x80"];
    for bad in bad {
        assert_eq!(pushed(BATCH, &framed(bad)).map_err(|error| error.reason), Err(Reason::MalformedRequest), "{bad:?}");
    }
}

#[test]
fn every_list_of_a_public_request_has_its_bound() {
    fn lists(message: &MessageDescriptor, seen: &mut HashSet<String>) {
        if message.full_name().starts_with("google.") || !seen.insert(message.full_name().to_owned()) {
            return;
        }
        let mut count = 0;
        for field in message.fields() {
            if field.is_list() || field.is_map() {
                assert!(MAX_ITEMS.contains_key(field.full_name()), "{} has no max_items", field.full_name());
                count += 1;
            }
            if let (Kind::Message(inner), false) = (field.kind(), field.is_map()) {
                lists(&inner, seen);
            }
        }
        assert!(count <= LISTS, "{} has too many lists to be counted apart", message.full_name());
    }
    let mut seen = HashSet::new();
    for service in methods::public_services() {
        for method in service.methods() {
            lists(&method.input(), &mut seen);
        }
    }
    assert!(seen.len() > 20);
}

#[test]
fn the_model_and_the_protos_bound_alike() {
    for (field, most) in [
        ("outrider.ingest.v1.BatchPublishEventsRequest.events", limits::BATCH_EVENTS),
        ("outrider.ingest.v1.NewEvent.headers", limits::MAP_ENTRIES),
        ("outrider.ingest.v1.NewEvent.metadata", limits::MAP_ENTRIES),
        ("outrider.admin.v1.Endpoint.headers", limits::MAP_ENTRIES),
        ("outrider.admin.v1.Endpoint.metadata", limits::MAP_ENTRIES),
        ("outrider.admin.v1.Subscription.event_types", limits::SUBSCRIPTION_EVENT_TYPES),
        ("outrider.dispatch.v1.TailEventsRequest.event_types", limits::SUBSCRIPTION_EVENT_TYPES),
        ("outrider.admin.v1.ApiKey.scopes", Scope::ALL.len()),
    ] {
        assert_eq!(MAX_ITEMS.get(field).copied(), u32::try_from(most).ok(), "{field}");
    }
}
