//! Publishing one event, and what arrives.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use http::Method;
use outrider_proto::{
    dispatch::GetEventRequest,
    ingest::{NewEvent, PublishEventRequest},
};
use serde_json::json;

use crate::{
    scenario::{BOUND, Scenario, flag, number, text},
    verify,
};

scenarios! {
    everywhere: [
        rest_delivers_the_very_text,
        grpc_delivers_the_very_bytes,
        patterns_route_and_an_endpoint_gets_an_event_once,
        deliver_at_is_honored,
    ],
    by_process: [
        receivers_get_what_the_producer_added,
        an_event_that_matches_nothing_says_so,
        official_libraries_verify_what_arrives,
    ],
}

/// JSON of which a parser would keep the meaning but not the text: spaces, the order and repetition
/// of escapes, the spelling of numbers.
const TEXT: &str = "{ \"z\": 1.0e2,\t\"a\" : [ 1 ,2.50],\n \"big\": \
    123456789012345678901234567890, \"e\": \"\\u00e9é\\/\" }";

async fn rest_delivers_the_very_text(scenario: &Scenario) -> Result<()> {
    let target = scenario.target("/rest", &["order.paid"], json!({})).await?;
    for data in [TEXT, "\"just a text\"", "[]", "null", "-0.0"] {
        let body = format!("{{\"event_type\": \"order.paid\", \"data\": {data} }}");
        let reply =
            scenario.rest.send(Method::POST, &scenario.path("events"), body).await?.success()?;
        let id = text(&reply, "event_id")?;
        ensure!(number(&reply, "delivery_count") == 1 && !flag(&reply, "duplicate"), "{reply}");
        scenario.delivery_in(&id, "DELIVERED").await?;
        let received = scenario.receiver.received_of("/rest", &id);
        ensure!(
            received.len() == 1 && received[0].body == data,
            "sent {data}, received {received:?}"
        );
        ensure!(received[0].header("content-type") == "application/json");
        verify::genuine(&received[0], &target.secret)?;
        let event =
            scenario.rest.send(Method::GET, &scenario.path(&format!("events/{id}")), "").await?;
        let stored = String::from_utf8_lossy(&event.body).into_owned();
        ensure!(
            stored.contains(data),
            "the event that is read back lacks the very text {data}: {stored}"
        );
    }
    Ok(())
}

async fn grpc_delivers_the_very_bytes(scenario: &Scenario) -> Result<()> {
    let target = scenario.target("/grpc", &["*"], json!({})).await?;
    let grpc = scenario.grpc().await?;
    let every_byte: Vec<u8> = (0..=255).collect();
    for (payload, content_type) in [
        (every_byte, "application/octet-stream"),
        (TEXT.as_bytes().to_vec(), ""),
        (Vec::new(), "text/plain"),
    ] {
        let event = NewEvent {
            event_type: "file.stored".to_owned(),
            payload: payload.clone().into(),
            content_type: content_type.to_owned(),
            ..NewEvent::default()
        };
        let request =
            PublishEventRequest { project_id: scenario.project.clone(), event: Some(event) };
        let reply = grpc.ingest().publish_event(request).await?.into_inner();
        ensure!(
            reply.delivery_count == 1 && !reply.duplicate && reply.create_time.is_some(),
            "{reply:?}"
        );
        scenario.delivery_in(&reply.event_id, "DELIVERED").await?;
        let received = scenario.receiver.received_of("/grpc", &reply.event_id);
        ensure!(received.len() == 1 && received[0].body == payload, "{received:?}");
        let expected = if content_type.is_empty() { "application/json" } else { content_type };
        ensure!(received[0].header("content-type") == expected, "{received:?}");
        verify::genuine(&received[0], &target.secret)?;

        let request =
            GetEventRequest { project_id: scenario.project.clone(), event_id: reply.event_id };
        let event = grpc.events().get_event(request).await?.into_inner().event.unwrap_or_default();
        ensure!(event.payload == payload && event.content_type == expected, "{event:?}");
    }
    Ok(())
}

