//! The catalog of event types, and the validation of published events against it.

use anyhow::{Context, Result, ensure};
use http::Method;
use outrider_proto::{
    admin::{CreateEventTypeRequest, EventType, GetEventTypeRequest},
    ingest::{NewEvent, PublishEventRequest, WarningReason},
};
use outrider_tests::{client::Reply, wait_until};
use serde_json::{Value, json};
use tonic::Code;

use crate::scenario::{BOUND, Scenario, flag, text};

scenarios! {
    everywhere: [
        a_schema_is_kept_to_the_byte,
        a_repetition_is_answered_whatever_the_schema_says_by_now,
    ],
    by_process: [
        what_does_not_fit_is_refused_with_its_place,
        a_warning_refuses_nothing,
        a_bad_event_of_a_batch_fails_alone,
    ],
    once: [
        names_may_have_colons_and_slashes,
        what_cannot_be_a_schema_is_refused,
    ],
}

/// Deliberately not canonical JSON: it has extra spaces and an exponent.
const SCHEMA: &str = r#"{ "type": "object",  "required": ["items"], "properties": {
  "items": {"type": "array", "items": {"type": "object", "properties": {
    "price": {"type": "number", "maximum": 1.0e3}}}},
  "a.b/c": {"pattern": "^[a-z]+$"} } }"#;

impl Scenario {
    /// Sets the mode, and returns when it and all earlier changes are in force. Ingest follows
    /// changes by itself, so this asks it with an event that no schema permits.
    async fn validate(&self, mode: &str) -> Result<()> {
        let value = format!("SCHEMA_VALIDATION_{mode}");
        let project = self
            .rest
            .patch(&format!("/v1/projects/{}", self.project), &json!({"schema_validation": value}))
            .await?;
        ensure!(
            project["schema_validation"] == value.as_str() && project["name"] == "A scenario",
            "{project}"
        );
        self.define("probe", "\"schema\": false").await?;
        wait_until("the mode is in force", BOUND, async || {
            let reply = self.attempt(&json!({"event_type": "probe", "data": 1})).await.ok()?;
            let warned = reply.json().ok()?["warnings"]
                .as_array()
                .is_some_and(|warnings| !warnings.is_empty());
            let seen = if reply.status != 200 {
                "REJECT"
            } else if warned {
                "WARN"
            } else {
                "OFF"
            };
            (seen == mode).then_some(())
        })
        .await
    }

    async fn define(&self, event_type: &str, rest: &str) -> Result<Reply> {
        let body = format!("{{\"event_type\": \"{event_type}\", {rest}}}");
        self.rest.send(Method::POST, &self.path("event-types"), body).await
    }

    async fn attempt(&self, event: &Value) -> Result<Reply> {
        self.rest.send(Method::POST, &self.path("events"), event.to_string()).await
    }
}

fn order(data: Value) -> Value {
    json!({"event_type": "order.paid", "data": data})
}

async fn a_schema_is_kept_to_the_byte(scenario: &Scenario) -> Result<()> {
    let made = scenario
        .define("order.paid", &format!("\"description\": \"Paid\", \"schema\": {SCHEMA}"))
        .await?;
    ensure!(made.status == 200, "{made:?}");
    let path = scenario.path("event-types/order.paid");
    let kept = scenario.rest.send(Method::GET, &path, "").await?;
    ensure!(
        String::from_utf8_lossy(&kept.body).contains(&format!("\"schema\":{SCHEMA},")),
        "{kept:?}"
    );
    let mut grpc = scenario.grpc().await?.event_types();
    let request = GetEventTypeRequest {
        project_id: scenario.project.clone(),
        event_type: "order.paid".to_owned(),
    };
    let entry = grpc.get_event_type(request).await?.into_inner().definition.unwrap_or_default();
    ensure!(
        entry.schema == SCHEMA && entry.description == "Paid" && !entry.deprecated,
        "{entry:?}"
    );
    let listed = scenario.rest.get(&scenario.path("event-types")).await?;
    ensure!(
        listed["event_types"][0]["event_type"] == "order.paid"
            && listed["event_types"][0].get("schema").is_none(),
        "{listed}"
    );

    // The body of a GET can be sent back as an update. Only the fields in the body change.
    let mut back = kept.json()?;
    back["deprecated"] = json!(true);
    let changed = scenario.rest.patch(&path, &back).await?;
    ensure!(
        flag(&changed, "deprecated")
            && changed["description"] == "Paid"
            && changed["schema"]["type"] == "object",
        "{changed}"
    );
    let cleared = scenario.rest.patch(&path, &json!({"schema": null})).await?;
    ensure!(cleared.get("schema").is_none() && flag(&cleared, "deprecated"), "{cleared}");
    let twice = scenario.define("order.paid", "\"description\": \"\"").await?;
    ensure!(twice.status == 409 && twice.reason() == "ALREADY_EXISTS", "{twice:?}");
    scenario.rest.delete(&path).await?;
    let gone = scenario.rest.send(Method::GET, &path, "").await?;
    ensure!(gone.status == 404, "{gone:?}");
    Ok(())
}

