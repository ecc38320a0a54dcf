//! Another organization with hostile endpoints, for the benchmark of attacks and the hostile suite.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use http::Method;
use serde_json::{Value, json};
use tokio::{task::block_in_place, time::sleep};

use crate::{Answer, Outrider, Receiver, client::Rest};

/// How many callers publish at the same time.
const CALLERS: usize = 8;
/// The number of events after which an endpoint that answers fast has its largest window.
pub const TO_GROW: usize = 1_100;
/// The time within which a subscription must take effect.
const IN_FORCE: Duration = Duration::from_secs(30);
/// The pause between two tries.
const PAUSE: Duration = Duration::from_millis(100);
/// The type of the events that go to all endpoints of a project.
pub const EVENT_TYPE: &str = "attack";

/// The organization, with a key that has all scopes in it.
pub struct Attacker {
    /// A client with that key.
    pub rest: Rest,
    /// The token of the key.
    pub token: String,
    receiver: Arc<Receiver>,
    paths: AtomicUsize,
}

/// Two endpoints that answer.
pub struct Pair {
    project: String,
    paths: Vec<String>,
}

/// The limits of an endpoint of the attacker. `None` means the default of the product.
#[derive(Debug, Clone, Copy, Default)]
pub struct Limits {
    /// How many requests may be in flight at once.
    pub max_in_flight: Option<u32>,
    /// The time of one exchange, such as `30s`.
    pub timeout: Option<&'static str>,
}

impl Limits {
    /// The highest limits that an endpoint can have.
    pub const HIGHEST: Self = Self { max_in_flight: Some(1_024), timeout: Some("30s") };
    /// The defaults of the product.
    pub const DEFAULT: Self = Self { max_in_flight: None, timeout: None };
}

impl Attacker {
    /// Creates an organization whose endpoints are at this receiver.
    pub fn new(outrider: &Outrider, receiver: &Arc<Receiver>) -> Result<Self> {
        let other = block_in_place(|| outrider.another_organization())?;
        let (url, token) = (outrider.url(), Some(other.token.as_str()));
        let rest = match outrider.authority() {
            Some(authority) => Rest::trusting(&url, token, authority)?,
            None => Rest::new(&url, token),
        };
        Ok(Self {
            rest,
            token: other.token,
            receiver: Arc::clone(receiver),
            paths: AtomicUsize::new(0),
        })
    }

    /// Creates projects, each with this many endpoints that accept and never answer, and publishes
    /// this many events of a size to all of its endpoints.
    pub async fn hanging(
        &self,
        projects: usize,
        endpoints: usize,
        limits: Limits,
        events: usize,
        payload: usize,
    ) -> Result<()> {
        for _ in 0..projects {
            let (project, _) = self.endpoints(endpoints, limits, &Answer::Hang).await?;
            self.publish(&project, events, payload).await?;
        }
        Ok(())
    }

    /// Creates a pair of endpoints whose windows have grown because they answered this many events.
    pub async fn faithful_pair(&self, events: usize) -> Result<Pair> {
        let (project, paths) = self.endpoints(2, Limits::HIGHEST, &Answer::Status(200)).await?;
        self.publish(&project, events, 100).await?;
        let begin = Instant::now();
        while paths.iter().any(|path| self.receiver.distinct(path) < events) {
            ensure!(begin.elapsed() < 2 * IN_FORCE, "the pair has not answered");
            sleep(PAUSE).await;
        }
        Ok(Pair { project, paths })
    }

    /// Makes the pair hang, and publishes as many events again.
    pub async fn turn(&self, pair: &Pair, events: usize) -> Result<()> {
        for path in &pair.paths {
            self.receiver.answer(path, [Answer::Hang]);
        }
        self.publish(&pair.project, events, 100).await
    }

    /// Creates a project, and returns its path.
    pub async fn project(&self) -> Result<String> {
        let project = self.rest.post("/v1/projects", &json!({"name": "Attack"})).await?;
        Ok(format!("/v1/projects/{}", project["project_id"].as_str().context("no project_id")?))
    }

    /// Deletes its projects with everything that is pending in them.
    pub async fn delete_projects(&self) -> Result<()> {
        loop {
            let page = self.rest.get("/v1/projects?page_size=500").await?;
            let projects = page["projects"].as_array().cloned().unwrap_or_default();
            if projects.is_empty() {
                return Ok(());
            }
            for project in projects {
                let id = project["project_id"].as_str().context("no project_id")?;
                self.rest.delete(&format!("/v1/projects/{id}")).await?;
            }
        }
    }

    /// Creates a project with endpoints at the receiver that all answer in this way. Returns its
    /// path and those of the endpoints.
    pub async fn endpoints(
        &self,
        count: usize,
        limits: Limits,
        answer: &Answer,
    ) -> Result<(String, Vec<String>)> {
        let project = self.project().await?;
        let mut paths = Vec::new();
        for _ in 0..count {
            let path = format!("/attack{project}/{}", self.paths.fetch_add(1, Ordering::Relaxed));
            self.receiver.answer(&path, [answer.clone()]);
            self.endpoint(&project, &self.receiver.url(&path), limits).await?;
            paths.push(path);
        }
        Ok((project, paths))
    }

    /// Creates an endpoint that gets all events of its project. Returns its id.
    pub async fn endpoint(&self, project: &str, url: &str, limits: Limits) -> Result<String> {
        let mut endpoint = json!({"http": {"url": url}});
        if let Some(most) = limits.max_in_flight {
            endpoint["max_in_flight"] = most.into();
        }
        if let Some(timeout) = limits.timeout {
            endpoint["timeout"] = timeout.into();
        }
        let made = self.rest.post(&format!("{project}/endpoints"), &endpoint).await?;
        let id = made["endpoint"]["endpoint_id"].as_str().context("no endpoint_id")?.to_owned();
        let subscription =
            json!({"endpoint_id": id, "name": "attack", "event_types": [EVENT_TYPE]});
        self.rest.post(&format!("{project}/subscriptions"), &subscription).await?;
        Ok(id)
    }

    /// Publishes, once the project's subscriptions are in effect.
    pub async fn publish(&self, project: &str, events: usize, payload: usize) -> Result<()> {
        let event = event(payload);
        let begin = Instant::now();
        while self.offer(project, event.clone()).await?["delivery_count"].as_u64().unwrap_or(0) == 0
        {
            ensure!(begin.elapsed() < IN_FORCE, "the subscriptions of the attack are not in force");
            sleep(PAUSE).await;
        }
        let offered = stream::iter(0..events).map(|_| self.offer(project, event.clone()));
        offered.buffer_unordered(CALLERS).try_for_each(|_| async { Ok(()) }).await
    }

    /// Publishes one event. Repeats this while the server is overloaded.
    async fn offer(&self, project: &str, event: Bytes) -> Result<Value> {
        const TRIES: usize = 600;
        for _ in 0..TRIES {
            let reply =
                self.rest.send(Method::POST, &format!("{project}/events"), event.clone()).await?;
            if ![429, 503].contains(&reply.status.as_u16()) {
                return reply.success();
            }
            sleep(PAUSE).await;
        }
        bail!("refused {TRIES} times")
    }
}

/// Returns an event with a payload of this many bytes.
#[must_use]
pub fn event(payload: usize) -> Bytes {
    let data: Value = "x".repeat(payload.saturating_sub(2)).into();
    json!({"event_type": EVENT_TYPE, "data": data}).to_string().into()
}
