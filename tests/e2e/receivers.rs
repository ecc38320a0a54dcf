//! Endpoints that answer as no honest server would. Their cost is bounded, and the status line
//! decides the outcome of a delivery.

use std::time::Duration;

use anyhow::{Result, ensure};
use http::Method;
use outrider_tests::{
    Act, Outrider, RawReceiver, Shape, cluster::Options, pki::Pki, usage, wait_until,
};
use serde_json::json;
use tokio::task::block_in_place;

use crate::scenario::{self, BOUND, SHARES, Scenario, Target, number, run_with_shares, text};

scenarios! {
    everywhere: [
        a_2xx_answer_whose_body_breaks_is_delivered_once,
        a_reused_connection_that_ends_is_replaced_and_the_attempt_tells,
    ],
    by_process: [
        an_irregular_head_is_delivered_once,
        interim_answers_are_bounded,
        ports_of_other_services_are_refused_at_saving,
        names_that_cannot_be_reached_are_refused_at_saving,
    ],
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
const SIZED: &str = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n";

/// Creates an endpoint at a raw receiver that gets events of one type.
async fn target(scenario: &Scenario, receiver: &RawReceiver, event_type: &str) -> Result<Target> {
    let fields = json!({"http": {"url": receiver.url()}, "timeout": "2s"});
    let target = scenario.endpoint("/", fields).await?;
    scenario.subscribe(&target, &[event_type]).await?;
    Ok(target)
}

/// Publishes an event to each of these receivers, which answer 2xx and break off. Each is delivered
/// by one attempt and arrives once.
async fn each_is_delivered_once(
    scenario: &Scenario,
    name: &str,
    receivers: &[RawReceiver],
    bytes: usize,
) -> Result<()> {
    for (index, receiver) in receivers.iter().enumerate() {
        target(scenario, receiver, &format!("{name}.{index}")).await?;
    }
    scenario.settle().await?;
    let mut ids = Vec::new();
    for index in 0..receivers.len() {
        ids.push(scenario.publish_id(&format!("{name}.{index}"), json!("x".repeat(bytes))).await?);
    }
    let mut deliveries = Vec::new();
    for id in &ids {
        deliveries.push(scenario.delivery_in(id, "DELIVERED").await?);
    }
    for (index, delivery) in deliveries.iter().enumerate() {
        ensure!(number(delivery, "attempt_count") == 1, "{name}.{index}: {delivery}");
        let attempts = scenario.attempts(&text(delivery, "delivery_id")?).await?;
        ensure!(
            attempts.len() == 1 && attempts[0]["outcome"] == "ATTEMPT_OUTCOME_SUCCEEDED",
            "{name}.{index}: {attempts:?}"
        );
        let count = receivers[index].count(&ids[index]);
        ensure!(count == 1, "{name}.{index}: the event came {count} times");
    }
    Ok(())
}

async fn a_2xx_answer_whose_body_breaks_is_delivered_once(scenario: &Scenario) -> Result<()> {
    let cases: &[&[Act]] = &[
        &[Act::Send(SIZED), Act::Close],
        &[Act::Send(SIZED), Act::Reset],
        &[Act::Send(SIZED), Act::Hang],
        &[Act::Send(CHUNKED), Act::Close],
        &[Act::Send(CHUNKED), Act::Reset],
        &[Act::Send(CHUNKED), Act::Send("zz\r\n"), Act::Hang],
        &[Act::Send(CHUNKED), Act::Send("3\r\nabcdef\r\n"), Act::Hang],
        &[Act::Send(CHUNKED), Act::Send("0\r\nbad trailer\r\n\r\n"), Act::Hang],
        &[Act::Send(CHUNKED), Act::Repeat("1\r\nx\r\n")],
        &[Act::Send(CHUNKED), Act::Send("0\r\n"), Act::Repeat("a: b\r\n")],
        &[Act::Send("HTTP/1.1 200 OK\r\n\r\nabc"), Act::Reset],
        &[Act::Send(OK), Act::Send("HTTP/1.1 500 Forged\r\ncontent-length: 0\r\n\r\n"), Act::Close],
    ];
    let mut receivers = Vec::new();
    for acts in cases {
        receivers.push(RawReceiver::start(acts).await?);
    }
    each_is_delivered_once(scenario, "broken", &receivers, 2).await?;
    // Answers that do not wait for the whole request. The rest of the request meets a reset.
    let mut early = Vec::new();
    for _ in 0..10 {
        early.push(RawReceiver::start_early(&[Act::Send(OK), Act::Close]).await?);
    }
    each_is_delivered_once(scenario, "early", &early, 900_000).await
}

async fn an_irregular_head_is_delivered_once(scenario: &Scenario) -> Result<()> {
    let cookies: &'static str =
        format!("HTTP/1.1 200 OK\r\n{}\r\n", "set-cookie: a=b\r\n".repeat(120)).leak();
    let large: &'static str =
        format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "a".repeat(70 << 10)).leak();
    let mut receivers = Vec::new();
    for head in [
        "HTTP/1.1 200 OK\r\nx-a: a\r\n b\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\n folded\r\nx-a : b\r\nno colon\r\n: v\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\nx-a: \0\rb\ncontent-length: 0\n\n",
        "HTTP/1.1  200\r\ncontent-length: 0, 0\r\n\r\n",
        "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        cookies,
        large,
    ] {
        receivers.push(RawReceiver::start(&[Act::Send(head), Act::Hang]).await?);
    }
    for end in [
        Act::Close,
        Act::Reset,
        Act::Hang,
        Act::Drip("x-a: b\r\nx-b: c\r\n", Duration::from_millis(200)),
    ] {
        receivers
            .push(RawReceiver::start(&[Act::Send("HTTP/1.1 200 OK\r\n"), end, Act::Hang]).await?);
    }
    each_is_delivered_once(scenario, "irregular", &receivers, 2).await
}

