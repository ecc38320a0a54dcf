//! Malformed requests over every surface, with and without a key. Callers learn what is wrong, and
//! nothing looks like a fault of Outrider: no INTERNAL, UNKNOWN or 5xx for callers, no warning and
//! no alert for operators.

mod bodies;
mod dice;
mod frames;
mod judge;
mod text;
mod told;

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, stream};
use http::Method;
use outrider_tests::{Outrider, Shape, client::Rest, cluster::Options, wait_until};
use serde_json::{Value, json};
use tokio::task::block_in_place;

use self::{dice::Dice, text::Sent};
use crate::{
    findings::Findings,
    scenario::{self, BOUND, Scenario, run_with_shares},
};

/// How many requests each kind of caller sends to each surface.
const REQUESTS: usize = 500;
/// How many requests run at once.
const AT_ONCE: usize = 16;

/// A caller and the addresses that it calls.
#[derive(Debug, Clone)]
pub struct Target {
    /// Host and port of the public listener.
    pub public: String,
    /// Hosts and ports of the roles' listeners for public methods, if roles have their own
    /// processes.
    pub roles: Vec<String>,
    /// Host and port of an operations listener.
    pub operations: String,
    pub project: String,
    pub token: Option<String>,
}

impl Target {
    /// Returns the header that authenticates the caller.
    fn authorization(&self) -> String {
        self.token
            .as_ref()
            .map(|token| format!("Authorization: Bearer {token}\r\n"))
            .unwrap_or_default()
    }
}

/// An HTTP/1.1 surface: its name, its requests, and whether answers have the form of the API.
type Surface = (&'static str, fn(&mut Dice, &Target) -> Sent, judge::Shape);

const SURFACES: [Surface; 7] = [
    ("gRPC-web", text::web, judge::Shape::Grpc),
    ("gRPC-web as base64", text::web_text, judge::Shape::Grpc),
    ("REST", text::rest, judge::Shape::Rest),
    ("lines", text::lines, judge::Shape::Rest),
    ("server-sent events", text::events, judge::Shape::Rest),
    ("operations", text::operations, judge::Shape::Any),
    ("HTTP/1.1", text::raw, judge::Shape::Rest),
];

/// Sends one malformed request to one of the surfaces, whatever the answer.
pub async fn one(number: usize, target: &Target) {
    let mut dice = Dice::new(number as u64);
    match SURFACES.get(number % (SURFACES.len() + 1)) {
        Some((name, make, _)) => {
            let address = if *name == "operations" { &target.operations } else { &target.public };
            let sent = make(&mut dice, target);
            // The answer is judged elsewhere.
            let _ = text::exchange(address, &sent).await;
        }
        None => frames::garbage(&target.public, dice, 1, &mut Findings::default()).await,
    }
}

async fn all(target: &Target, findings: &mut Findings) -> Result<()> {
    let known = target.token.is_some();
    for (number, (name, make, shape)) in SURFACES.into_iter().enumerate() {
        let mut dice = Dice::new(number as u64 * 2 + u64::from(known));
        let requests: Vec<Sent> = (0..REQUESTS).map(|_| make(&mut dice, target)).collect();
        let address = if name == "operations" { &target.operations } else { &target.public };
        let answers = stream::iter(requests).map(async |sent| {
            let answer = text::exchange(address, &sent).await;
            let judged = answer.and_then(|answer| judge::answer(&answer, shape, sent.is_hasty()));
            judged.with_context(|| format!("{name}, key {known}: {sent:?}"))
        });
        let mut answers = std::pin::pin!(answers.buffer_unordered(AT_ONCE));
        while let Some(judged) = answers.next().await {
            findings.add(judged);
        }
    }
    for (number, address) in std::iter::once(&target.public).chain(&target.roles).enumerate() {
        let dice = Dice::new(100 + number as u64 * 2 + u64::from(known));
        frames::grpc(address, target.token.as_deref(), dice, REQUESTS, findings).await?;
    }
    frames::garbage(&target.public, Dice::new(200 + u64::from(known)), REQUESTS, findings).await;
    Ok(())
}

/// Returns the samples that the documented alerts count.
async fn alarms(outrider: &Outrider) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for address in outrider.operations() {
        let reply =
            Rest::new(&format!("http://{address}"), None).send(Method::GET, "/metrics", "").await?;
        for line in
            String::from_utf8(reply.body.to_vec())?.lines().filter(|line| !line.starts_with('#'))
        {
            let (sample, value) = line.rsplit_once(' ').context("a sample has a value")?;
            if is_alarm(sample) && value != "0" {
                found.push(line.to_owned());
            }
        }
    }
    Ok(found)
}

fn is_alarm(sample: &str) -> bool {
    const OUR_FAULT: [&str; 4] = ["INTERNAL", "UNAVAILABLE", "UNKNOWN", "DATA_LOSS"];
    let status = |name: &str| sample.contains(&format!("status=\"{name}\""));
    let requests = sample.starts_with("outrider_gateway_requests_total{");
    (requests && (sample.contains("status=\"5") || OUR_FAULT.into_iter().any(status)))
        || sample.starts_with("outrider_store_errors_total")
        || sample.starts_with("outrider_dispatch_unaccounted_deliveries")
        || sample.starts_with("outrider_dispatch_ledger_discrepancies")
}

