//! Shared resources are divided. One API key takes all that it can of a resource, and another key
//! of its project, a key of another project and a key of another organization still get theirs.

mod connections;
mod places;
mod rooms;
mod turns;
mod unread;

use std::{fmt, time::Duration};

use anyhow::{Context, Result, ensure};
use outrider_tests::{
    Outrider, Shape,
    client::{Grpc, Reply, Rest},
    cluster::Options,
    wait_until,
};
use serde_json::{Value, json};
use tokio::task::block_in_place;
use tonic::Status;
use tonic_types::StatusExt;

use crate::{
    scenario::{self, BOUND, Scenario, text},
    telemetry::{scrapes, sum},
};

/// Starts a separate Outrider with further settings.
fn start(shape: Shape, more: Value) -> Result<Outrider> {
    block_in_place(|| scenario::start(shape, &Options { more, ..Options::default() }, None))
}

/// One API key and a project that it reaches.
#[derive(Debug, Clone)]
struct Caller {
    url: String,
    address: String,
    project: String,
    token: String,
}

impl Caller {
    fn rest(&self) -> Rest {
        Rest::new(&self.url, Some(&self.token))
    }

    async fn grpc(&self) -> Result<Grpc> {
        Grpc::connect(&self.url, &self.token).await
    }

    fn path(&self, rest: &str) -> String {
        format!("/v1/projects/{}/{rest}", self.project)
    }

    /// Publishes an event with a payload of about this many bytes.
    async fn publish(&self, bytes: usize) -> Result<Reply> {
        let event = json!({"event_type": "shares.tested", "data": "x".repeat(bytes)});
        self.rest().send(http::Method::POST, &self.path("events"), event.to_string()).await
    }
}

/// A greedy key, and the keys that share with it.
#[derive(Debug)]
struct Callers {
    greedy: Caller,
    /// A key of the same project, of another project, and of another organization.
    others: [Caller; 3],
}

impl Callers {
    async fn new(outrider: &Outrider) -> Result<Self> {
        let scenario = Scenario::new(outrider).await?;
        let neighbor = scenario.rest.post("/v1/projects", &json!({"name": "A neighbor"})).await?;
        let neighbor = text(&neighbor, "project_id")?;
        let stranger = block_in_place(|| outrider.another_organization())?;
        let stranger = Caller {
            project: stranger.project_id,
            ..caller(&scenario, &scenario.project, &stranger.token)
        };
        let others =
            [key(&scenario, &scenario.project).await?, key(&scenario, &neighbor).await?, stranger];
        let greedy = key(&scenario, &scenario.project).await?;
        // From here on, every process knows all keys.
        for caller in others.iter().chain([&greedy]) {
            wait_until("a new key is known", BOUND, async || {
                caller.publish(1).await.is_ok_and(|reply| reply.status == 200).then_some(())
            })
            .await?;
        }
        Ok(Self { greedy, others })
    }
}

fn caller(scenario: &Scenario, project: &str, token: &str) -> Caller {
    let (url, address) = (scenario.url.clone(), scenario.address.clone());
    Caller { url, address, project: project.to_owned(), token: token.to_owned() }
}

/// Creates a key that is bound to a project.
async fn key(scenario: &Scenario, project: &str) -> Result<Caller> {
    let scopes = [
        "SCOPE_EVENTS_PUBLISH",
        "SCOPE_EVENTS_READ",
        "SCOPE_PROJECTS_WRITE",
        "SCOPE_EVENT_TYPES_WRITE",
    ];
    let made = scenario
        .rest
        .post("/v1/api_keys", &json!({"name": "k", "project_id": project, "scopes": scopes}))
        .await?;
    Ok(caller(scenario, project, &text(&made, "token")?))
}

/// The refusal of a caller.
#[derive(Debug, PartialEq, Eq)]
struct Refusal {
    reason: String,
    message: String,
    /// Whether it says when to try again.
    retry: bool,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.message)
    }
}

impl Refusal {
    fn of_status(status: &Status) -> Self {
        let details = status.get_error_details();
        let reason = details.error_info().map(|info| info.reason.clone()).unwrap_or_default();
        Self { reason, message: status.message().to_owned(), retry: details.retry_info().is_some() }
    }

    fn of_reply(reply: &Reply) -> Self {
        let message =
            reply.json().ok().and_then(|json| json["error"]["message"].as_str().map(str::to_owned));
        let retry = reply.headers.contains_key(http::header::RETRY_AFTER);
        Self { reason: reply.reason(), message: message.unwrap_or_default(), retry }
    }

    /// Asserts that the key's share is used up.
    fn is_of_the_key(&self) -> Result<()> {
        let key = self.message.starts_with("the API key has used up its share of this server's ");
        ensure!(self.reason == "SHARE_EXHAUSTED" && self.retry && key, "{self:?}");
        Ok(())
    }
}

/// Returns the sum over all processes of a metric's samples of one resource.
async fn of_resource(outrider: &Outrider, metric: &str, resource: &str) -> Result<f64> {
    let texts = scrapes(outrider).await?;
    Ok(sum(&texts, &format!("outrider_shares_{metric}{{resource=\"{resource}\"")))
}

/// Waits until nothing of a resource is held.
async fn returned(outrider: &Outrider, resource: &str) -> Result<()> {
    let mut held = 0.0;
    let free = wait_until("everything is given back", 2 * BOUND, async || {
        held = of_resource(outrider, "held", resource).await.ok()?;
        (held == 0.0).then_some(())
    });
    free.await.with_context(|| format!("{held} of {resource} are held"))
}

/// The time within which every answer must arrive.
const PATIENCE: Duration = Duration::from_secs(60);

async fn in_time<T>(what: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(PATIENCE, work).await.with_context(|| format!("{what}: it hangs"))?
}