/// A receiver that answers the first request on a connection, and ends the connection at the
/// second: all is delivered by one attempt each, those that came twice say so, and no event came
/// oftener.
async fn a_reused_connection_that_ends_is_replaced_and_the_attempt_tells(
    scenario: &Scenario,
) -> Result<()> {
    for (name, end) in [("close", Act::Close), ("reset", Act::Reset)] {
        let receiver = RawReceiver::start_each(&[&[Act::Send(OK)], &[end]]).await?;
        target(scenario, &receiver, name).await?;
        scenario.settle().await?;
        let (mut resent, mut sent) = (0, 0);
        // The next event arrives on the connection of the one before, if that was settled soon
        // enough.
        for _ in 0..10 {
            let id = scenario.publish_id(name, json!({})).await?;
            let delivery = scenario.delivery_in(&id, "DELIVERED").await?;
            let attempts = scenario.attempts(&text(&delivery, "delivery_id")?).await?;
            ensure!(
                attempts.len() == 1 && number(&attempts[0], "status_code") == 200,
                "{attempts:?}"
            );
            let twice = attempts[0]["resent"] == true;
            let count = receiver.count(&id);
            ensure!(count == 1 + usize::from(twice), "{name}: it came {count} times: {attempts:?}");
            resent += usize::from(twice);
            sent += count;
        }
        ensure!(resent > 0 && sent <= 20, "{name}: {resent} of 10 were sent again");
    }
    Ok(())
}

