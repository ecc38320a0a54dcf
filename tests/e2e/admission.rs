//! A caller without a valid API key is refused after the head of its request, on every surface.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use http::Method;
use outrider_model::{ApiKeyId, Timestamp, Token};
use outrider_tests::{
    Outrider, Shape,
    client::{Rest, exchange},
    cluster::Options,
    process::Signal,
    wait_until,
};
use serde_json::json;
use tokio::{
    net::TcpStream,
    task::{JoinSet, block_in_place},
    time::timeout,
};

use crate::scenario::{self, BOUND, SHARES, Scenario, run_with_shares, text};

scenarios! {
    everywhere: [
        a_revoked_key_is_refused_soon,
    ],
    by_process: [
        keys_come_before_bodies,
    ],
}

/// How long a caller may wait for its answer while a flood takes the whole machine.
const PROMPTLY: Duration = Duration::from_secs(10);

/// A well-formed key that does not exist.
const INVENTED: &str = "ork_00000000000000000000000001_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Creates a key, and returns its token and its id.
async fn key(scenario: &Scenario, scope: &str) -> Result<(String, String)> {
    let new = json!({"name": "A caller", "project_id": scenario.project, "scopes": [scope]});
    let made = scenario.rest.post("/v1/api_keys", &new).await?;
    Ok((text(&made, "token")?, text(&made["api_key"], "api_key_id")?))
}

async fn keys_come_before_bodies(scenario: &Scenario) -> Result<()> {
    const GRPC: &str = "/outrider.ingest.v1.IngestService/PublishEvent";
    let (reader, _) = key(scenario, "SCOPE_PROJECTS_READ").await?;
    let callers = [
        (String::new(), "401", "16", "MISSING_CREDENTIALS"),
        ("Authorization: Bearer nonsense\r\n".to_owned(), "401", "16", "INVALID_CREDENTIALS"),
        (format!("Authorization: Bearer {INVENTED}\r\n"), "401", "16", "INVALID_CREDENTIALS"),
        (format!("Authorization: Bearer {reader}\r\n"), "403", "7", "MISSING_SCOPE"),
    ];
    let surfaces = [
        ("POST", scenario.path("events"), "application/json"),
        ("POST", scenario.path("events:batch"), "application/json"),
        ("POST", scenario.path("events:batch"), "application/x-ndjson"),
        ("GET", scenario.path("events:tail"), "application/json"),
        ("POST", scenario.path("endpoints"), "application/json"),
        ("POST", GRPC.to_owned(), "application/grpc-web+proto"),
        ("POST", GRPC.to_owned(), "application/grpc-web-text"),
    ];
    for (authorization, http, grpc, reason) in &callers {
        for (method, path, media_type) in &surfaces {
            let head = format!(
                "{method} {path} HTTP/1.1\r\nHost: x\r\n{authorization}Content-Type: \
                    {media_type}\r\n"
            );
            let asking = format!("{head}Content-Length: 5000000\r\nExpect: 100-continue\r\n\r\n");
            let half = format!("{head}Content-Length: 5000000\r\n\r\n{{");
            for request in [asking, half] {
                let answer = exchange(&scenario.address, [request.into_bytes()]).await?.text;
                let what = || format!("{path} as {media_type} with {reason}: {answer}");
                ensure!(!answer.contains(" 100 "), "the body was asked for: {}", what());
                if media_type.contains("grpc") {
                    ensure!(answer.contains(&format!("grpc-status: {grpc}\r\n")), what());
                } else {
                    ensure!(
                        answer.starts_with(&format!("HTTP/1.1 {http} ")) && answer.contains(reason),
                        what()
                    );
                }
            }
        }
    }
    Ok(())
}

