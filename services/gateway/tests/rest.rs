//! REST requests converted to messages and back, over a real socket.
#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

mod common;

use common::{BEARER, Running, request};
use outrider_proto::{admin, dispatch, ingest};

const EVENTS: &str = "/v1/projects/prj_1/events";

#[tokio::test]
async fn publishes_with_the_text_of_data_as_it_stood() {
    let running = Running::start().await;
    let data = r#"{"a":1.0,  "b":1e400, "dup":1,"dup":2}"#;
    let body = format!(
        r#"{{ "eventType": "a.b", "data" : {data} , "headers":{{"x-a":"1"}},
            "deliver_at":"2030-01-01T00:00:00.25Z" }}"#
    );
    let mut publish = request("POST", EVENTS, Some(&body));
    publish.headers_mut().insert("x-request-id", "mine-1".parse().unwrap());
    let answer = running.send(publish).await;

    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(
        answer.text,
        r#"{"event_id":"evt_1","duplicate":false,"delivery_count":0,"warnings":[]}"#
    );
    assert_eq!(answer.headers["content-type"], "application/json");
    assert_eq!(answer.headers["x-request-id"], "mine-1");
    let got: ingest::PublishEventRequest = running.got.last();
    let event = got.event.unwrap();
    assert_eq!(got.project_id, "prj_1");
    assert_eq!(event.payload, data);
    assert_eq!((event.event_type.as_str(), event.headers["x-a"].as_str()), ("a.b", "1"));
    assert_eq!(
        event.deliver_at,
        Some(prost_types::Timestamp { seconds: 1_893_456_000, nanos: 250_000_000 })
    );
    let call = running.got.calls().pop().unwrap();
    assert_eq!(call.authorization.as_deref(), Some(BEARER));
    assert_eq!(call.request_id.as_deref(), Some("mine-1"));
}