async fn receivers_get_what_the_producer_added(scenario: &Scenario) -> Result<()> {
    let own = json!({"headers": {"x-of-endpoint": "yes"}, "metadata": {"team": "red"},
        "description": "d", "owner_id": "customer-1"});
    let target = scenario.target("/headers", &["a.b"], own).await?;
    let published = scenario
        .publish(json!({
            "event_type": "a.b", "data": {}, "headers": {"X-Trace": "abc",
                "User-Agent": "Mine/2"}, "metadata": {"note": "not sent"}, "ordering_key": "k1",
        }))
        .await?;
    let id = text(&published, "event_id")?;
    scenario.delivery_in(&id, "DELIVERED").await?;
    let received = &scenario.receiver.received_of("/headers", &id)[0];
    verify::genuine(received, &target.secret)?;
    ensure!(
        received.header("x-trace") == "abc" && received.header("x-of-endpoint") == "yes",
        "{received:?}"
    );
    ensure!(received.header("user-agent") == "Mine/2", "{received:?}");
    ensure!(received.header("outrider-event-type") == "a.b", "{received:?}");
    ensure!(received.header("outrider-ordering-key") == "k1", "{received:?}");
    ensure!(
        !format!("{:?}", received.headers).contains("not sent"),
        "metadata was sent: {received:?}"
    );
    let event = scenario.rest.get(&scenario.path(&format!("events/{id}"))).await?;
    ensure!(event["metadata"]["note"] == "not sent" && event["ordering_key"] == "k1", "{event}");
    ensure!(
        event["origin"]["kind"] == "ORIGIN_KIND_API"
            && text(&event["origin"], "actor")?.starts_with("key_"),
        "{event}"
    );
    Ok(())
}

async fn an_event_that_matches_nothing_says_so(scenario: &Scenario) -> Result<()> {
    scenario.target("/other", &["order.paid"], json!({})).await?;
    let published = scenario.publish(json!({"event_type": "order.refunded", "data": {}})).await?;
    ensure!(number(&published, "delivery_count") == 0, "{published}");
    let id = text(&published, "event_id")?;
    let event = scenario.rest.get(&scenario.path(&format!("events/{id}"))).await?;
    ensure!(event["routing_outcome"] == "ROUTING_OUTCOME_NO_SUBSCRIPTION", "{event}");
    let deliveries =
        scenario.rest.get(&scenario.path(&format!("deliveries?event_id={id}"))).await?;
    ensure!(deliveries["deliveries"].as_array().is_none_or(Vec::is_empty), "{deliveries}");
    Ok(())
}

async fn patterns_route_and_an_endpoint_gets_an_event_once(scenario: &Scenario) -> Result<()> {
    let exact = scenario.endpoint("/exact", json!({})).await?;
    let prefix = scenario.endpoint("/prefix", json!({})).await?;
    let all = scenario.endpoint("/all", json!({})).await?;
    scenario.subscribe(&exact, &["order.paid"]).await?;
    scenario.subscribe(&prefix, &["order.*"]).await?;
    let oldest = scenario.subscribe(&all, &["*"]).await?;
    let second = scenario.subscribe(&all, &["order.*", "user.created"]).await?;
    scenario.settle().await?;
    for (event_type, paths) in [
        ("order.paid", &["/exact", "/prefix", "/all"][..]),
        ("order.item.added", &["/prefix", "/all"]),
        ("order", &["/all"]),
        ("ordering.paid", &["/all"]),
        ("user.created", &["/all"]),
    ] {
        let published = scenario.publish(json!({"event_type": event_type, "data": {}})).await?;
        let id = text(&published, "event_id")?;
        ensure!(
            number(&published, "delivery_count") == paths.len() as u64,
            "{event_type}: {published}"
        );
        for path in paths {
            outrider_tests::wait_until(&format!("{event_type} is on {path}"), BOUND, async || {
                (scenario.receiver.received_of(path, &id).len() == 1).then_some(())
            })
            .await?;
        }
    }
    ensure!(
        scenario.receiver.distinct("/exact") == 1 && scenario.receiver.distinct("/prefix") == 2,
        "too much arrived"
    );
    ensure!(
        scenario.receiver.distinct("/all") == 5 && scenario.receiver.duplicates("/all") == 0,
        "not once each"
    );
    let page = scenario
        .rest
        .get(&scenario.path(&format!("deliveries?endpoint_id={}&event_type=user.created", all.id)))
        .await?;
    ensure!(page["deliveries"][0]["subscription_ids"] == json!([oldest, second]), "{page}");
    Ok(())
}