/// Names with colons and slashes work as one path segment, with the slash encoded or not, and so do
/// the names of methods after a colon.
async fn names_may_have_colons_and_slashes(scenario: &Scenario) -> Result<()> {
    for (name, written) in [
        ("billing/invoice.paid", ["billing/invoice.paid", "billing%2Finvoice.paid"]),
        ("order:created", ["order:created", "order%3Acreated"]),
        ("a/b:c.D", ["a/b:c.D", "a%2fb%3ac.D"]),
    ] {
        let target = scenario
            .target(&format!("/{}", name.replace(['/', ':'], "-")), &[name], json!({}))
            .await?;
        let made = scenario.define(name, "\"description\": \"Given\"").await?;
        ensure!(made.status == 200, "{made:?}");
        for path in written.map(|written| scenario.path(&format!("event-types/{written}"))) {
            let entry = scenario.rest.get(&path).await?;
            ensure!(
                entry["event_type"] == name && entry["description"] == "Given",
                "{path}: {entry}"
            );
            let entry = scenario.rest.patch(&path, &json!({"description": path})).await?;
            ensure!(entry["description"] == path.as_str(), "{path}: {entry}");
            scenario.rest.patch(&path, &json!({"description": "Given"})).await?;
        }
        let event = scenario.publish_id(name, json!({})).await?;
        scenario.delivery_in(&event, "DELIVERED").await?;
        let received = &scenario.receiver.received_of(&target.path, &event)[0];
        ensure!(received.header("outrider-event-type") == name, "{received:?}");
        let listed =
            scenario.rest.get(&scenario.path(&format!("events?event_type={name}"))).await?;
        ensure!(listed["events"][0]["event_id"] == event.as_str(), "{listed}");
        scenario.rest.delete(&scenario.path(&format!("event-types/{}", written[0]))).await?;
        let gone = scenario
            .rest
            .send(Method::GET, &scenario.path(&format!("event-types/{}", written[1])), "")
            .await?;
        ensure!(gone.status == 404, "{gone:?}");
    }
    Ok(())
}

async fn what_does_not_fit_is_refused_with_its_place(scenario: &Scenario) -> Result<()> {
    ensure!(scenario.define("order.paid", &format!("\"schema\": {SCHEMA}")).await?.status == 200);
    let bad = order(
        json!({"items": [{"price": 1}, {"price": "SECRET"}, {"price": 1001}], "a.b/c": "SECRET"}),
    );
    // Without a validation mode, nothing is validated.
    let accepted = scenario.publish(bad.clone()).await?;
    ensure!(accepted["warnings"] == json!([]), "{accepted}");
    scenario.validate("REJECT").await?;
    let refused = scenario.attempt(&bad).await?;
    let mut fields = refused.fields();
    fields.sort();
    let expected = ["event.data/a.b~1c", "event.data/items/1/price", "event.data/items/2/price"];
    ensure!(
        refused.status == 400
            && refused.reason() == "PAYLOAD_SCHEMA_VIOLATION"
            && fields == expected,
        "{refused:?}"
    );
    ensure!(
        !String::from_utf8_lossy(&refused.body).contains("SECRET"),
        "the payload is in the error: {refused:?}"
    );
    let many = order(json!({"items": vec![json!(1); 50]}));
    ensure!(scenario.attempt(&many).await?.fields().len() == 20, "not 20 violations");

    let mut grpc = scenario.grpc().await?.ingest();
    let event = NewEvent {
        event_type: "order.paid".to_owned(),
        payload: "[]".into(),
        ..NewEvent::default()
    };
    let request =
        |event| PublishEventRequest { project_id: scenario.project.clone(), event: Some(event) };
    let status = grpc.publish_event(request(event.clone())).await.err().context("accepted")?;
    ensure!(
        status.code() == Code::InvalidArgument
            && status.message().contains("event.payload: must be of the type object"),
        "{status:?}"
    );

    // An event that fits, one that says that it is not JSON, and one of a type that is not in the
    // catalog.
    let fits = scenario.publish(order(json!({"items": [{"price": 1000}], "a.b/c": "x"}))).await?;
    ensure!(fits["warnings"] == json!([]), "{fits}");
    let text = NewEvent { content_type: "text/plain".to_owned(), ..event };
    grpc.publish_event(request(text)).await?;
    scenario.publish(json!({"event_type": "order.lost", "data": 1})).await?;
    // A payload that is too large to validate at once, and one with a number that JSON allows.
    let large: Vec<Value> = (0..3_000).map(|price| json!({"price": price % 1000})).collect();
    scenario.publish(order(json!({"items": large}))).await?;
    let huge = "{\"event_type\": \"order.paid\", \"data\": {\"items\": [], \"n\": 1e400}}";
    let huge = scenario.rest.send(Method::POST, &scenario.path("events"), huge).await?;
    ensure!(huge.reason() == "PAYLOAD_SCHEMA_VIOLATION", "{huge:?}");

    // Without its schema, the type takes any payload again, within a second.
    scenario.rest.patch(&scenario.path("event-types/order.paid"), &json!({"schema": null})).await?;
    wait_until("the schema is gone", BOUND, async || {
        scenario.publish(bad.clone()).await.ok().map(drop)
    })
    .await
}

