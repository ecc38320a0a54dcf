//! Another organisation whose endpoints hang.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use http::Method;
use outrider_tests::{Answer, client::Rest, wait_until};
use serde_json::{Value, json};
use tokio::task::block_in_place;

use crate::world::World;

/// Callers that publish at once.
const CALLERS: usize = 8;
/// Events after which an endpoint that answers fast has its largest window.
const TO_GROW: usize = 1_100;

/// The organisation, with a key that may do everything in it.
pub struct Attacker {
    world: Arc<World>,
    rest: Rest,
    paths: AtomicUsize,
}

/// Two endpoints that answer.
pub struct Pair {
    project: String,
    paths: Vec<String>,
}

impl Attacker {
    /// A new organisation.
    pub fn new(world: &Arc<World>) -> Result<Self> {
        let outrider = &world.servers.outrider;
        let other = block_in_place(|| outrider.another_organization())?;
        let rest = Rest::new(&outrider.url(), Some(&other.token));
        Ok(Self { world: Arc::clone(world), rest, paths: AtomicUsize::new(0) })
    }

    /// Projects, each with so many endpoints that accept and never answer, and so many events of a
    /// size, to all of its endpoints.
    pub async fn hanging(
        &self,
        projects: usize,
        endpoints: usize,
        max_in_flight: Option<u32>,
        events: usize,
        payload: usize,
    ) -> Result<()> {
        for _ in 0..projects {
            let (project, _) = self.project(endpoints, max_in_flight, Answer::Hang).await?;
            self.publish(&project, events, payload).await?;
        }
        Ok(())
    }

    /// A pair of endpoints whose windows have grown, because they answered.
    pub async fn faithful_pair(&self) -> Result<Pair> {
        let (project, paths) = self.project(2, Some(1_024), Answer::Status(200)).await?;
        self.publish(&project, TO_GROW, 100).await?;
        let arrived = || paths.iter().all(|path| self.world.receiver.distinct(path) >= TO_GROW);
        wait_until("the pair has answered", Duration::from_secs(60), async || arrived().then_some(())).await?;
        Ok(Pair { project, paths })
    }

    /// From now on the pair hangs.
    pub async fn turn(&self, pair: &Pair) -> Result<()> {
        for path in &pair.paths {
            self.world.receiver.answer(path, [Answer::Hang]);
        }
        self.publish(&pair.project, TO_GROW, 100).await
    }

    async fn project(&self, endpoints: usize, max_in_flight: Option<u32>, answer: Answer) -> Result<(String, Vec<String>)> {
        let project = self.rest.post("/v1/projects", &json!({"name": "Attack"})).await?;
        let project = format!("/v1/projects/{}", project["project_id"].as_str().context("no project_id")?);
        let mut paths = Vec::new();
        for _ in 0..endpoints {
            let path = format!("/attack/{}", self.paths.fetch_add(1, Ordering::Relaxed));
            self.world.receiver.answer(&path, [answer.clone()]);
            let mut endpoint = json!({"http": {"url": self.world.receiver.url(&path)}});
            if let Some(most) = max_in_flight {
                endpoint["max_in_flight"] = most.into();
                endpoint["timeout"] = "30s".into();
            }
            let made = self.rest.post(&format!("{project}/endpoints"), &endpoint).await?;
            let subscription =
                json!({"endpoint_id": made["endpoint"]["endpoint_id"], "name": "attack", "event_types": ["attack"]});
            self.rest.post(&format!("{project}/subscriptions"), &subscription).await?;
            paths.push(path);
        }
        Ok((project, paths))
    }

    /// Publishes once the project's subscriptions are in force.
    async fn publish(&self, project: &str, events: usize, payload: usize) -> Result<()> {
        let (path, event) = (format!("{project}/events"), event(payload));
        let offered = || async { self.rest.send(Method::POST, &path, event.clone()).await?.success() };
        wait_until("the subscriptions of the attack are in force", Duration::from_secs(30), async || {
            let reply = offered().await.ok()?;
            (reply["delivery_count"].as_u64() > Some(0)).then_some(())
        })
        .await?;
        stream::iter(0..events).map(|_| offered()).buffer_unordered(CALLERS).try_for_each(|_| async { Ok(()) }).await
    }
}

fn event(payload: usize) -> Bytes {
    let data: Value = "x".repeat(payload.saturating_sub(2)).into();
    json!({"event_type": "attack", "data": data}).to_string().into()
}