async fn deliver_at_is_honored(scenario: &Scenario) -> Result<()> {
    scenario.target("/later", &["later"], json!({})).await?;
    let due = SystemTime::now() + Duration::from_secs(3);
    let published = scenario
        .publish(json!({"event_type": "later", "data": 1, "deliver_at": rfc3339(due)?}))
        .await?;
    let id = text(&published, "event_id")?;
    let delivery = scenario.delivery(&id).await?;
    ensure!(
        delivery["reason"] == "DELIVERY_REASON_SCHEDULED"
            && delivery["next_attempt_time"].is_string(),
        "{delivery}"
    );
    scenario.delivery_in(&id, "DELIVERED").await?;
    let received = scenario.receiver.received_of("/later", &id);
    // The database's clock decides, which is this machine's clock here.
    let early = Duration::from_millis(50);
    ensure!(received.len() == 1 && received[0].time + early >= due, "it came before its time");
    ensure!(received[0].time < due + BOUND, "it came too late");
    let past = scenario
        .publish(json!({"event_type": "later", "data": 2, "deliver_at": "2001-01-01T00:00:00Z"}))
        .await?;
    scenario.delivery_in(&text(&past, "event_id")?, "DELIVERED").await?;
    Ok(())
}

/// Returns a time in RFC 3339 and UTC, in whole seconds, rounded down, and with a fraction.
fn rfc3339(time: SystemTime) -> Result<String> {
    let since = time.duration_since(UNIX_EPOCH)?;
    let timestamp = prost_types::Timestamp {
        seconds: i64::try_from(since.as_secs())?,
        nanos: i32::try_from(since.subsec_nanos())?,
    };
    Ok(timestamp.to_string())
}

async fn official_libraries_verify_what_arrives(scenario: &Scenario) -> Result<()> {
    let given = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let kept = json!({"http": {"url": scenario.receiver.url("/kept")}, "secret": given});
    let kept = scenario.rest.post(&scenario.path("endpoints"), &kept).await?;
    ensure!(kept["endpoint"].get("secret").is_none(), "the endpoint shows its secret: {kept}");
    ensure!(kept["secret"] == given, "a given secret is kept: {kept}");
    let kept = crate::scenario::Target {
        id: text(&kept["endpoint"], "endpoint_id")?,
        secret: given.to_owned(),
        path: "/kept".into(),
    };
    scenario.subscribe(&kept, &["*"]).await?;
    let made = scenario.target("/made", &["*"], json!({})).await?;
    ensure!(made.secret.starts_with("whsec_") && made.secret != given, "a secret was made");
    for data in
        [json!({"n": 1}), json!("grün 🦊"), json!([1, 2.5, null, {"deep": {"er": "\u{0001}\""}}])]
    {
        scenario.publish_id("any.type", data).await?;
    }
    let mut webhooks = Vec::new();
    for target in [&kept, &made] {
        scenario.arrived(&target.path, 3, BOUND).await?;
        for received in scenario.receiver.received(&target.path) {
            verify::genuine(&received, &target.secret)?;
            webhooks.push((received, target.secret.clone()));
        }
    }
    tokio::task::spawn_blocking(move || verify::by_official_libraries(&webhooks)).await?
}
