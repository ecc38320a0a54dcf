//! The lists of allowed and denied destinations, and changes to them while processes run. They
//! apply when an endpoint is saved and when it is dialed, which happens in two processes if each
//! role has its own.

use anyhow::{Context, Result, ensure};
use http::{Method, StatusCode};
use outrider_tests::{Outrider, Shape, cluster::Options, process::Signal, wait_until};
use serde_json::{Value, json};
use tokio::task::block_in_place;

use crate::{
    scenario::{self, BOUND, Scenario, run_with_shares, text},
    telemetry::{scrapes, sum},
};

const INVALID: &str = "outrider_configuration_invalid";
const READ: &str = "outrider_configuration_read_timestamp_seconds";

/// Returns the processes that judge destinations.
fn judges(outrider: &Outrider) -> &'static [&'static str] {
    if outrider.shape() == Shape::Mesh { &["admin", "egress"] } else { &["all"] }
}

/// Adds settings to the files of these processes.
fn write(outrider: &Outrider, egress: &Value) -> Result<()> {
    judges(outrider).iter().try_for_each(|role| outrider.rewrite(role, &json!({"egress": egress})))
}

fn hang_up(outrider: &mut Outrider) -> Result<()> {
    judges(outrider).iter().try_for_each(|role| outrider.signal(role, Signal::HangUp))
}

/// Returns why an endpoint with this URL is refused, or `None` if it is saved.
async fn refusal(scenario: &Scenario, url: &str) -> Result<Option<String>> {
    let endpoint = json!({"http": {"url": url}}).to_string();
    let reply = scenario.rest.send(Method::POST, &scenario.path("endpoints"), endpoint).await?;
    match reply.status {
        StatusCode::OK => Ok(None),
        StatusCode::BAD_REQUEST => Ok(Some(String::from_utf8(reply.body.to_vec())?)),
        _ => Err(anyhow::anyhow!("{reply:?}")),
    }
}

/// Waits until endpoints with this URL are refused by a rule, or until they are saved.
async fn judged(scenario: &Scenario, url: &str, rule: Option<&str>) -> Result<()> {
    let what = format!("{url} is judged by {rule:?}");
    wait_until(&what, BOUND, async || {
        let refusal = refusal(scenario, url).await.ok()?;
        let is_so = match (rule, &refusal) {
            (Some(rule), Some(refusal)) => refusal.contains(&format!("({rule})")),
            (None, None) => true,
            _ => false,
        };
        is_so.then_some(())
    })
    .await
}

/// Publishes until a delivery ends with this status, and returns the outcomes of its attempts.
async fn delivered(scenario: &Scenario, status: &str) -> Result<Vec<Value>> {
    let wanted = format!("DELIVERY_STATUS_{status}");
    let delivery = wait_until(&format!("a delivery is {status}"), BOUND, async || {
        let event = scenario.publish_id("a", json!({})).await.ok()?;
        let mut ended = Value::Null;
        let end = wait_until("the delivery ends", BOUND, async || {
            ended = scenario.delivery(&event).await.ok()?;
            ended["finish_time"].is_string().then_some(())
        });
        end.await.ok()?;
        (ended["status"] == wanted.as_str()).then_some(ended)
    })
    .await?;
    scenario.attempts(&text(&delivery, "delivery_id")?).await
}

async fn invalid(outrider: &Outrider, count: usize) -> Result<()> {
    wait_until(
        &format!("{count} processes say that their configuration is invalid"),
        BOUND,
        async || (sum(&scrapes(outrider).await.ok()?, INVALID) == count as f64).then_some(()),
    )
    .await
}

async fn lists_change_while_processes_run(outrider: &mut Outrider) -> Result<()> {
    let scenario = Scenario::new(outrider).await?;
    scenario.target("/a", &["a"], json!({})).await?;
    delivered(&scenario, "DELIVERED").await?;
    let ours = scenario.receiver.url("/a");
    let port = ours
        .trim_start_matches("http://127.0.0.1:")
        .split('/')
        .next()
        .context("no port")?
        .to_owned();
    let elsewhere = format!("http://127.0.0.2:{port}/");
    judged(&scenario, &elsewhere, Some("ipv4-loopback")).await?;

    // After a signal, a denied destination is refused at both places, also on an idle connection,
    // and an allowed destination is saved.
    let began = sum(&scrapes(outrider).await?, READ);
    let allow = json!(["127.0.0.1", format!("127.0.0.2:{port}")]);
    write(outrider, &json!({"allow": allow, "deny": [format!("127.0.0.1:{port}")]}))?;
    hang_up(outrider)?;
    judged(&scenario, &ours, Some("denied")).await?;
    judged(&scenario, &elsewhere, None).await?;
    let attempts = delivered(&scenario, "FAILED").await?;
    let last = attempts.last().context("no attempt")?;
    ensure!(last["outcome"] == "ATTEMPT_OUTCOME_ADDRESS_REFUSED", "{attempts:?}");
    ensure!(
        last["error_message"].as_str().is_some_and(|words| words.contains("(denied)")),
        "{attempts:?}"
    );
    ensure!(!last.to_string().contains("127.0.0.1:"), "the entry is told: {last}");

    // Without a signal: the file is invalid, the lists in force stay, and the metrics show it.
    write(outrider, &json!({"deny": ["10.0.0.1/8"]}))?;
    invalid(outrider, judges(outrider).len()).await?;
    judged(&scenario, &ours, Some("denied")).await?;
    delivered(&scenario, "FAILED").await?;
    ensure!(outrider.logs(400).contains("did you mean 10.0.0.0/8?"), "nobody tells what is wrong");

    // Without a signal: the destination is permitted again.
    write(outrider, &json!({"allow": ["127.0.0.1"], "deny": null}))?;
    delivered(&scenario, "DELIVERED").await?;
    judged(&scenario, &ours, None).await?;
    judged(&scenario, &elsewhere, Some("ipv4-loopback")).await?;
    invalid(outrider, 0).await?;
    let ended = sum(&scrapes(outrider).await?, READ);
    ensure!(ended > began, "no process says that it read anything: {began}, {ended}");
    Ok(())
}

async fn lists(shape: Shape) -> Result<()> {
    let more = json!({"egress": {"allow_loopback": null, "allow": ["127.0.0.1"]}});
    let mut outrider =
        block_in_place(|| scenario::start(shape, &Options { more, ..Options::default() }, None))?;
    let outcome = lists_change_while_processes_run(&mut outrider).await;
    outcome.map_err(|error| scenario::with_logs(&error, &outrider))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_change_in_one_process() {
    run_with_shares(1, async || lists(Shape::Sqlite).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_change_in_six_processes() {
    run_with_shares(2, async || lists(Shape::Mesh).await).await;
}
