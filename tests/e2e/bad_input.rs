//! Input that no honest client sends gets a 4xx with a reason and the field, and never leaves a
//! row.

use anyhow::{Context, Result, ensure};
use http::Method;
use outrider_proto::ingest::{BatchPublishEventsRequest, NewEvent, PublishEventRequest};
use outrider_tests::client::{Reply, exchange};
use serde_json::{Value, json};
use tonic::Code;

use crate::{findings::Findings, scenario::Scenario};

scenarios! {
    by_process: [
        bad_events_are_refused,
        bad_http_is_refused,
        oversized_bodies_are_refused,
        bad_queries_are_refused,
        bad_endpoints_are_refused,
        bad_grpc_is_refused,
    ],
}

const INVALID: &str = "INVALID_FIELD";
const MALFORMED: &str = "MALFORMED_REQUEST";

fn check(reply: &Reply, what: &str, status: u16, reason: &str, field: &str) -> Result<()> {
    let context = || {
        format!(
            "{what:.200}: expected {status} {reason} {field:?}, got {} {}",
            reply.status,
            String::from_utf8_lossy(&reply.body)
        )
    };
    ensure!(reply.status == status && reply.reason() == reason, context());
    let error = &reply.json().with_context(context)?["error"];
    ensure!(
        error["code"].is_number() && error["status"].is_string() && error["message"].is_string(),
        context()
    );
    ensure!(
        field.is_empty() || reply.fields().iter().any(|named| named.contains(field)),
        context()
    );
    Ok(())
}

async fn nothing_was_stored(scenario: &Scenario) -> Result<()> {
    for noun in ["events", "deliveries", "attempts", "endpoints", "subscriptions"] {
        let page = scenario.rest.get(&scenario.path(noun)).await?;
        ensure!(page[noun].as_array().is_none_or(Vec::is_empty), "a row was left: {page}");
    }
    Ok(())
}