async fn interim_answers_are_bounded(scenario: &Scenario) -> Result<()> {
    const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";
    const SWITCH: &str =
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n";
    let few =
        RawReceiver::start(&[Act::Send(CONTINUE), Act::Send(CONTINUE), Act::Send(OK)]).await?;
    each_is_delivered_once(scenario, "few", &[few], 2).await?;
    for (event_type, acts, message) in [
        ("endless", [Act::Send(CONTINUE), Act::Repeat(CONTINUE)], "more than 8 interim answers"),
        (
            "switch",
            [Act::Send(SWITCH), Act::Hang],
            "the endpoint switched protocols, which was not asked for",
        ),
        ("lines", [Act::Send("\r\n"), Act::Repeat("\r\n")], "the head of the answer is too large"),
    ] {
        let receiver = RawReceiver::start(&acts).await?;
        target(scenario, &receiver, event_type).await?;
        scenario.settle().await?;
        let id = scenario.publish_id(event_type, json!({})).await?;
        let failed = scenario.delivery_in(&id, "FAILED").await?;
        let attempts = scenario.attempts(&text(&failed, "delivery_id")?).await?;
        ensure!(attempts.len() == 3 && receiver.count(&id) == 3, "{attempts:?}");
        for attempt in &attempts {
            ensure!(attempt["outcome"] == "ATTEMPT_OUTCOME_BAD_RESPONSE", "{attempt}");
            ensure!(attempt["error_message"] == message, "{attempt}");
        }
    }
    Ok(())
}

async fn ports_of_other_services_are_refused_at_saving(scenario: &Scenario) -> Result<()> {
    for (port, scheme) in
        [(22, "http"), (25, "https"), (6379, "http"), (10_250, "https"), (27_017, "http")]
    {
        let body = json!({"http": {"url": format!("{scheme}://hooks.example.com:{port}/")}});
        let reply =
            scenario.rest.send(Method::POST, &scenario.path("endpoints"), body.to_string()).await?;
        let shown = String::from_utf8_lossy(&reply.body).into_owned();
        ensure!(reply.status == 400 && reply.reason() == "INVALID_FIELD", "{reply:?}");
        ensure!(reply.fields() == ["endpoint.http.url"], "{shown}");
        ensure!(
            shown.contains(&format!("port {port} is refused"))
                && shown.contains("port-of-other-service"),
            "{shown}"
        );
    }
    let target = scenario.endpoint("/fine", json!({})).await?;
    let path = scenario.path(&format!("endpoints/{}?update_mask=http", target.id));
    let body = json!({"http": {"url": "https://hooks.example.com:5432/"}}).to_string();
    let reply = scenario.rest.send(Method::PATCH, &path, body).await?;
    ensure!(reply.status == 400 && reply.reason() == "INVALID_FIELD", "{reply:?}");
    for port in [80, 443, 3000, 5000, 8000, 8080, 8443, 9000] {
        scenario
            .endpoint("/", json!({"http": {"url": format!("https://hooks.example.com:{port}/")}}))
            .await?;
    }
    Ok(())
}

async fn names_that_cannot_be_reached_are_refused_at_saving(scenario: &Scenario) -> Result<()> {
    for host in ["hooks.invalid", "hooks.alt", "hooks.onion", "-a.example.com", "a..example.com"] {
        let body = json!({"http": {"url": format!("https://{host}/")}}).to_string();
        let reply = scenario.rest.send(Method::POST, &scenario.path("endpoints"), body).await?;
        ensure!(
            reply.status == 400 && reply.fields() == ["endpoint.http.url"],
            "{host}: {reply:?}"
        );
    }
    for host in ["a_b.example.com", "_a.example.com", "A-B.Example.com."] {
        scenario.endpoint("/", json!({"http": {"url": format!("https://{host}/")}})).await?;
    }
    Ok(())
}

/// Starts an Outrider with these settings that tries each delivery once in the time of a test.
fn start(shape: Shape, more: serde_json::Value) -> Result<Outrider> {
    let options = Options { retry_schedule: vec!["1h".to_owned()], more, ..Options::default() };
    block_in_place(|| scenario::start(shape, &options, None))
}