async fn a_warning_refuses_nothing(scenario: &Scenario) -> Result<()> {
    let target = scenario.target("/warned", &["order.*"], json!({})).await?;
    ensure!(
        scenario
            .define("order.paid", &format!("\"schema\": {SCHEMA}, \"deprecated\": true"))
            .await?
            .status
            == 200
    );
    scenario.validate("WARN").await?;
    let published = scenario.publish(order(json!({"items": [{"price": "x"}]}))).await?;
    let expected = json!([
        {"reason": "WARNING_REASON_EVENT_TYPE_DEPRECATED", "pointer": "",
            "description": "the event type is deprecated"},
        {"reason": "WARNING_REASON_PAYLOAD_SCHEMA_VIOLATION", "pointer": "/items/0/price",
            "description": "must be of the type number"},
    ]);
    ensure!(published["warnings"] == expected, "{published}");
    scenario.delivery_in(&text(&published, "event_id")?, "DELIVERED").await?;
    ensure!(scenario.receiver.distinct(&target.path) == 1, "not delivered");

    let event = NewEvent {
        event_type: "order.paid".to_owned(),
        payload: "{}".into(),
        ..NewEvent::default()
    };
    let request = PublishEventRequest { project_id: scenario.project.clone(), event: Some(event) };
    let answer = scenario.grpc().await?.ingest().publish_event(request).await?.into_inner();
    let reasons: Vec<_> = answer.warnings.iter().map(|warning| warning.reason()).collect();
    ensure!(
        reasons == [WarningReason::EventTypeDeprecated, WarningReason::PayloadSchemaViolation],
        "{answer:?}"
    );

    // REJECT warns of deprecated types, too.
    scenario.validate("REJECT").await?;
    let published = scenario.publish(order(json!({"items": []}))).await?;
    ensure!(published["warnings"].as_array().map(Vec::len) == Some(1), "{published}");
    Ok(())
}

async fn a_bad_event_of_a_batch_fails_alone(scenario: &Scenario) -> Result<()> {
    ensure!(scenario.define("order.paid", &format!("\"schema\": {SCHEMA}")).await?.status == 200);
    scenario.validate("REJECT").await?;
    let batch = json!({"events": [order(json!({"items": []})), order(json!({"items": 1})),
        {"event_type": "", "data": 1}, order(json!({"items": []}))]});
    let answer = scenario.rest.post(&scenario.path("events:batch"), &batch).await?;
    let results = answer["results"].as_array().context("no results")?;
    let accepted = |index: usize| results[index]["accepted"]["event_id"].is_string();
    ensure!(
        results.len() == 4 && accepted(0) && accepted(3) && !accepted(1) && !accepted(2),
        "{answer}"
    );
    let error = &results[1]["error"];
    ensure!(error["reason"] == "PAYLOAD_SCHEMA_VIOLATION", "{answer}");
    ensure!(error["violations"][0]["field"] == "events[1].payload/items", "{answer}");
    ensure!(results[2]["error"]["reason"] == "INVALID_FIELD", "{answer}");
    scenario.validate("WARN").await?;
    let answer = scenario
        .rest
        .post(
            &scenario.path("events:batch"),
            &json!({"events": [order(json!({})), order(json!({"items": []}))]}),
        )
        .await?;
    let warnings =
        |index: usize| answer["results"][index]["accepted"]["warnings"].as_array().map(Vec::len);
    ensure!(warnings(0) == Some(1) && warnings(1) == Some(0), "{answer}");
    Ok(())
}

