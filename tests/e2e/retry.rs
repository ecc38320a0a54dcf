//! Attempts that fail, how they are listed, and what follows.

use std::time::Duration;

use anyhow::{Result, ensure};
use bytes::Bytes;
use outrider_tests::{Act, Answer, RawReceiver, wait_until};
use serde_json::json;

use crate::{
    scenario::{BOUND, Scenario, number, text},
    verify,
};

scenarios! {
    everywhere: [
        failures_are_retried_and_listed,
        a_failed_delivery_is_retried_by_hand,
        a_slow_endpoint_times_out,
        long_answers_are_cut,
    ],
    by_process: [
        redirects_are_not_followed,
        a_closed_connection_is_an_attempt,
    ],
}

async fn failures_are_retried_and_listed(scenario: &Scenario) -> Result<()> {
    scenario.receiver.answer(
        "/flaky",
        [
            Answer::Full(500, vec![("x-why", "first".to_owned())], Bytes::from_static(b"no room")),
            Answer::Status(503),
            Answer::Full(200, Vec::new(), Bytes::from_static(b"thanks")),
        ],
    );
    let target = scenario.target("/flaky", &["*"], json!({})).await?;
    let id = scenario.publish_id("order.paid", json!({"total": 5})).await?;
    let delivery = scenario.delivery_in(&id, "DELIVERED").await?;
    ensure!(
        number(&delivery, "attempt_count") == 3 && number(&delivery, "last_status_code") == 200,
        "{delivery}"
    );
    ensure!(
        delivery["reason"] == "DELIVERY_REASON_SUCCEEDED" && delivery["finish_time"].is_string(),
        "{delivery}"
    );
    ensure!(
        delivery["event_type"] == "order.paid" && delivery["endpoint_id"] == target.id.as_str(),
        "{delivery}"
    );

    let received = scenario.receiver.received_of("/flaky", &id);
    ensure!(received.len() == 3, "{received:?}");
    let delivery_id = text(&delivery, "delivery_id")?;
    for one in &received {
        verify::genuine(one, &target.secret)?;
        ensure!(one.header("outrider-delivery-id") == delivery_id, "{one:?}");
    }

    let attempts = scenario.attempts(&delivery_id).await?;
    let shown: Vec<_> = attempts
        .iter()
        .map(|one| (number(one, "number"), number(one, "status_code"), one["outcome"].clone()))
        .collect();
    let expected = [(1, 500, "REJECTED"), (2, 503, "REJECTED"), (3, 200, "SUCCEEDED")];
    ensure!(
        shown
            == expected.map(|(n, status, outcome)| (
                n,
                status,
                json!(format!("ATTEMPT_OUTCOME_{outcome}"))
            )),
        "{shown:?}"
    );
    let first = scenario
        .rest
        .get(&scenario.path(&format!("attempts/{}", text(&attempts[0], "attempt_id")?)))
        .await?;
    ensure!(first["response_body"] == "bm8gcm9vbQ==", "base64 of the answer: {first}");
    ensure!(first["response_headers"].to_string().contains("x-why"), "{first}");
    let rejected =
        scenario.rest.get(&scenario.path("attempts?outcome=ATTEMPT_OUTCOME_REJECTED")).await?;
    ensure!(rejected["attempts"].as_array().map(Vec::len) == Some(2), "{rejected}");
    Ok(())
}

async fn a_failed_delivery_is_retried_by_hand(scenario: &Scenario) -> Result<()> {
    scenario.receiver.answer(
        "/down",
        [Answer::Status(500), Answer::Status(500), Answer::Status(500), Answer::Status(200)],
    );
    let target = scenario.target("/down", &["*"], json!({})).await?;
    let id = scenario.publish_id("order.paid", json!({})).await?;
    let failed = scenario.delivery_in(&id, "FAILED").await?;
    ensure!(
        number(&failed, "attempt_count") == 3 && failed["reason"] == "DELIVERY_REASON_EXHAUSTED",
        "{failed}"
    );
    let failed_id = text(&failed, "delivery_id")?;

    let again = scenario
        .rest
        .post(&scenario.path(&format!("deliveries/{failed_id}:retry")), &json!({}))
        .await?;
    let again_id = text(&again, "delivery_id")?;
    ensure!(
        again_id != failed_id && number(&again, "replay_number") == 1,
        "a new delivery with the next number: {again}"
    );
    let path = scenario.path(&format!("deliveries/{again_id}"));
    wait_until("the new delivery is delivered", BOUND, async || {
        let delivery = scenario.rest.get(&path).await.ok()?;
        (delivery["status"] == "DELIVERY_STATUS_DELIVERED").then_some(())
    })
    .await?;
    let received = scenario.receiver.received_of("/down", &id);
    ensure!(received.len() == 4, "the same event once more: {received:?}");
    verify::genuine(&received[3], &target.secret)?;
    let failed = scenario.rest.get(&scenario.path(&format!("deliveries/{failed_id}"))).await?;
    ensure!(
        failed["status"] == "DELIVERY_STATUS_FAILED",
        "the old delivery stays as it ended: {failed}"
    );
    Ok(())
}