/// Returns invalid bodies of a publish, with the reason and the field in the expected answer.
fn bad_bodies() -> Vec<(Vec<u8>, &'static str, &'static str)> {
    let deep =
        format!("{{\"event_type\":\"a\",\"data\":{}1{}}}", "[".repeat(10_000), "]".repeat(10_000));
    let long = "x".repeat(257);
    let many: serde_json::Map<String, Value> =
        (0..33).map(|n| (format!("x-{n}"), json!("v"))).collect();
    let texts = [
        ("", INVALID, "event"),
        ("{", MALFORMED, ""),
        ("[]", INVALID, "event"),
        ("null", INVALID, "event"),
        ("\"text\"", INVALID, "event"),
        ("{\"event_type\":\"a\",\"data\":{}} trailing", MALFORMED, ""),
        ("{\"event_type\":\"a\",\"data\":{\"a\":}}", MALFORMED, ""),
        ("{\"event_type\":\"a\",\"data\":01}", MALFORMED, ""),
        ("{\"event_type\":\"a\",\"data\":1,\"unknown_field\":1}", MALFORMED, "unknown_field"),
        ("{\"event_type\":\"a\",\"event_type\":\"b\",\"data\":1}", MALFORMED, "event_type"),
        ("{\"event_type\":5,\"data\":1}", INVALID, "event_type"),
        ("{\"event_type\":\"a\",\"data\":1,\"headers\":[]}", INVALID, "headers"),
        ("{\"event_type\":\"a\",\"data\":1,\"headers\":{\"a\":1}}", INVALID, "headers"),
        ("{\"event_type\":\"a\",\"data\":1,\"deliver_at\":\"tomorrow\"}", INVALID, "deliver_at"),
        ("{\"event_type\":\"a\",\"data_base64\":\"***\"}", INVALID, "data_base64"),
        ("{\"event_type\":\"a\",\"data\":1,\"data_base64\":\"AA==\"}", INVALID, "data"),
        ("{\"data\":1}", INVALID, "event_type"),
        ("{\"event_type\":\"\",\"data\":1}", INVALID, "event_type"),
        ("{\"event_type\":\"a b\",\"data\":1}", INVALID, "event_type"),
        ("{\"event_type\":\"a..b\",\"data\":1}", INVALID, "event_type"),
        ("{\"event_type\":\"a.*\",\"data\":1}", INVALID, "event_type"),
        ("{\"event_type\":\"a\\u0000b\",\"data\":1}", INVALID, "event_type"),
        (
            "{\"event_type\":\"a\",\"data\":1,\"idempotency_key\":\"a\\u0000b\"}",
            INVALID,
            "idempotency_key",
        ),
        (
            "{\"event_type\":\"a\",\"data\":1,\"idempotency_key\":\"schlüssel\"}",
            INVALID,
            "idempotency_key",
        ),
        (
            "{\"event_type\":\"a\",\"data\":1,\"headers\":{\"webhook-id\":\"x\"}}",
            INVALID,
            "headers",
        ),
        ("{\"event_type\":\"a\",\"data\":1,\"headers\":{\"host\":\"x\"}}", INVALID, "headers"),
        (
            "{\"event_type\":\"a\",\"data\":1,\"headers\":{\"x-a\":\"a\\r\\nb: c\"}}",
            INVALID,
            "headers",
        ),
        ("{\"event_type\":\"a\",\"data\":1,\"metadata\":{\"a\":\"\\u0000\"}}", INVALID, "metadata"),
        (
            "{\"event_type\":\"a\",\"data\":1,\"ordering_key\":\"a\\u0000\"}",
            INVALID,
            "ordering_key",
        ),
        (
            "{\"event_type\":\"a\",\"data\":1,\"deliver_at\":\"2999-01-01T00:00:00Z\"}",
            INVALID,
            "deliver_at",
        ),
        ("{\"event_type\":\"a\",\"data_base64\":\"bm8ganNvbg==\"}", INVALID, ""),
        (
            "{\"event_type\":\"a\",\"data\":1,\"content_type\":\"no type\\u0000\"}",
            INVALID,
            "content_type",
        ),
    ];
    let mut bodies: Vec<_> =
        texts.map(|(text, reason, field)| (text.as_bytes().to_vec(), reason, field)).into();
    bodies.push((deep.into_bytes(), MALFORMED, ""));
    bodies.push((b"{\"event_type\":\"a\",\"data\":\"\xff\xfe\"}".to_vec(), MALFORMED, ""));
    bodies.push((b"\xff\xfe{\x00}".to_vec(), MALFORMED, ""));
    bodies.push((b"{\"event_type\":\"a\",\"data\":\"\x00\"}".to_vec(), MALFORMED, ""));
    bodies.push((
        json!({"event_type": long, "data": 1}).to_string().into_bytes(),
        INVALID,
        "event_type",
    ));
    bodies.push((
        json!({"event_type": "a", "data": 1, "idempotency_key": long}).to_string().into_bytes(),
        INVALID,
        "idempotency_key",
    ));
    bodies.push((
        json!({"event_type": "a", "data": 1, "headers": many}).to_string().into_bytes(),
        INVALID,
        "headers",
    ));
    bodies.push((
        json!({"event_type": "a", "data": 1, "metadata": {"a": "x".repeat(9_000)}})
            .to_string()
            .into_bytes(),
        INVALID,
        "metadata",
    ));
    bodies
}

