use outrider_proto::DESCRIPTORS;

use prost_reflect::DynamicMessage;

use super::*;

fn desc(name: &str) -> MessageDescriptor {
    DESCRIPTORS.get_message_by_name(name).unwrap()
}

fn free() -> Cost {
    Cost::alone(0, usize::MAX)
}

fn read_as(name: &str, text: &str) -> Result<Read, Error> {
    message(&Bytes::copy_from_slice(text.as_bytes()), &desc(name), &free())
}

fn event(text: &str) -> Result<DynamicMessage, Error> {
    let field_of =
        desc("outrider.ingest.v1.PublishEventRequest").get_field_by_name("event").unwrap();
    let read = field(&Bytes::copy_from_slice(text.as_bytes()), &field_of, &free())?;
    let Some(Value::Message(message)) = read.value else { panic!("no message") };
    Ok(message)
}

fn payload(text: &str) -> String {
    let message = event(text).unwrap();
    let payload = message.get_field_by_name("payload").unwrap();
    String::from_utf8(payload.as_bytes().unwrap().to_vec()).unwrap()
}

#[test]
fn the_text_of_data_is_kept() {
    for data in [
        r#"{"a":1.0,  "b":1e400, "dup":1,"dup":2}"#,
        "null",
        r#""A\u0000""#,
        "-0.0",
        "[1,\n\t2]",
        "{}",
    ] {
        assert_eq!(payload(&format!("{{\"event_type\":\"a\",\"data\" : \n {data} \n}}")), data);
    }
    assert_eq!(payload(r#"{"dataBase64":"aGk="}"#), "hi");
    assert_eq!(payload(r#"{"data_base64":"aGk"}"#), "hi");
    assert_eq!(payload("{}"), "");
}

/// Text, reason, field, and a part of the description.
type Refused = (&'static str, Reason, &'static str, &'static str);

const REFUSED_EVENTS: &[Refused] = &[
    (r#"{"unknown":1}"#, Reason::MalformedRequest, "event.unknown", "not a known field"),
    (r#"{"payload":"aGk="}"#, Reason::MalformedRequest, "event.payload", "not a known field"),
    (
        r#"{"event_type":"a","eventType":"a"}"#,
        Reason::MalformedRequest,
        "event.event_type",
        "twice",
    ),
    (r#"{"data":1,"data":1}"#, Reason::MalformedRequest, "event.data", "twice"),
    (
        r#"{"data":1,"data_base64":""}"#,
        Reason::InvalidField,
        "event.data_base64",
        "together with data",
    ),
    (
        r#"{"data_base64":"","data":1}"#,
        Reason::InvalidField,
        "event.data",
        "together with data_base64",
    ),
    (r#"{"data_base64":"?"}"#, Reason::InvalidField, "event.data_base64", "base64"),
    (r#"{"event_type":1}"#, Reason::InvalidField, "event.event_type", "string"),
    (r#"{"event_type":{}}"#, Reason::InvalidField, "event.event_type", "must not be an object"),
    (r#"{"event_type":["a"]}"#, Reason::InvalidField, "event.event_type", "must not be a list"),
    (r#"{"event_type":"a\u0000"}"#, Reason::InvalidField, "event.event_type", "NUL"),
    (r#"{"headers":{"a":"\u0000"}}"#, Reason::InvalidField, r#"event.headers["a"]"#, "NUL"),
    (r#"{"headers":{"a\u0000":""}}"#, Reason::InvalidField, r#"event.headers["a\u0000"]"#, "NUL"),
    (r#"{"headers":{"a":"","a":""}}"#, Reason::MalformedRequest, r#"event.headers["a"]"#, "twice"),
    (r#"{"headers":{"a":null}}"#, Reason::InvalidField, r#"event.headers["a"]"#, "null"),
    (r#"{"headers":[]}"#, Reason::InvalidField, "event.headers", "object"),
    (r#"{"deliver_at":"yesterday"}"#, Reason::InvalidField, "event.deliver_at", "RFC 3339"),
    (r#"{"deliver_at":{"seconds":1}}"#, Reason::InvalidField, "event.deliver_at", "object"),
    (r#"{"event_type":1e400}"#, Reason::MalformedRequest, "event.event_type", "not JSON"),
    (r#"{"event_type":"\ud800"}"#, Reason::MalformedRequest, "event.event_type", "not JSON"),
    (r#"{"data":[1,]}"#, Reason::MalformedRequest, "event.data", "not JSON"),
    (r#"{"data":{},}"#, Reason::MalformedRequest, "event", "not JSON"),
    (r#"{} {}"#, Reason::MalformedRequest, "", "not JSON"),
    ("[]", Reason::InvalidField, "event", "object"),
    ("1", Reason::InvalidField, "event", "object"),
    ("{", Reason::MalformedRequest, "event", "not JSON"),
    ("", Reason::MalformedRequest, "event", "not JSON"),
];

#[test]
fn errors_name_the_faulty_field() {
    for (text, reason, field, description) in REFUSED_EVENTS {
        let error = event(text).expect_err(text);
        assert_eq!(error.reason, *reason, "{text}: {error}");
        assert!(error.message.contains(description), "{text}: {error}");
        assert_eq!(
            error.violations.first().map_or("", |violation| &violation.field),
            *field,
            "{text}: {error}"
        );
    }
}

#[test]
fn paths_go_through_lists() {
    let error = read_as(
        "outrider.ingest.v1.BatchPublishEventsRequest",
        r#"{"events":[{},{},{},{"event_type":7}]}"#,
    )
    .unwrap_err();
    assert_eq!(error.violations[0].field, "events[3].event_type");
    let error = read_as("outrider.ingest.v1.BatchPublishEventsRequest", r#"{"events":[null]}"#)
        .unwrap_err();
    assert_eq!(error.violations[0].field, "events[0]");
    let error =
        read_as("outrider.ingest.v1.BatchPublishEventsRequest", r#"{"events":{}}"#).unwrap_err();
    assert_eq!(error.violations[0].field, "events");
    let error = read_as("outrider.ingest.v1.BatchPublishEventsRequest", "[]").unwrap_err();
    assert_eq!(error.message, "the body must be an object");
}

#[test]
fn numbers_enums_and_oneofs_are_checked() {
    let refused = |text: &str| {
        read_as("outrider.admin.v1.Endpoint", text).expect_err(text).violations[0].field.clone()
    };
    assert_eq!(refused(r#"{"max_in_flight":-1}"#), "max_in_flight");
    assert_eq!(refused(r#"{"max_in_flight":4294967296}"#), "max_in_flight");
    assert_eq!(refused(r#"{"max_in_flight":1.5}"#), "max_in_flight");
    assert_eq!(refused(r#"{"state":"SLEEPING"}"#), "state");
    assert_eq!(refused(r#"{"timeout":"15"}"#), "timeout");
    assert_eq!(refused(r#"{"http":{"url":1}}"#), "http.url");
    assert_eq!(refused(r#"{"http":{"uri":""}}"#), "http.uri");
    let good =
        r#"{"maxInFlight":"7","state":2,"timeout":"1.5s","http":{"url":"u"},"description":null}"#;
    let read = read_as("outrider.admin.v1.Endpoint", good).unwrap();
    assert_eq!(read.present, ["max_in_flight", "state", "timeout", "http", "description"]);
}

#[test]
fn both_kinds_of_depth_are_bounded() {
    let nested = |depth: usize| format!("{{\"data\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
    assert!(event(&nested(outrider_model::limits::JSON_DEPTH)).is_ok());
    let error = event(&nested(outrider_model::limits::JSON_DEPTH + 1)).unwrap_err();
    assert_eq!(
        (error.reason, error.violations[0].field.as_str()),
        (Reason::MalformedRequest, "event.data")
    );
    assert!(event(&nested(500_000)).is_err());
    let error = event(&format!("{{\"event_type\":{}", "[".repeat(100_000))).unwrap_err();
    assert_eq!(error.violations[0].field, "event.event_type");
}

#[test]
fn bytes_that_are_not_utf8_are_refused() {
    let error = message(
        &Bytes::from_static(b"{\"a\":\"\xff\"}"),
        &desc("outrider.ingest.v1.NewEvent"),
        &free(),
    )
    .unwrap_err();
    assert_eq!(error.message, "the body is not UTF-8 at byte 6");
}

#[test]
fn keys_are_shown_in_part() {
    let error = event(&format!("{{{:?}:1}}", "k".repeat(10_000))).unwrap_err();
    assert!(error.message.len() < 200);
}

#[test]
fn the_text_of_json_fields_is_kept() {
    let schema = |text: &str| {
        let read = read_as("outrider.admin.v1.EventType", text)
            .map_err(|error| (error.reason, error.message.into_owned()))?;
        let Some(Value::Message(message)) = read.value else { panic!("no message") };
        let schema = message.get_field_by_name("schema").unwrap().as_str().unwrap().to_owned();
        Ok::<_, (Reason, String)>((schema, read.present))
    };
    for text in [r#"{"maximum": 1.0e2,  "x":"\u0000"}"#, "true", "[1]", r#""text""#] {
        assert_eq!(
            schema(&format!("{{\"schema\" : \n {text} \n}}")).unwrap(),
            (text.to_owned(), vec!["schema".to_owned()])
        );
    }
    // The field is named without a value, so it is cleared.
    assert_eq!(schema(r#"{"schema":null}"#).unwrap(), (String::new(), vec!["schema".to_owned()]));
    assert_eq!(schema("{}").unwrap(), (String::new(), vec![]));
    let deep = format!(
        "{{\"schema\":{}{}}}",
        "[".repeat(outrider_model::limits::JSON_DEPTH + 1),
        "]".repeat(outrider_model::limits::JSON_DEPTH + 1)
    );
    for (text, why) in [
        (r#"{"schema":{,}}"#, "not JSON"),
        (r#"{"schema":1,"schema":1}"#, "twice"),
        (deep.as_str(), "levels deep"),
    ] {
        let (reason, message) = schema(text).unwrap_err();
        assert!(
            reason == Reason::MalformedRequest
                && message.contains("schema")
                && message.contains(why),
            "{message}"
        );
    }
}

#[test]
fn lists_and_maps_are_bounded_while_they_are_read() {
    let batch = |events: usize, rest: &str| {
        let text = format!("{{\"events\":[{}{rest}]}}", vec!["{}"; events].join(","));
        read_as("outrider.ingest.v1.BatchPublishEventsRequest", &text)
    };
    assert!(batch(1_000, "").is_ok());
    let error = batch(1_000, ",{").unwrap_err();
    assert_eq!(
        error.reason,
        Reason::MalformedRequest,
        "it is cut off before there is one too many"
    );
    let error = batch(1_001, ",nonsense").unwrap_err();
    assert_eq!(
        (error.reason, error.violations[0].field.as_str()),
        (Reason::InvalidField, "events")
    );
    assert!(error.message.contains("at most 1000 entries"), "{error}");
    let headers = |count: usize| {
        (0..count).map(|number| format!("\"h{number}\":\"\"")).collect::<Vec<_>>().join(",")
    };
    assert!(event(&format!("{{\"headers\":{{{}}}}}", headers(32))).is_ok());
    let error = event(&format!("{{\"headers\":{{{},nonsense", headers(33))).unwrap_err();
    assert_eq!(
        (error.reason, error.violations[0].field.as_str()),
        (Reason::InvalidField, "event.headers")
    );
}

#[test]
fn memory_is_counted_while_it_is_taken() {
    let text = Bytes::from(format!("{{\"events\":[{}]}}", vec!["{}"; 1_000].join(",")));
    let desc = desc("outrider.ingest.v1.BatchPublishEventsRequest");
    assert!(message(&text, &desc, &Cost::alone(text.len(), 2 << 20)).is_ok());
    let error = message(&text, &desc, &Cost::alone(text.len(), 1 << 19)).unwrap_err();
    assert_eq!(
        (error.reason, error.violations[0].field.as_str()),
        (Reason::TooLarge, "events[511]")
    );
}