async fn a_repetition_is_answered_whatever_the_schema_says_by_now(
    scenario: &Scenario,
) -> Result<()> {
    let keyed = |key: &str, data: Value| {
        json!({"event_type": "order.paid", "data": data,
        "idempotency_key": key})
    };
    let first = scenario.publish(keyed("k-1", json!(1))).await?;
    ensure!(scenario.define("order.paid", &format!("\"schema\": {SCHEMA}")).await?.status == 200);
    scenario.validate("REJECT").await?;
    // A stricter schema followed. The first answer may never have reached the publisher.
    let again = scenario.publish(keyed("k-1", json!(1))).await?;
    ensure!(
        flag(&again, "duplicate")
            && again["event_id"] == first["event_id"]
            && again["create_time"] == first["create_time"],
        "{again}"
    );
    // Other events are refused for their payload, under that key and under an unused key.
    for event in [keyed("k-1", json!(2)), keyed("k-2", json!(1))] {
        let refused = scenario.attempt(&event).await?;
        ensure!(refused.reason() == "PAYLOAD_SCHEMA_VIOLATION", "{refused:?}");
    }
    let batch = json!({"events": [keyed("k-2", json!(1)), keyed("k-1", json!(1)), keyed("k-3",
        json!({"items": []}))]});
    let answer = scenario.rest.post(&scenario.path("events:batch"), &batch).await?;
    let results = &answer["results"];
    ensure!(results[0]["error"]["reason"] == "PAYLOAD_SCHEMA_VIOLATION", "{answer}");
    ensure!(
        results[1]["accepted"]["event_id"] == first["event_id"]
            && results[1]["accepted"]["duplicate"] == true,
        "{answer}"
    );
    ensure!(results[2]["accepted"]["duplicate"] == false, "{answer}");
    // A refused event does not use up its key.
    scenario.validate("WARN").await?;
    let new = scenario.publish(keyed("k-2", json!(1))).await?;
    ensure!(
        !flag(&new, "duplicate") && new["warnings"].as_array().map(Vec::len) == Some(1),
        "{new}"
    );
    let repeated = scenario.publish(keyed("k-2", json!(1))).await?;
    ensure!(flag(&repeated, "duplicate") && repeated["warnings"] == json!([]), "{repeated}");
    Ok(())
}

async fn what_cannot_be_a_schema_is_refused(scenario: &Scenario) -> Result<()> {
    for (schema, field) in [
        (r#"{"properties": {"a": {"type": "money"}}}"#, "definition.schema/properties/a/type"),
        (r#"{"$ref": "http://127.0.0.1:1/schema.json"}"#, "definition.schema/$ref"),
        (
            r#"{"properties": {"a": {"pattern": "(?<=a)b"}}}"#,
            "definition.schema/properties/a/pattern",
        ),
        (r#""text""#, "definition.schema"),
    ] {
        let refused = scenario.define("a.b", &format!("\"schema\": {schema}")).await?;
        ensure!(
            refused.status == 400
                && refused.reason() == "INVALID_FIELD"
                && refused.fields() == [field],
            "{schema}: {refused:?}"
        );
    }
    let broken = scenario.define("a.b", "\"schema\": {,}").await?;
    ensure!(broken.reason() == "MALFORMED_REQUEST", "{broken:?}");
    let mut grpc = scenario.grpc().await?.event_types();
    let definition =
        EventType { event_type: "a.b".to_owned(), schema: "{".to_owned(), ..EventType::default() };
    let request = CreateEventTypeRequest {
        project_id: scenario.project.clone(),
        definition: Some(definition),
        ..Default::default()
    };
    let status = grpc.create_event_type(request).await.err().context("accepted")?;
    ensure!(
        status.code() == Code::InvalidArgument
            && status.message().contains("definition.schema: must be JSON"),
        "{status:?}"
    );
    Ok(())
}