/// Twenty times the answer that took 20 s of CPU each: seconds of all processes together are
/// generous, also for a debug build on a loaded machine.
async fn endless_interim_answers_cost_little(shape: Shape) -> Result<()> {
    const EVENTS: usize = 20;
    let outrider = start(shape, json!({}))?;
    let scenario = Scenario::new(&outrider).await?;
    let receiver = RawReceiver::start(&[Act::Repeat("HTTP/1.1 100 Continue\r\n\r\n")]).await?;
    let fields = json!({"http": {"url": receiver.url()}, "timeout": "30s"});
    let endless = scenario.endpoint("/", fields).await?;
    scenario.subscribe(&endless, &["endless"]).await?;
    scenario.settle().await?;
    let processes = outrider.process_ids();
    let before = usage::of(&processes).cpu;
    for number in 0..EVENTS {
        scenario.publish_id("endless", json!(number)).await?;
    }
    let path = scenario.path("attempts?outcome=ATTEMPT_OUTCOME_BAD_RESPONSE&page_size=100");
    let ended = wait_until("every exchange is given up", BOUND, async || {
        let page = scenario.rest.get(&path).await.ok()?;
        (page["attempts"].as_array().map_or(0, Vec::len) == EVENTS).then_some(())
    });
    ended.await.map_err(|error| scenario::with_logs(&error, &outrider))?;
    let cpu = usage::of(&processes).cpu - before;
    ensure!(cpu < Duration::from_secs(10), "{EVENTS} endless answers took {cpu:?} of CPU");
    Ok(())
}

/// The setting opens a port. If only the API has the setting, the egress refuses the port when it
/// is dialed.
async fn a_port_is_opened_by_the_setting() -> Result<()> {
    const PORT: u16 = 28_017;
    let mut outrider = start(Shape::Mesh, json!({"dispatch": {"retry_schedule": ["1h", "1h"]}}))?;
    let opened = [("OUTRIDER_EGRESS_ALLOWED_PORTS", PORT.to_string())];
    block_in_place(|| restart(&mut outrider, "admin", &opened))?;
    let scenario = Scenario::new(&outrider).await?;
    let receiver = RawReceiver::start_on(PORT, &[Act::Send(OK)]).await?;
    target(&scenario, &receiver, "opened").await?;
    scenario.settle().await?;
    let id = scenario.publish_id("opened", json!({})).await?;
    let refused = wait_until("the egress refuses the port", BOUND, async || {
        let delivery = scenario.delivery(&id).await.ok()?;
        (number(&delivery, "attempt_count") == 1).then_some(delivery)
    });
    let delivery = text(&refused.await?, "delivery_id")?;
    let attempts = scenario.attempts(&delivery).await?;
    ensure!(attempts[0]["outcome"] == "ATTEMPT_OUTCOME_ADDRESS_REFUSED", "{attempts:?}");
    ensure!(
        attempts[0]["error_message"] == "the port is not allowed (port-of-other-service)",
        "{attempts:?}"
    );
    ensure!(receiver.count(&id) == 0, "a refused port was dialed");
    block_in_place(|| restart(&mut outrider, "egress", &opened))?;
    let id = scenario.publish_id("opened", json!({})).await?;
    scenario.delivery_in(&id, "DELIVERED").await?;
    ensure!(receiver.count(&id) == 1, "it came {} times", receiver.count(&id));
    Ok(())
}

fn restart(outrider: &mut Outrider, role: &str, environment: &[(&str, String)]) -> Result<()> {
    outrider.set_environment(role, environment)?;
    outrider.terminate(role, BOUND)?;
    outrider.restart(role)?;
    outrider.ready()
}

