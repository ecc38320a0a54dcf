//! Messages of every kind, within their bounds and beyond.

use std::collections::{HashMap, HashSet};

use outrider_model::{Error, Reason, Scope, limits};
use outrider_proto::{
    DESCRIPTORS,
    admin::{ApiKey, CreateApiKeyRequest},
    dispatch::TailDeliveriesRequest,
    ingest::{
        BatchPublishEventsRequest, NewEvent, PublishEventRequest, StreamEventsRequest, StreamOpen,
        StreamedEvent, stream_events_request::Kind as Sent,
    },
};
use prost::Message;

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

use super::{
    Weight,
    body::Messages,
    items::MAX_ITEMS,
    layout::{COUNTERS, Counting, LAYOUTS, Layouts},
};
use crate::guard::methods;

const BATCH: &str = "/outrider.ingest.v1.IngestService/BatchPublishEvents";
const PUBLISH: &str = "/outrider.ingest.v1.IngestService/PublishEvent";
const STREAM: &str = "/outrider.ingest.v1.IngestService/StreamEvents";

fn framed(message: &impl Message) -> Vec<u8> {
    framed_bytes(&message.encode_to_vec())
}

fn framed_bytes(bytes: &[u8]) -> Vec<u8> {
    [&[0], u32::try_from(bytes.len()).unwrap().to_be_bytes().as_slice(), bytes].concat()
}

/// Scans bytes as a whole and in pieces. The outcome must be the same.
fn pushed(path: &str, bytes: &[u8]) -> Result<(), Error> {
    let of = |size: usize| {
        let mut messages = Messages::of(LAYOUTS.by_path[path]);
        bytes.chunks(size).try_for_each(|chunk| messages.push(chunk))
    };
    let whole = of(usize::MAX);
    for size in [1, 2, 3, 7, 1_000] {
        let field = |outcome: &Result<(), Error>| {
            outcome.as_ref().err().map(|error| (error.reason, error.violations.clone()))
        };
        assert_eq!(field(&of(size)), field(&whole), "in pieces of {size}");
    }
    whole
}

fn fault(path: &str, message: &impl Message) -> Option<String> {
    pushed(path, &framed(message))
        .err()
        .map(|error| format!("{} {}", error.violations[0].field, error.violations[0].description))
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
    assert_eq!(
        fault(BATCH, &batch(events(1_001))).unwrap(),
        "events must have at most 1000 entries"
    );
    let full = NewEvent {
        headers: map(32),
        metadata: map(32),
        payload: vec![8; 70_000].into(),
        ..NewEvent::default()
    };
    assert_eq!(fault(BATCH, &batch(vec![full.clone(); 3])), None);
    let over = NewEvent { metadata: map(33), ..full.clone() };
    let error = fault(BATCH, &batch(vec![full.clone(), full.clone(), over.clone()])).unwrap();
    assert_eq!(error, "events[2].metadata must have at most 32 entries");
    let streamed = |event| StreamEventsRequest {
        kind: Some(Sent::Event(StreamedEvent { event: Some(event), ..Default::default() })),
    };
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
    assert_eq!(
        fault(TAIL, &TailDeliveriesRequest { statuses: vec![1; 16], ..Default::default() }),
        None
    );
    let one_by_one = [5 << 3, 1].repeat(17);
    let length = u32::try_from(one_by_one.len()).unwrap().to_be_bytes();
    assert!(pushed(TAIL, &[&[0], length.as_slice(), &one_by_one].concat()).is_err());
}

#[test]
fn what_is_no_message_is_refused_and_unknown_fields_pass() {
    for good in [
        &b""[..],
        b"\x78\x05",
        b"\x79\0\0\0\0\0\0\0\0",
        b"\x7d\0\0\0\0",
        b"\x7a\x02hi",
        b"\x12\0",
        b"\x12\x02\x78\x05",
    ] {
        pushed(BATCH, &framed_bytes(good)).unwrap_or_else(|error| panic!("{good:?}: {error}"));
    }
    let endless = [&[0x78][..], &[0x80; 10], &[1]].concat();
    // A varint of 65 bits, as a number and as a field.
    let long = [&[0x78][..], &[0x80; 9], &[2]].concat();
    let bad: [&[u8]; 11] = [
        b"\x12",
        b"\x12\x05hi",
        b"\x7d\0\0\0",
        b"\x13\x14",
        b"\x00\x01",
        b"\x16",
        b"\x12\x02\x12\x01",
        &endless,
        b"\x78\x80",
        &long,
        &long[1..],
    ];
    for bad in bad {
        assert_eq!(
            pushed(BATCH, &framed_bytes(bad)).map_err(|error| error.reason),
            Err(Reason::MalformedRequest),
            "{bad:?}"
        );
    }
}

/// An event with this many headers. A reader that skips four bytes after the tag of the first
/// header sees none of them: the length of that map entry is in the skipped bytes, and the field
/// that seems to follow them swallows the rest.
fn headers_behind_a_wrong_type(entries: u8) -> Vec<u8> {
    let entries: Vec<u8> = (0..entries).flat_map(|key| [5 << 3 | 2, 3, 0x0a, 1, key]).collect();
    let length = u8::try_from((entries.len() + 1) >> 7).unwrap();
    // The decoder reads an empty entry and a number. A reader that skips four bytes then reads an
    // unknown field of this length. For the decoder, that length is a tag, and the number after it
    // is 0.
    let hiding = [5 << 3 | 5, 0, 0x78, 0x80, 0x80, 0x7a, 0x88, length, 0];
    [hiding.as_slice(), &entries].concat()
}