#[tokio::test]
async fn publishes_over_http2_too() {
    let running = Running::start().await;
    let answer = running
        .send_http2(request("POST", EVENTS, Some(r#"{"event_type":"a","data_base64":"/w=="}"#)))
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(
        running.got.last::<ingest::PublishEventRequest>().event.unwrap().payload,
        b"\xff".as_slice()
    );
}

#[tokio::test]
async fn batches_have_results_of_both_kinds() {
    let running = Running::start().await;
    let answer = running
        .post(
            "/v1/projects/prj_1/events:batch",
            r#"{"events":[{"event_type":"a","data":[1, 2]},{"data":null}]}"#,
        )
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let got: ingest::BatchPublishEventsRequest = running.got.last();
    assert_eq!(
        got.events.iter().map(|event| event.payload.as_ref()).collect::<Vec<_>>(),
        [b"[1, 2]".as_slice(), b"null"]
    );
    let json = answer.json();
    assert_eq!(json["results"][0]["accepted"]["event_id"], "evt_1");
    let error = &json["results"][1]["error"];
    assert_eq!(
        (error["code"].as_u64(), error["reason"].as_str()),
        (Some(400), Some("INVALID_FIELD"))
    );
    assert_eq!(error["violations"][0]["field"], "events[1].event_type");
}

#[tokio::test]
async fn an_event_is_shown_with_the_text_of_its_payload() {
    let running = Running::start().await;
    let answer = running.get("/v1/projects/prj_1/events/evt%5F1").await;
    assert!(answer.text.contains(r#""data":{"a":1.0,  "b":1e400}"#), "{answer:?}");
    assert_eq!(running.got.last::<dispatch::GetEventRequest>().event_id, "evt_1");
}

#[tokio::test]
async fn query_parameters_fill_fields_in_both_spellings() {
    let running = Running::start().await;
    let query = "page_size=7&pageToken=a%2Bb+c&status=DELIVERY_STATUS_FAILED&\
        startTime=2024-01-01T00:00:00Z&event_id=evt_1";
    let answer = running.get(&format!("/v1/projects/p%20%2F1/deliveries?{query}")).await;
    assert_eq!(answer.text, r#"{"deliveries":[],"next_page_token":"","previous_page_token":""}"#);
    let got: dispatch::ListDeliveriesRequest = running.got.last();
    assert_eq!(
        (got.project_id.as_str(), got.page_size, got.page_token.as_str()),
        ("p /1", 7, "a+b c")
    );
    assert_eq!((got.status(), got.event_id.as_str()), (dispatch::DeliveryStatus::Failed, "evt_1"));
    assert_eq!(got.start_time.unwrap().seconds, 1_704_067_200);
}

#[tokio::test]
async fn query_parameters_that_are_wrong_are_named() {
    let running = Running::start().await;
    for (query, reason, field) in [
        ("limit=1", "MALFORMED_REQUEST", "limit"),
        ("a.b=1", "MALFORMED_REQUEST", "a.b"),
        ("page_size=many", "INVALID_FIELD", "page_size"),
        ("page_size=3000000000", "INVALID_FIELD", "page_size"),
        ("page_size=1&pageSize=1", "MALFORMED_REQUEST", "pageSize"),
        ("status=FAILED", "INVALID_FIELD", "status"),
        ("startTime=yesterday", "INVALID_FIELD", "start_time"),
        ("event_id=%00", "INVALID_FIELD", "event_id"),
        ("event_id=%ff", "MALFORMED_REQUEST", "event_id"),
        ("project_id=other", "MALFORMED_REQUEST", "project_id"),
        ("start_time.seconds=1", "MALFORMED_REQUEST", "start_time.seconds"),
    ] {
        let answer = running.get(&format!("/v1/projects/p/deliveries?{query}")).await;
        let (status, got_reason, got_field) = answer.refused();
        assert_eq!((status, got_reason.as_str()), (400, reason), "{query}: {answer:?}");
        assert_eq!(got_field, field, "{query}");
    }
    assert!(running.got.calls().is_empty());
}

#[tokio::test]
async fn lists_in_queries_and_masks_are_bounded() {
    let running = Running::start().await;
    let tail =
        |entries| format!("/v1/projects/p/deliveries:tail?{}", "statuses=1&".repeat(entries));
    assert_eq!(running.exchange(request("GET", &tail(16), None)).await.status(), 200);
    let calls = running.got.calls().len();
    let answer = running.get(&tail(17)).await;
    answer.is_refused(400, "INVALID_FIELD", "statuses");
    assert_eq!(answer.json()["error"]["message"], "statuses: must have at most 16 entries");
    let endpoint = "/v1/projects/p/endpoints/ep_1";
    let mask = |paths| format!("{endpoint}?update_mask={}", vec!["name"; paths].join(","));
    let answer = running.send(request("PATCH", &mask(257), Some("{}"))).await;
    answer.is_refused(400, "INVALID_FIELD", "update_mask");
    assert_eq!(answer.json()["error"]["message"], "update_mask: must have at most 256 entries");
    assert_eq!(running.got.calls().len(), calls, "no role sees them");
    running.send(request("PATCH", &mask(256), Some("{}"))).await;
    assert_eq!(
        running.got.last::<admin::UpdateEndpointRequest>().update_mask.unwrap().paths.len(),
        256
    );
}

#[tokio::test]
async fn additional_bindings_and_verbs_are_routes() {
    let running = Running::start().await;
    running.get("/v1/projects/p/deliveries/dlv_1/attempts").await;
    assert_eq!(running.got.last::<dispatch::ListDeliveryAttemptsRequest>().delivery_id, "dlv_1");
    let answer = running.send(request("POST", "/v1/projects/p/deliveries/dlv_1:retry", None)).await;
    assert_eq!(answer.json()["delivery_id"], "dlv_1", "{answer:?}");
    assert_eq!(running.got.last::<dispatch::RetryDeliveryRequest>().delivery_id, "dlv_1");
    let same =
        running.post("/v1/projects/p/deliveries/dlv_1:retry", r#"{"delivery_id":"dlv_1"}"#).await;
    assert_eq!(same.status, 200);
    let other =
        running.post("/v1/projects/p/deliveries/dlv_1:retry", r#"{"delivery_id":"dlv_2"}"#).await;
    other.is_refused(400, "INVALID_FIELD", "delivery_id");
}

#[tokio::test]
async fn the_mask_of_an_update_is_the_keys_of_the_body_unless_it_is_given() {
    let running = Running::start().await;
    let path = "/v1/projects/p/endpoints/ep_1";
    let answer = running
        .send(request(
            "PATCH",
            path,
            Some(r#"{"maxInFlight":7,"description":null,"http":{"url":"u"}}"#),
        ))
        .await;
    assert_eq!(answer.json()["max_in_flight"], 7, "{answer:?}");
    let got: admin::UpdateEndpointRequest = running.got.last();
    assert_eq!(got.update_mask.unwrap().paths, ["max_in_flight", "description", "http"]);
    assert_eq!((got.endpoint_id.as_str(), got.endpoint.unwrap().max_in_flight), ("ep_1", 7));

    running
        .send(request(
            "PATCH",
            &format!("{path}?updateMask=description,ownerId"),
            Some(r#"{"description":"d"}"#),
        ))
        .await;
    assert_eq!(
        running.got.last::<admin::UpdateEndpointRequest>().update_mask.unwrap().paths,
        ["description", "owner_id"]
    );

    running.send(request("PATCH", path, Some("{}"))).await;
    assert_eq!(running.got.last::<admin::UpdateEndpointRequest>().update_mask, None);
}

#[tokio::test]
async fn fields_beside_the_body_come_from_the_query() {
    let running = Running::start().await;
    let answer = running
        .post("/v1/projects/p/endpoints?request_id=r", r#"{"http":{"url":"u"},"secret":"s"}"#)
        .await;
    assert_eq!(answer.json()["secret"], "whsec_x");
    let got = running.got.last::<admin::CreateEndpointRequest>();
    assert_eq!(
        (got.request_id.as_str(), got.endpoint.unwrap().secret.as_deref()),
        ("r", Some("s"))
    );
    for query in ["secret=s", "endpoint.secret=s"] {
        let refused = running
            .post(&format!("/v1/projects/p/endpoints?{query}"), r#"{"http":{"url":"u"}}"#)
            .await;
        assert!(
            refused.text.contains("is a secret, which must be given in the body"),
            "{refused:?}"
        );
        refused.is_refused(400, "MALFORMED_REQUEST", query.strip_suffix("=s").unwrap());
    }
    let twice = running.post("/v1/projects/p/endpoints?endpoint.description=d", "{}").await;
    twice.is_refused(400, "MALFORMED_REQUEST", "endpoint.description");
}

#[tokio::test]
async fn the_idempotency_key_may_be_a_header() {
    let running = Running::start().await;
    let send = async |body: &str, key: &'static str| {
        let mut publish = request("POST", EVENTS, Some(body));
        publish.headers_mut().insert("idempotency-key", key.parse().unwrap());
        running.send(publish).await
    };
    assert_eq!(send(r#"{"event_type":"a"}"#, "k1").await.status, 200);
    assert_eq!(
        running.got.last::<ingest::PublishEventRequest>().event.unwrap().idempotency_key,
        "k1"
    );
    assert_eq!(send(r#"{"idempotency_key":"k1"}"#, "k1").await.status, 200);
    send(r#"{"idempotency_key":"k2"}"#, "k1").await.is_refused(
        400,
        "INVALID_FIELD",
        "event.idempotency_key",
    );
    send("{}", "").await.is_refused(400, "INVALID_FIELD", "idempotency-key");
}

#[tokio::test]
async fn the_key_of_a_creation_is_its_request_id_and_no_post_passes_one_over() {
    let running = Running::start().await;
    let send = async |path: &str, body: &str| {
        let mut post = request("POST", path, Some(body));
        post.headers_mut().insert("idempotency-key", "k1".parse().unwrap());
        running.send(post).await
    };
    assert_eq!(send("/v1/projects/p/endpoints", r#"{"http":{"url":"u"}}"#).await.status, 200);
    assert_eq!(running.got.last::<admin::CreateEndpointRequest>().request_id, "k1");
    for (path, body, of_events) in [
        (&format!("{EVENTS}:batch")[..], r#"{"events":[]}"#, true),
        ("/v1/projects/p/deliveries/d:retry", "", false),
        (&format!("{EVENTS}/e:erasePayload"), "", false),
    ] {
        let refused = send(path, body).await;
        assert!(refused.text.contains("is not supported by this method"), "{refused:?}");
        assert_eq!(
            refused.text.contains("give each event an idempotency_key"),
            of_events,
            "{refused:?}"
        );
        refused.is_refused(400, "INVALID_FIELD", "idempotency-key");
    }
}

#[tokio::test]
async fn bodies_that_are_wrong_are_refused_before_a_role_sees_them() {
    let running = Running::start().await;
    let deep = format!(r#"{{"data":{}{}}}"#, "[".repeat(129), "]".repeat(129));
    for (body, reason, field) in [
        (r#"{"event_type":1}"#, "INVALID_FIELD", "event.event_type"),
        (r#"{"eventtype":"a"}"#, "MALFORMED_REQUEST", "event.eventtype"),
        (r#"{"payload":"aGk="}"#, "MALFORMED_REQUEST", "event.payload"),
        (r#"{"event_type":"a","event_type":"b"}"#, "MALFORMED_REQUEST", "event.event_type"),
        (r#"{"event_type":"\u0000"}"#, "INVALID_FIELD", "event.event_type"),
        (r#"{"data":1,"data_base64":"aGk="}"#, "INVALID_FIELD", "event.data_base64"),
        (r#"{"data_base64":"*"}"#, "INVALID_FIELD", "event.data_base64"),
        (&deep, "MALFORMED_REQUEST", "event.data"),
        ("{", "MALFORMED_REQUEST", "event"),
    ] {
        running.post(EVENTS, body).await.is_refused(400, reason, field);
    }
    let batch = running
        .post("/v1/projects/p/events:batch", r#"{"events":[{},{},{},{"event_type":[]}]}"#)
        .await;
    batch.is_refused(400, "INVALID_FIELD", "events[3].event_type");
    assert!(running.got.calls().is_empty());
}

#[tokio::test]
async fn bodies_must_be_declared_and_wanted() {
    let running = Running::start().await;
    let mut form = request("POST", EVENTS, Some("a=1"));
    form.headers_mut().insert("content-type", "application/x-www-form-urlencoded".parse().unwrap());
    running.send(form).await.is_refused(400, "MALFORMED_REQUEST", "");
    let mut bare = request("POST", EVENTS, Some("{}"));
    bare.headers_mut().remove("content-type");
    running.send(bare).await.is_refused(400, "MALFORMED_REQUEST", "");
    for (media_type, status) in [
        ("application/json; charset=utf-8", 200),
        ("APPLICATION/JSON;charset=\"UTF-8\"", 200),
        ("application/json; charset=utf-16", 400),
        ("application/json; version=1; charset=latin1", 400),
    ] {
        let mut charset = request("POST", EVENTS, Some("{}"));
        charset.headers_mut().insert("content-type", media_type.parse().unwrap());
        assert_eq!(running.send(charset).await.status, status, "{media_type}");
    }
    running.send(request("GET", EVENTS, Some("{}"))).await.is_refused(400, "MALFORMED_REQUEST", "");
    running.send(request("DELETE", "/v1/projects/p/endpoints/e", Some("{}"))).await.is_refused(
        400,
        "MALFORMED_REQUEST",
        "",
    );
    assert_eq!(
        running.send(request("DELETE", "/v1/projects/p/endpoints/e", None)).await.text,
        "{}"
    );
}

#[tokio::test]
async fn a_byte_order_mark_before_the_body_is_not_looked_at() {
    let running = Running::start().await;
    let plain = running.post(EVENTS, "{\"event_type\": \"a\", \"data\": {\"b\":  1}}").await;
    let marked =
        running.post(EVENTS, "\u{feff}{\"event_type\": \"a\", \"data\": {\"b\":  1}}").await;
    assert_eq!((plain.status.as_u16(), marked.status), (200, plain.status));
    for (elsewhere, field) in
        [("\u{feff}\u{feff}{}", "event"), ("{\u{feff}}", "event"), ("{}\u{feff}", "")]
    {
        running.post(EVENTS, elsewhere).await.is_refused(400, "MALFORMED_REQUEST", field);
    }
}

#[tokio::test]
async fn errors_of_roles_keep_their_reason() {
    let running = Running::start().await;
    let of =
        async |project: &str| running.post(&format!("/v1/projects/{project}/events"), "{}").await;
    let no_key = of("no_key").await;
    no_key.is_refused(401, "MISSING_CREDENTIALS", "");
    assert_eq!(no_key.headers["www-authenticate"], "Bearer");
    assert_eq!(no_key.json()["error"]["status"], "UNAUTHENTICATED");
    of("missing").await.is_refused(404, "NOT_FOUND", "");
    of("bad").await.is_refused(400, "INVALID_FIELD", "event.event_type");
    of("bad_payload").await.is_refused(400, "INVALID_FIELD", "event.data");
    let full = of("full").await;
    full.is_refused(429, "OVERLOADED", "");
    assert_eq!(
        (&full.headers["retry-after"], full.json()["error"]["retry_after_seconds"].as_u64()),
        (&"2".parse().unwrap(), Some(2))
    );
    of("panics").await.is_refused(500, "INTERNAL", "");
    // A role that does not serve the method at all.
    running.get("/v1/organizations").await.is_refused(404, "UNKNOWN_METHOD", "");
}

#[tokio::test]
async fn paths_and_methods_that_do_not_exist() {
    let running = Running::start().await;
    for path in [
        "/",
        "/v1",
        "/v1/projects/",
        "/v1/projects/p/endpoints/",
        "/v1/projects//endpoints",
        "/v2/projects",
        "/v1/projects/p/events:nothing/x",
    ] {
        running.get(path).await.is_refused(404, "UNKNOWN_METHOD", "");
    }
    running.get("/v1/projects/%ff").await.is_refused(400, "MALFORMED_REQUEST", "");
    let put = running.send(request("PUT", "/v1/projects/p/endpoints/e", Some("{}"))).await;
    put.is_refused(405, "METHOD_NOT_ALLOWED", "");
    assert_eq!(put.headers["allow"], "DELETE, GET, HEAD, PATCH");
    let verb = running.get("/v1/projects/p/events:batch").await;
    verb.is_refused(405, "METHOD_NOT_ALLOWED", "");
    assert_eq!(verb.headers["allow"], "POST");
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    let running = Running::start().await;
    let path = "/v1/projects/p/endpoints/ep_1";
    let length = running.get(path).await.text.len().to_string();
    for head in [
        running.send(request("HEAD", path, None)).await,
        running.send_http2(request("HEAD", path, None)).await,
    ] {
        assert_eq!((head.status.as_u16(), head.text.as_str()), (200, ""));
        assert_eq!(head.headers["content-length"], length.as_str());
    }
    let missing = running.send(request("HEAD", "/nowhere", None)).await;
    assert_eq!((missing.status.as_u16(), missing.text.as_str()), (404, ""));
}