async fn a_2xx_answer_that_breaks_below_tls_is_delivered_once(shape: Shape) -> Result<()> {
    let pki = Pki::create()?;
    let identity = pki.issue("receiver")?;
    let outrider = start(shape, json!({"worker": {"extra_roots_file": identity.authority}}))?;
    let scenario = Scenario::new(&outrider).await?;
    let cases: &[&[Act]] = &[
        &[Act::Send(SIZED), Act::Close],
        &[Act::Send("HTTP/1.1 200 OK\r\n\r\nabc"), Act::Close],
        &[Act::Send(SIZED), Act::Reset],
        // A fatal alert in plain text, and a record that cannot be decrypted.
        &[Act::Send(SIZED), Act::Below(&[21, 3, 3, 0, 2, 2, 80]), Act::Hang],
        &[
            Act::Send(SIZED),
            Act::Below(&[
                23, 3, 3, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            ]),
            Act::Hang,
        ],
        &[Act::Send(SIZED), Act::Hang],
    ];
    let mut receivers = Vec::new();
    for acts in cases {
        receivers.push(RawReceiver::start_tls(acts, &identity).await?);
    }
    let outcome = each_is_delivered_once(&scenario, "tls", &receivers, 2).await;
    outcome.map_err(|error| scenario::with_logs(&error, &outrider))
}

/// Certificates that are their own authority, in the file and not in it.
async fn certificates_in_the_trust_file_are_trusted_themselves(shape: Shape) -> Result<()> {
    let pki = Pki::create()?;
    let (server, authority, other) = (
        pki.self_signed("server", false)?,
        pki.self_signed("authority", true)?,
        pki.self_signed("other", true)?,
    );
    let file = server.certificate.with_extension("trusted");
    std::fs::write(
        &file,
        [std::fs::read(&server.certificate)?, std::fs::read(&authority.certificate)?].concat(),
    )?;
    let outrider = start(shape, json!({"worker": {"extra_roots_file": file}}))?;
    let scenario = Scenario::new(&outrider).await?;
    let outcome = async {
        let mut receivers = Vec::new();
        for identity in [&server, &authority] {
            receivers.push(RawReceiver::start_tls(&[Act::Send(OK)], identity).await?);
        }
        each_is_delivered_once(&scenario, "trusted", &receivers, 2).await?;
        let receiver = RawReceiver::start_tls(&[Act::Send(OK)], &other).await?;
        target(&scenario, &receiver, "unknown").await?;
        scenario.settle().await?;
        let id = scenario.publish_id("unknown", json!({})).await?;
        let attempts = wait_until("an attempt", BOUND, async || {
            let path = scenario.path("attempts?outcome=ATTEMPT_OUTCOME_TLS_FAILED");
            let page = scenario.rest.get(&path).await.ok()?;
            page["attempts"].as_array().filter(|attempts| !attempts.is_empty()).cloned()
        })
        .await?;
        let told = text(&attempts[0], "error_message")?;
        ensure!(
            told.starts_with("the TLS handshake failed: the certificate is self-signed;"),
            "{told}"
        );
        ensure!(receiver.count(&id) == 0, "it came");
        Ok(())
    };
    outcome.await.map_err(|error| scenario::with_logs(&error, &outrider))
}

mod opened {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_port_is_opened_by_the_setting() {
        super::run_with_shares(super::SHARES, async || {
            super::a_port_is_opened_by_the_setting().await
        })
        .await;
    }
}

macro_rules! on_shapes {
    ($($module:ident $shape:ident),+) => {
        $(mod $module {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn endless_interim_answers_cost_little() {
                let shape = outrider_tests::Shape::$shape;
                let work = async || super::endless_interim_answers_cost_little(shape).await;
                super::run_with_shares(super::SHARES, work).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn a_2xx_answer_that_breaks_below_tls_is_delivered_once() {
                let shape = outrider_tests::Shape::$shape;
                let work = async || {
                    super::a_2xx_answer_that_breaks_below_tls_is_delivered_once(shape).await
                };
                super::run_with_shares(super::SHARES, work).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn certificates_in_the_trust_file_are_trusted_themselves() {
                let shape = outrider_tests::Shape::$shape;
                let work = async || {
                    super::certificates_in_the_trust_file_are_trusted_themselves(shape).await
                };
                super::run_with_shares(super::SHARES, work).await;
            }
        })+
    };
}

on_shapes!(one_process Sqlite, six_processes Mesh);