async fn bad_events_are_refused(scenario: &Scenario) -> Result<()> {
    let mut findings = Findings::default();
    for (body, reason, field) in bad_bodies() {
        let what = String::from_utf8_lossy(&body).into_owned();
        let reply = scenario.rest.send(Method::POST, &scenario.path("events"), body).await?;
        findings.add(check(&reply, &what, 400, reason, field));
    }
    let batch = scenario.path("events:batch");
    let too_many: Vec<_> = (0..1_001).map(|n| json!({"event_type": "a", "data": n})).collect();
    for (body, reason, field) in [
        (json!({"events": []}), INVALID, "events"),
        (json!({"events": too_many}), INVALID, "events"),
        (json!({"events": {}}), INVALID, "events"),
        (json!({"events": [1]}), INVALID, "events"),
        (json!({"events": [{"event_type": "a", "data": 1, "unknown": 2}]}), MALFORMED, "unknown"),
    ] {
        let reply = scenario.rest.send(Method::POST, &batch, body.to_string()).await?;
        findings.add(check(&reply, &format!("batch {body}"), 400, reason, field));
    }
    findings.finish()?;
    nothing_was_stored(scenario).await
}

async fn bad_http_is_refused(scenario: &Scenario) -> Result<()> {
    let event = "{\"event_type\":\"a\",\"data\":1}";
    for (method, path, status, reason) in [
        (Method::POST, "/v1/nothing".to_owned(), 404, "UNKNOWN_METHOD"),
        (Method::POST, "/v1/projects//events".to_owned(), 404, ""),
        (Method::PUT, scenario.path("events"), 405, "METHOD_NOT_ALLOWED"),
        (Method::POST, "/v1/projects/prj_nonsense/events".to_owned(), 400, INVALID),
        (Method::POST, "/v1/projects/%00/events".to_owned(), 400, ""),
        (Method::POST, "/v1/projects/%ff%fe/events".to_owned(), 400, ""),
        (
            Method::POST,
            "/v1/projects/prj_01h455vb4pex5vsknk084sn02q/events".to_owned(),
            404,
            "NOT_FOUND",
        ),
    ] {
        let reply = scenario.rest.send(method.clone(), &path, event).await?;
        let context = || {
            format!("{method} {path}: {} {}", reply.status, String::from_utf8_lossy(&reply.body))
        };
        if reason.is_empty() {
            ensure!(reply.status.is_client_error() && !reply.reason().is_empty(), context());
        } else {
            ensure!(reply.status == status && reply.reason() == reason, context());
        }
    }
    // Headers and request lines that HTTP does not allow.
    for request in [
        "GET / HTTP/9.9\r\n\r\n",
        "\0\0\0\0\r\n\r\n",
        "POST /v1/projects HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
    ] {
        let answer = exchange(&scenario.address, [request.as_bytes().to_vec()]).await?;
        ensure!(answer.status < 500, "{request:?}: {answer:?}");
    }
    nothing_was_stored(scenario).await
}

async fn oversized_bodies_are_refused(scenario: &Scenario) -> Result<()> {
    let payload = format!("{{\"event_type\":\"a\",\"data\":\"{}\"}}", "x".repeat(1_100_000));
    let reply = scenario.rest.send(Method::POST, &scenario.path("events"), payload).await?;
    ensure!(matches!(reply.status.as_u16(), 400 | 413) && !reply.reason().is_empty(), "{reply:?}");

    let head = |more: &str| {
        let (path, token) = (scenario.path("events"), &scenario.token);
        let close = "Content-Type: application/json\r\nConnection: close\r\n";
        format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {token}\r\n{close}{more}\r\n\
                \r\n",
            scenario.address
        )
    };
    // With `Content-Length`, it is refused before a byte of the body is sent.
    let announced =
        exchange(&scenario.address, [head("Content-Length: 1000000000").into_bytes()]).await?;
    ensure!(announced.status == 413 && announced.text.contains("TOO_LARGE"), "{announced:?}");
    // Without `Content-Length`, it is refused once it exceeds the limit, long before its end.
    let begin = b"1a\r\n{\"event_type\":\"a\",\"data\":\"\r\n".to_vec();
    let chunk = || [b"10000\r\n".as_slice(), &[b'x'; 0x1_0000], b"\r\n"].concat();
    let parts = [head("Transfer-Encoding: chunked").into_bytes(), begin]
        .into_iter()
        .chain((0..1_000).map(|_| chunk()));
    let chunked = exchange(&scenario.address, parts).await?;
    ensure!(
        chunked.status == 413 && chunked.text.contains("TOO_LARGE"),
        "after {} bytes: {:.300}",
        chunked.sent,
        chunked.text
    );
    ensure!(chunked.sent < 32_000_000, "{} bytes were taken", chunked.sent);
    nothing_was_stored(scenario).await
}