async fn a_revoked_key_is_refused_soon(scenario: &Scenario) -> Result<()> {
    let (token, id) = key(scenario, "SCOPE_ENDPOINTS_READ").await?;
    let caller = scenario.rest.with_token(Some(&token));
    let path = scenario.path("endpoints");
    let status = async || Ok::<_, anyhow::Error>(caller.send(Method::GET, &path, "").await?.status);
    let good = wait_until("the new key is let in", BOUND, async || {
        (status().await.ok()? == 200).then_some(())
    });
    good.await.context("a new key")?;
    scenario.rest.send(Method::DELETE, &format!("/v1/api_keys/{id}"), "").await?;
    let refused = wait_until("the revoked key is refused", BOUND, async || {
        (status().await.ok()? == 401).then_some(())
    });
    refused.await.context("a revoked key")?;
    ensure!(status().await? == 401, "it is let in again");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_silent_connections_keep_nobody_out() {
    run_with_shares(1, async || silent_connections_keep_nobody_out(Shape::Sqlite).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mesh_silent_connections_keep_nobody_out() {
    run_with_shares(2, async || silent_connections_keep_nobody_out(Shape::Mesh).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_invented_keys_hold_up_no_real_one() {
    run_with_shares(SHARES, async || invented_keys_hold_up_no_real_one(Shape::Sqlite).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mesh_invented_keys_hold_up_no_real_one() {
    run_with_shares(SHARES, async || invented_keys_hold_up_no_real_one(Shape::Mesh).await).await;
}

/// Returns a key that does not exist, with the time of this moment or of long ago in its id.
fn invented(number: u64) -> String {
    let micros = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
    let now = Timestamp(i64::try_from(micros).unwrap_or_default());
    let at = if number.is_multiple_of(4) { Timestamp(0) } else { now };
    Token::new(ApiKeyId::new(at, number), [1; 32]).reveal()
}

/// Valid keys that no process has seen yet are served while callers keep presenting invented keys.
async fn invented_keys_hold_up_no_real_one(shape: Shape) -> Result<()> {
    const CALLERS: u64 = 16;
    let outrider = block_in_place(|| scenario::start(shape, &Options::default(), None))?;
    let outcome = async {
        let scenario = Scenario::new(&outrider).await?;
        let path = scenario.path("endpoints");
        let refused = Arc::new(AtomicU64::new(0));
        let mut flood = JoinSet::new();
        for caller in 0..CALLERS {
            let (rest, path, refused) =
                (Rest::new(&scenario.url, None), path.clone(), Arc::clone(&refused));
            flood.spawn(async move {
                for number in 0.. {
                    let token = invented(caller << 32 | number);
                    let reply = rest.with_token(Some(&token)).send(Method::GET, &path, "").await?;
                    ensure!(
                        [401, 429].contains(&reply.status.as_u16()),
                        "an invented key: {reply:?}"
                    );
                    refused.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            });
        }
        for _ in 0..10 {
            let (token, _) = key(&scenario, "SCOPE_ENDPOINTS_READ").await?;
            let before = refused.load(Ordering::Relaxed);
            let caller = Rest::new(&scenario.url, Some(&token));
            let answer = timeout(PROMPTLY, caller.send(Method::GET, &path, "")).await;
            let reply = answer.context("a new key waits behind invented ones")??;
            ensure!(reply.status == 200, "a new key: {reply:?}");
            wait_until("the flood goes on", BOUND, async || {
                (refused.load(Ordering::Relaxed) > before).then_some(())
            })
            .await?;
        }
        if let Some(ended) = flood.try_join_next() {
            ended??;
        }
        Ok(())
    };
    outcome.await.map_err(|error: anyhow::Error| scenario::with_logs(&error, &outrider))
}

/// Counts old answers that were used.
const USED: &str = "outrider_gateway_key_lookups_total{result=\"outage\"} ";

/// The roles that tell a gateway in another process who a key belongs to.
const TELLING: [&str; 3] = ["ingest", "admin", "dispatch"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mesh_roles_that_cannot_check_keys_are_not_waited_for() {
    run_with_shares(2, async || {
        let mut outrider =
            block_in_place(|| scenario::start(Shape::Mesh, &Options::default(), None))?;
        let outcome = roles_that_cannot_check_keys_are_not_waited_for(&mut outrider).await;
        outcome.map_err(|error| scenario::with_logs(&error, &outrider))
    })
    .await;
}

async fn roles_that_cannot_check_keys_are_not_waited_for(outrider: &mut Outrider) -> Result<()> {
    let scenario = Scenario::new(outrider).await?;
    let (path, hasty) =
        (scenario.path("endpoints"), scenario.rest.with_header("request-timeout", "1")?);
    let (token, _) = key(&scenario, "SCOPE_ENDPOINTS_READ").await?;
    let new = Rest::new(&scenario.url, Some(&token));
    let gateway = outrider
        .processes()
        .iter()
        .position(|(name, _)| *name == "gateway")
        .context("a gateway")?;
    let operator = Rest::new(&format!("http://{}", outrider.operations()[gateway]), None);
    let readiness = async || {
        let reply = operator.send(Method::GET, "/readyz", "").await?;
        Ok::<_, anyhow::Error>((
            reply.status.as_u16(),
            String::from_utf8_lossy(&reply.body).into_owned(),
        ))
    };
    ensure!(readiness().await?.0 == 200, "the gateway is not ready");
    TELLING.iter().try_for_each(|role| outrider.signal(role, Signal::Stop))?;
    wait_until("the gateway says what it lacks", BOUND, async || {
        let (status, text) = readiness().await.ok()?;
        (status == 503 && text.contains("checks API keys")).then_some(())
    })
    .await?;
    for _ in 0..5 {
        let reply = timeout(PROMPTLY / 2, new.send(Method::GET, &path, ""))
            .await
            .context("it waits for a role")??;
        ensure!(
            (reply.status.as_u16(), reply.reason().as_str()) == (503, "UNAVAILABLE"),
            "{reply:?}"
        );
    }
    // A caller that was known a moment ago is admitted, and waits for the role that serves its
    // method.
    wait_until("an old answer is used", BOUND, async || {
        let reply = hasty.send(Method::GET, &path, "").await.ok()?;
        let metrics = operator.send(Method::GET, "/metrics", "").await.ok()?;
        let counted = String::from_utf8_lossy(&metrics.body).into_owned();
        let used =
            counted.lines().filter_map(|line| line.strip_prefix(USED)).any(|count| count != "0");
        (reply.status == 504 && used).then_some(())
    })
    .await?;
    TELLING.iter().try_for_each(|role| outrider.signal(role, Signal::Continue))?;
    wait_until("the roles are found back", BOUND, async || {
        (new.send(Method::GET, &path, "").await.ok()?.status == 200).then_some(())
    })
    .await?;
    wait_until("the gateway is ready", BOUND, async || {
        (readiness().await.ok()?.0 == 200).then_some(())
    })
    .await
}

async fn connections(address: &str, count: usize) -> Result<Vec<TcpStream>> {
    let mut open = Vec::new();
    for _ in 0..count {
        open.push(TcpStream::connect(address).await?);
    }
    Ok(open)
}

/// Opens more silent connections than each listener accepts.
async fn silent_connections_keep_nobody_out(shape: Shape) -> Result<()> {
    let more = json!({"gateway": {"max_connections": 40, "reserved_connections": 10}});
    let outrider =
        block_in_place(|| scenario::start(shape, &Options { more, ..Options::default() }, None))?;
    let outcome = async {
        let scenario = Scenario::new(&outrider).await?;
        let mut silent = connections(&scenario.address, 100).await?;
        for operations in outrider.operations() {
            silent.extend(connections(&operations, 300).await?);
        }
        // Over connections that are already open, and over new ones.
        for _ in 0..3 {
            scenario.rest.get(&scenario.path("endpoints")).await?;
            let another = Rest::new(&scenario.url, Some(&scenario.token));
            another
                .get(&scenario.path("endpoints"))
                .await
                .context("a new connection of a known caller")?;
        }
        let mut displaced = 0.0;
        for operations in outrider.operations() {
            let operator = Rest::new(&format!("http://{operations}"), None);
            ensure!(
                operator.send(Method::GET, "/healthz", "").await?.status == 200,
                "{operations} is not healthy"
            );
            let metrics = operator.send(Method::GET, "/metrics", "").await?;
            let text = String::from_utf8(metrics.body.to_vec())?;
            let counted = text.lines().find_map(|line| {
                line.strip_prefix("outrider_gateway_connections_displaced_total ")
            });
            displaced += counted.and_then(|count| count.parse::<f64>().ok()).unwrap_or(0.0);
        }
        ensure!(displaced >= 60.0, "{displaced} connections were displaced");
        drop(silent);
        Ok(())
    };
    outcome.await.map_err(|error: anyhow::Error| scenario::with_logs(&error, &outrider))
}