#[test]
fn a_bounded_field_of_another_wire_type_is_malformed() {
    let in_event = |event: &[u8]| {
        let length = u8::try_from(event.len() & 0x7f).unwrap() | 0x80;
        [&[2 << 3 | 2, length, u8::try_from(event.len() >> 7).unwrap()], event].concat()
    };
    let hidden = in_event(&headers_behind_a_wrong_type(100));
    let decoded = PublishEventRequest::decode(hidden.as_slice())
        .map(|request| request.event.unwrap().headers.len());
    assert_eq!(decoded.unwrap(), 101, "the decoder accepts it, which is why the type is checked");
    assert_eq!(
        pushed(PUBLISH, &framed_bytes(&hidden)).unwrap_err().reason,
        Reason::MalformedRequest
    );
    let types: [&[u8]; 3] = [&[0, 0], &[1, 0, 0, 0, 0, 0, 0, 0, 0], &[5, 0, 0, 0, 0]];
    for (path, field, outer) in [(PUBLISH, 5, true), (PUBLISH, 2, false), (BATCH, 2, false)] {
        for wrong in types {
            let field = [&[field << 3 | wrong[0]], &wrong[1..]].concat();
            let message = if outer { in_event(&field) } else { field };
            assert_eq!(
                pushed(path, &framed_bytes(&message)).unwrap_err().reason,
                Reason::MalformedRequest,
                "{message:?}"
            );
        }
    }
}

#[test]
fn entries_of_a_message_that_comes_again_add_up() {
    let event = |entries| NewEvent { metadata: map(entries), ..NewEvent::default() };
    let publish = |entries| {
        PublishEventRequest { event: Some(event(entries)), ..Default::default() }.encode_to_vec()
    };
    let twice =
        |first, second| pushed(PUBLISH, &framed_bytes(&[publish(first), publish(second)].concat()));
    twice(20, 12).unwrap();
    let error = twice(20, 13).unwrap_err();
    assert_eq!(error.violations[0].field, "event.metadata");
    // Each entry of a list is decoded on its own.
    assert_eq!(fault(BATCH, &batch(vec![event(20), event(20)])), None);
    // Two levels down, and the lists of one message separately.
    let key = |scopes| CreateApiKeyRequest {
        api_key: Some(ApiKey { scopes: vec![1; scopes], ..Default::default() }),
        ..Default::default()
    };
    let keys = [key(14).encode_to_vec(), key(1).encode_to_vec()].concat();
    assert!(pushed("/outrider.admin.v1.ApiKeyService/CreateApiKey", &framed_bytes(&keys)).is_err());
    let both = NewEvent { headers: map(32), metadata: map(32), ..NewEvent::default() };
    let both = PublishEventRequest { event: Some(both), ..Default::default() };
    assert_eq!(fault(PUBLISH, &both), None);
}

#[test]
fn another_member_of_a_oneof_drops_what_came_before() {
    let sent = |kind| StreamEventsRequest { kind: Some(kind) }.encode_to_vec();
    let event = |entries| {
        let event = NewEvent { headers: map(entries), ..NewEvent::default() };
        sent(Sent::Event(StreamedEvent { event: Some(event), ..Default::default() }))
    };
    let open = sent(Sent::Open(StreamOpen::default()));
    pushed(STREAM, &framed_bytes(&[event(32), open, event(32)].concat())).unwrap();
    let error = pushed(STREAM, &framed_bytes(&[event(32), event(1)].concat())).unwrap_err();
    assert_eq!(error.violations[0].field, "event.event.headers");
}

#[test]
fn every_list_of_a_public_request_has_its_bound() {
    fn lists(message: &MessageDescriptor, seen: &mut HashSet<String>) {
        if message.full_name().starts_with("google.")
            || !seen.insert(message.full_name().to_owned())
        {
            return;
        }
        for field in message.fields() {
            if field.is_list() || field.is_map() {
                assert!(
                    MAX_ITEMS.contains_key(field.full_name()),
                    "{} has no max_items",
                    field.full_name()
                );
            }
            assert!(is_counted(&field), "{} is counted wrongly", field.full_name());
            if let (Kind::Message(inner), false) = (field.kind(), field.is_map()) {
                lists(&inner, seen);
            }
        }
    }
    /// The scan does not look into the values of maps, and counts packed numbers by their last
    /// bytes.
    fn is_counted(field: &FieldDescriptor) -> bool {
        use Kind::{Double, Fixed32, Fixed64, Float, Sfixed32, Sfixed64};
        match field.kind() {
            Kind::Message(entry) if field.is_map() => {
                entry.map_entry_value_field().kind().as_message().is_none()
            }
            Double | Float | Fixed32 | Fixed64 | Sfixed32 | Sfixed64 => !field.is_list(),
            _ => true,
        }
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
fn every_list_has_a_counter_of_its_own() {
    let mut layouts = Layouts::of_requests();
    let mut most = 0;
    for name in layouts.by_message.keys().cloned().collect::<Vec<_>>() {
        let mut counting = Counting::default();
        layouts.within(&DESCRIPTORS.get_message_by_name(&name).unwrap(), &mut counting);
        most = most.max(counting.counters);
        assert!(counting.counters <= COUNTERS, "{name} has too many lists to be counted apart");
    }
    assert!(most > 1);
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