async fn bad_queries_are_refused(scenario: &Scenario) -> Result<()> {
    let mut findings = Findings::default();
    let unknown = "evt_01h455vb4pex5vsknk084sn02q";
    for (path, status, reason) in [
        ("events?page_token=nonsense".to_owned(), 400, "INVALID_PAGE_TOKEN"),
        ("events?page_token=%00".to_owned(), 400, INVALID),
        ("deliveries?page_token=AAAA".to_owned(), 400, "INVALID_PAGE_TOKEN"),
        ("events?page_size=501".to_owned(), 400, INVALID),
        ("events?page_size=-1".to_owned(), 400, INVALID),
        ("events?page_size=many".to_owned(), 400, INVALID),
        ("events?page_size=99999999999".to_owned(), 400, INVALID),
        ("events?no_such_filter=1".to_owned(), 400, MALFORMED),
        ("events?start_time=yesterday".to_owned(), 400, INVALID),
        ("deliveries?status=DELIVERY_STATUS_LOST".to_owned(), 400, INVALID),
        ("deliveries?endpoint_id=ep_no".to_owned(), 400, INVALID),
        (format!("events/{unknown}"), 404, "NOT_FOUND"),
        ("deliveries/dlv_01h455vb4pex5vsknk084sn02q".to_owned(), 404, "NOT_FOUND"),
        ("attempts/att_01h455vb4pex5vsknk084sn02q".to_owned(), 404, "NOT_FOUND"),
        ("events/nonsense".to_owned(), 400, INVALID),
        (format!("deliveries/{unknown}"), 400, INVALID),
    ] {
        let reply = scenario.rest.send(Method::GET, &scenario.path(&path), "").await?;
        findings.add(check(&reply, &path, status, reason, ""));
    }
    findings.finish()?;
    // A token is refused by another list, and by the same list with other filters.
    for number in 0..3 {
        scenario.publish_id("a", json!(number)).await?;
    }
    let page = scenario.rest.get(&scenario.path("events?page_size=1")).await?;
    let token = crate::scenario::text(&page, "next_page_token")?;
    for path in [
        format!("events?page_token={token}&event_type=b"),
        format!("deliveries?page_token={token}"),
        format!("events?page_token={token}x"),
    ] {
        let reply = scenario.rest.send(Method::GET, &scenario.path(&path), "").await?;
        check(&reply, &path, 400, "INVALID_PAGE_TOKEN", "")?;
    }
    Ok(())
}

