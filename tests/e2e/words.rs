//! Who learns what about a failure. Owners of endpoints learn what failed and which limit applied,
//! but no address. Callers learn that a server is unavailable. The log says which one, where, and
//! why. No text contains Rust's debug output.

use anyhow::{Context, Result, ensure};
use http::Method;
use outrider_proto::dispatch::GetEventRequest;
use outrider_tests::{
    Act, Outrider, RawReceiver, Shape, cluster::Options, ports, shapes::debug_shape, wait_until,
};
use serde_json::{Value, json};
use tokio::task::block_in_place;

use crate::scenario::{self, BOUND, Scenario, run_with_shares, text};

scenarios! {
    by_process: [
        an_attempt_tells_what_failed_and_no_address,
    ],
}

async fn an_attempt_tells_what_failed_and_no_address(scenario: &Scenario) -> Result<()> {
    let closed = "the connection was closed before the answer";
    // A tunnel of an egress in another process can end in only one way.
    let is_apart = scenario.shape == Shape::Mesh;
    let reset =
        if is_apart { closed } else { "the endpoint reset the connection before the answer" };
    let raw = [
        ("reset", RawReceiver::start(&[Act::Reset]).await?, reset),
        ("closed", RawReceiver::start(&[Act::Close]).await?, closed),
        (
            "silent",
            RawReceiver::start(&[Act::Hang]).await?,
            "the request was sent, but no answer came within 1 s",
        ),
        (
            "half",
            RawReceiver::start(&[Act::Send("HTTP/1."), Act::Hang]).await?,
            "an answer began, but its status line was not whole within 1 s",
        ),
        (
            "strange",
            RawReceiver::start(&[Act::Send("SSH-2.0-x\r\n\r\n"), Act::Hang]).await?,
            "the answer is not HTTP/1.1",
        ),
    ];
    let nobody = format!("http://127.0.0.1:{}/", ports::free());
    let plain = RawReceiver::start(&[Act::Hang]).await?;
    let urls = raw.iter().map(|(name, receiver, told)| (*name, receiver.url(), *told)).chain([
        ("refused", nobody, "the connection was refused: nothing listens on that port"),
        (
            "plain",
            plain.url().replace("http://", "https://"),
            "but the TLS handshake was not done within 1 s",
        ),
    ]);
    let urls: Vec<_> = urls.collect();
    for (name, url, _) in &urls {
        let target = scenario.endpoint("/", json!({"http": {"url": url}, "timeout": "1s"})).await?;
        scenario.subscribe(&target, &[*name]).await?;
    }
    scenario.settle().await?;
    let mut ids = Vec::new();
    for (name, ..) in &urls {
        ids.push(scenario.publish_id(name, json!({})).await?);
    }
    for ((name, _, told), id) in urls.iter().zip(&ids) {
        let failed = scenario.delivery_in(id, "FAILED").await?;
        for attempt in scenario.attempts(&text(&failed, "delivery_id")?).await? {
            let message = text(&attempt, "error_message")?;
            ensure!(message.contains(told), "{name}: {message}");
            ensure!(
                !message.contains("127.0.0.1") && debug_shape(&message).is_none(),
                "{name}: {message}"
            );
        }
    }
    Ok(())
}

/// Whether the log of any process has a line with these fields.
fn is_told(outrider: &Outrider, fields: &[(&str, &str)]) -> bool {
    let lines = outrider.logs(usize::MAX);
    let mut lines = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.any(|line| {
        fields
            .iter()
            .all(|(name, value)| line[*name].as_str().is_some_and(|told| told.contains(value)))
    })
}

async fn a_role_that_is_away_is_named_in_the_log_and_not_to_callers() -> Result<()> {
    let more = json!({"log": {"format": "json", "level": "debug"}});
    let mut outrider = block_in_place(|| {
        scenario::start(Shape::Mesh, &Options { more, ..Options::default() }, None)
    })?;
    let scenario = Scenario::new(&outrider).await?;
    let mut events = scenario.grpc().await?.events();
    let dispatch = outrider.role_address("dispatch");
    block_in_place(|| outrider.kill("dispatch"))?;
    let by_ingest = [
        ("role", "dispatch"),
        ("url", dispatch.as_str()),
        ("error", "connection refused"),
        ("target", "outrider_rpc"),
    ];
    let event = json!({"event_type": "a", "data": {}}).to_string();
    wait_until("the log names the role, its address and the reason", BOUND, async || {
        let reply =
            scenario.rest.send(Method::POST, &scenario.path("events"), event.clone()).await.ok()?;
        let body = String::from_utf8_lossy(&reply.body).into_owned();
        assert!(reply.status == 503 && reply.reason() == "UNAVAILABLE", "{reply:?}");
        assert!(
            !body.contains("127.0.0.1")
                && !body.contains("refused")
                && debug_shape(&body).is_none(),
            "{body}"
        );
        is_told(&outrider, &by_ingest).then_some(())
    })
    .await?;
    let request =
        GetEventRequest { project_id: scenario.project.clone(), event_id: "evt_0".to_owned() };
    let status = events.get_event(request).await.err().context("nobody can answer")?;
    ensure!(
        status.code() == tonic::Code::Unavailable && !status.message().contains("127.0.0.1"),
        "{status}"
    );
    ensure!(debug_shape(status.message()).is_none(), "{status}");
    block_in_place(|| outrider.restart("dispatch").and_then(|()| outrider.ready()))?;
    scenario.publish(json!({"event_type": "a", "data": {}})).await?;
    outrider.check_words()
}

mod away {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_role_that_is_away_is_named_in_the_log_and_not_to_callers() {
        super::run_with_shares(2, async || {
            super::a_role_that_is_away_is_named_in_the_log_and_not_to_callers().await
        })
        .await;
    }
}