async fn a_slow_endpoint_times_out(scenario: &Scenario) -> Result<()> {
    scenario
        .receiver
        .answer("/slow", [Answer::After(Duration::from_secs(20), 200), Answer::Status(200)]);
    scenario.target("/slow", &["*"], json!({"timeout": "1s"})).await?;
    let id = scenario.publish_id("a", json!({})).await?;
    let delivery = scenario.delivery_in(&id, "DELIVERED").await?;
    let attempts = scenario.attempts(&text(&delivery, "delivery_id")?).await?;
    ensure!(
        attempts[0]["outcome"] == "ATTEMPT_OUTCOME_TIMED_OUT"
            && number(&attempts[0], "status_code") == 0,
        "{attempts:?}"
    );
    let duration: f64 = text(&attempts[0], "duration")?.trim_end_matches('s').parse()?;
    ensure!((1.0..5.0).contains(&duration), "a deadline of one second: {attempts:?}");
    Ok(())
}

async fn redirects_are_not_followed(scenario: &Scenario) -> Result<()> {
    let elsewhere = scenario.receiver.url("/elsewhere");
    scenario.receiver.answer(
        "/moved",
        [Answer::Full(302, vec![("location", elsewhere)], Bytes::new()), Answer::Status(200)],
    );
    scenario.target("/moved", &["*"], json!({})).await?;
    let id = scenario.publish_id("a", json!({})).await?;
    let delivery = scenario.delivery_in(&id, "DELIVERED").await?;
    let attempts = scenario.attempts(&text(&delivery, "delivery_id")?).await?;
    ensure!(
        number(&attempts[0], "status_code") == 302
            && attempts[0]["outcome"] == "ATTEMPT_OUTCOME_REJECTED",
        "{attempts:?}"
    );
    ensure!(scenario.receiver.distinct("/elsewhere") == 0, "a redirect was followed");
    Ok(())
}

async fn a_closed_connection_is_an_attempt(scenario: &Scenario) -> Result<()> {
    // There is no reused connection to it.
    let receiver = RawReceiver::start(&[Act::Close]).await?;
    let target = scenario.endpoint("/", json!({"http": {"url": receiver.url()}})).await?;
    scenario.subscribe(&target, &["*"]).await?;
    scenario.settle().await?;
    let id = scenario.publish_id("a", json!({})).await?;
    let delivery = scenario.delivery_in(&id, "FAILED").await?;
    let attempts = scenario.attempts(&text(&delivery, "delivery_id")?).await?;
    ensure!(attempts.len() == 3 && receiver.count(&id) == 3, "{attempts:?}");
    for attempt in &attempts {
        ensure!(
            attempt["outcome"] == "ATTEMPT_OUTCOME_CONNECTION_FAILED" && attempt["resent"] != true,
            "{attempt}"
        );
    }
    Ok(())
}

async fn long_answers_are_cut(scenario: &Scenario) -> Result<()> {
    scenario.receiver.answer(
        "/long",
        [Answer::Full(200, Vec::new(), Bytes::from(vec![b'x'; 4 * 1_024 * 1_024]))],
    );
    scenario.target("/long", &["*"], json!({})).await?;
    let id = scenario.publish_id("a", json!({})).await?;
    let delivery = scenario.delivery_in(&id, "DELIVERED").await?;
    let attempts = scenario.attempts(&text(&delivery, "delivery_id")?).await?;
    let attempt = scenario
        .rest
        .get(&scenario.path(&format!("attempts/{}", text(&attempts[0], "attempt_id")?)))
        .await?;
    let kept = text(&attempt, "response_body")?.len();
    ensure!(
        attempt["response_truncated"] == true && (1..=32 * 1_024).contains(&kept),
        "{kept} characters of base64 are kept"
    );
    Ok(())
}