async fn bad_endpoints_are_refused(scenario: &Scenario) -> Result<()> {
    let path = scenario.path("endpoints");
    let mut findings = Findings::default();
    for (body, field) in [
        (json!({}), "http"),
        (json!({"http": {"url": ""}}), "url"),
        (json!({"http": {"url": "ftp://example.com/"}}), "url"),
        (json!({"http": {"url": "http://user:password@example.com/"}}), "url"),
        (json!({"http": {"url": "http://example.com/#part"}}), "url"),
        (json!({"http": {"url": "not a url"}}), "url"),
        (json!({"http": {"url": format!("http://example.com/{}", "x".repeat(3_000))}}), "url"),
        (json!({"http": {"url": "http://example.com/"}, "timeout": "31s"}), "timeout"),
        (json!({"http": {"url": "http://example.com/"}, "timeout": "0.5s"}), "timeout"),
        (json!({"http": {"url": "http://example.com/"}, "max_in_flight": 1_025}), "max_in_flight"),
        (
            json!({"http": {"url": "http://example.com/"}, "headers": {"webhook-signature": "x"}}),
            "headers",
        ),
        (json!({"http": {"url": "http://example.com/"}, "endpoint_id": "ep_no"}), "endpoint_id"),
        (
            json!({"http": {"url": "http://example.com/"}, "description": "x".repeat(1_025)}),
            "description",
        ),
    ] {
        let reply = scenario.rest.send(Method::POST, &path, body.to_string()).await?;
        findings.add(check(&reply, &body.to_string(), 400, INVALID, field));
    }
    findings.finish()?;
    let body = json!({"http": {"url": "http://example.com/"}, "secret": "whsec_short"}).to_string();
    let reply = scenario.rest.send(Method::POST, &path, body.clone()).await?;
    check(&reply, "a short secret", 400, INVALID, "secret")?;
    let reply =
        scenario.rest.send(Method::POST, &format!("{path}?secret=whsec_short"), body).await?;
    check(&reply, "a secret in the query", 400, MALFORMED, "secret")?;
    nothing_was_stored(scenario).await?;

    let made = scenario.endpoint("/good", json!({})).await?;
    let subscriptions = scenario.path("subscriptions");
    for (body, field) in [
        (json!({"endpoint_id": made.id, "event_types": []}), "event_types"),
        (json!({"endpoint_id": made.id, "event_types": ["a.*.b"]}), "event_types"),
        (json!({"endpoint_id": made.id, "event_types": ["*.created"]}), "event_types"),
        (json!({"endpoint_id": made.id, "event_types": vec!["a"; 257]}), "event_types"),
        (json!({"event_types": ["a"]}), "endpoint_id"),
    ] {
        let reply = scenario.rest.send(Method::POST, &subscriptions, body.to_string()).await?;
        check(&reply, &body.to_string(), 400, INVALID, field)?;
    }
    let path = scenario.path(&format!("endpoints/{}?update_mask=no_such_field", made.id));
    let reply = scenario.rest.send(Method::PATCH, &path, "{}").await?;
    ensure!(reply.status == 400 && !reply.reason().is_empty(), "{reply:?}");
    let again = json!({"endpoint_id": made.id, "http": {"url": "http://example.com/"}}).to_string();
    let reply = scenario.rest.send(Method::POST, &scenario.path("endpoints"), again).await?;
    ensure!(reply.status == 409 && reply.reason() == "ALREADY_EXISTS", "{reply:?}");
    Ok(())
}

async fn bad_grpc_is_refused(scenario: &Scenario) -> Result<()> {
    let grpc = scenario.grpc().await?;
    let good = NewEvent { event_type: "a".to_owned(), payload: "1".into(), ..NewEvent::default() };
    let project_id = scenario.project.clone();
    for event in [
        None,
        Some(NewEvent { event_type: String::new(), ..good.clone() }),
        Some(NewEvent { payload: "not json".into(), ..good.clone() }),
        Some(NewEvent {
            payload: vec![b' '; 1_048_577].into(),
            content_type: "text/plain".to_owned(),
            ..good.clone()
        }),
        Some(NewEvent {
            headers: [("content-length".to_owned(), "1".to_owned())].into(),
            ..good.clone()
        }),
    ] {
        let request = PublishEventRequest { project_id: project_id.clone(), event };
        let reply = grpc.ingest().publish_event(request).await;
        ensure!(
            reply.as_ref().is_err_and(|status| status.code() == Code::InvalidArgument),
            "{reply:?}"
        );
    }
    let events = vec![
        NewEvent {
            payload: vec![b'x'; 900_000].into(),
            content_type: "text/plain".to_owned(),
            ..good
        };
        9
    ];
    let reply =
        grpc.ingest().batch_publish_events(BatchPublishEventsRequest { project_id, events }).await;
    let refused = [Code::InvalidArgument, Code::OutOfRange, Code::ResourceExhausted];
    ensure!(reply.as_ref().is_err_and(|status| refused.contains(&status.code())), "{reply:?}");
    nothing_was_stored(scenario).await
}