#[test]
fn the_alerts_on_requests_are_those_that_are_documented() {
    let page = include_str!("../../../docs/operations.md");
    assert!(
        page.contains(r#"outrider_gateway_requests_total{status=~"5..|UNAVAILABLE|INTERNAL"}"#)
    );
    assert!(is_alarm("outrider_gateway_requests_total{method=\"GET\",status=\"503\"}"));
    assert!(is_alarm("outrider_gateway_requests_total{status=\"INTERNAL\"}"));
    assert!(!is_alarm("outrider_gateway_requests_total{status=\"400\"}"));
    assert!(
        page.contains("outrider_store_errors_total")
            && page.contains("outrider_dispatch_unaccounted_deliveries")
    );
}

/// Returns the lines of the logs that report a problem.
fn complaints(outrider: &Outrider) -> Vec<String> {
    let is_bad = |line: &str| {
        let level = serde_json::from_str::<Value>(line)
            .ok()
            .and_then(|line| Some(line["level"].as_str()?.to_owned()));
        level.is_some_and(|level| matches!(level.as_str(), "WARN" | "ERROR"))
            || line.contains("panicked")
    };
    outrider.logs(usize::MAX).lines().filter(|line| is_bad(line)).map(str::to_owned).collect()
}

async fn malformed_requests_are_nobodys_fault_but_their_senders(shape: Shape) -> Result<()> {
    let options =
        Options { more: json!({"log": {"format": "json", "level": "info"}}), ..Options::default() };
    let outrider = block_in_place(|| scenario::start(shape, &options, None))?;
    let scenario = Scenario::new(&outrider).await?;
    scenario.publish_id("a", json!({})).await?;
    let before = complaints(&outrider).len();
    let operations = outrider.operations().last().context("no operations listener")?.clone();
    let apart = if shape == Shape::Mesh { ["ingest", "dispatch", "admin"].as_slice() } else { &[] };
    let roles = apart.iter().map(|role| outrider.role_address(role)).collect();
    let (public, project) = (scenario.address.clone(), scenario.project.clone());
    let target = Target { public, roles, operations, project, token: None };
    let mut findings = Findings::default();
    all(&target, &mut findings).await?;
    all(&Target { token: Some(scenario.token.clone()), ..target }, &mut findings).await?;
    // Requests that were reset end a moment after their clients are gone.
    wait_until("requests that were given up are counted", BOUND, async || {
        let texts = crate::telemetry::scrapes(&outrider).await.ok()?;
        let open = crate::telemetry::sum(&texts, "outrider_gateway_requests_open ");
        let gone = texts
            .iter()
            .flat_map(|text| text.lines())
            .any(|line| line.contains("status=\"cancelled\""));
        (open == 0.0 && gone).then_some(())
    })
    .await?;
    let said = complaints(&outrider);
    findings.add(match said.get(before..).unwrap_or_default() {
        [] => Ok(()),
        lines => Err(anyhow::anyhow!(
            "{} warnings, such as {:#?}",
            lines.len(),
            &lines[..lines.len().min(10)]
        )),
    });
    let alarms = alarms(&outrider).await?;
    findings.add(if alarms.is_empty() {
        Ok(())
    } else {
        Err(anyhow::anyhow!("alarms: {alarms:#?}"))
    });
    findings.finish()?;
    scenario.publish_id("a", json!({})).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_requests_are_told_so_on_sqlite() {
    run_with_shares(2, async || {
        malformed_requests_are_nobodys_fault_but_their_senders(Shape::Sqlite).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_requests_are_told_so_over_six_processes() {
    run_with_shares(4, async || {
        malformed_requests_are_nobodys_fault_but_their_senders(Shape::Mesh).await
    })
    .await;
}

#[test]
fn requests_are_the_same_in_every_run() {
    let target = Target {
        public: "a".into(),
        roles: Vec::new(),
        operations: "b".into(),
        project: "prj_1".into(),
        token: None,
    };
    let made = |make: fn(&mut Dice, &Target) -> Sent| {
        let mut dice = Dice::new(1);
        (0..REQUESTS).map(|_| format!("{:?}", make(&mut dice, &target))).collect::<Vec<_>>()
    };
    for (name, make, _) in SURFACES {
        let requests = made(make);
        assert_eq!(requests, made(make), "{name}");
        let kinds = requests.iter().collect::<std::collections::HashSet<_>>().len();
        assert!(kinds > 50, "{name}: {kinds} different requests");
    }
    ensure_frames_differ().unwrap();
}

fn ensure_frames_differ() -> Result<()> {
    let mut dice = Dice::new(1);
    let bodies: std::collections::HashSet<_> =
        (0..REQUESTS).map(|_| bodies::grpc(&mut dice)).collect();
    ensure!(bodies.len() > 100, "{} different bodies", bodies.len());
    Ok(())
}
