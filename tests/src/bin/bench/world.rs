//! What a load runs on: servers, a receiver, endpoints and their subscriptions.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use http::Method;
use outrider_tests::{Receiver, client::Rest, wait_until};
use serde_json::{Value, json};

use crate::{arguments::Layout, servers::Servers};

/// The type of what is published.
pub const EVENT_TYPE: &str = "bench";
/// Requests at once while endpoints and subscriptions are made.
const SETUP_CALLERS: usize = 32;

/// Running servers and what was made in them.
pub struct World {
    pub servers: Servers,
    pub receiver: Receiver,
    pub rest: Rest,
    /// The path of the project.
    project: String,
    /// The paths at the receiver that get every event.
    pub paths: Vec<String>,
}

impl World {
    /// On fresh servers; with so many endpoints that each get every event.
    pub async fn start(layout: Layout, workers: usize, fan_out: usize, max_in_flight: u32, receiver: Receiver) -> Result<Self> {
        let servers = Servers::start(layout, workers)?;
        let rest = Rest::new(&servers.outrider.url(), Some(&servers.outrider.token));
        let project = format!("/v1/projects/{}", servers.outrider.project_id);
        let paths = (0..fan_out).map(|number| format!("/bench/{number}")).collect();
        let world = Self { servers, receiver, rest, project, paths };
        all(world.paths.iter(), async |path| {
            let endpoint = world.endpoint(path, max_in_flight).await?;
            world.subscribe(&endpoint, EVENT_TYPE).await
        })
        .await?;
        Ok(world)
    }

    /// Further endpoints that never get anything.
    pub async fn idle_endpoints(&self, count: usize) -> Result<()> {
        all(0..count, async |number| {
            let endpoint = self.endpoint("/idle", 64).await?;
            self.subscribe(&endpoint, &format!("idle.{number}")).await
        })
        .await
    }

    /// Further subscriptions that never match.
    pub async fn idle_subscriptions(&self, count: usize) -> Result<()> {
        let endpoint = self.endpoint("/idle", 64).await?;
        all(0..count, async |number| self.subscribe(&endpoint, &format!("idle.{number}")).await).await
    }

    async fn endpoint(&self, path: &str, max_in_flight: u32) -> Result<String> {
        let endpoint = json!({"http": {"url": self.receiver.url(path)}, "max_in_flight": max_in_flight});
        let made = self.rest.post(&format!("{}/endpoints", self.project), &endpoint).await?;
        Ok(made["endpoint"]["endpoint_id"].as_str().context("no endpoint_id")?.to_owned())
    }

    async fn subscribe(&self, endpoint: &str, event_type: &str) -> Result<()> {
        let subscription = json!({"endpoint_id": endpoint, "name": event_type, "event_types": [event_type]});
        self.rest.post(&format!("{}/subscriptions", self.project), &subscription).await.map(drop)
    }

    /// Publishes and gives the event's id.
    pub async fn publish(&self, event: &Bytes) -> Result<String> {
        let reply = self.rest.send(Method::POST, &self.events(), event.clone()).await?.success()?;
        ensure!(reply["delivery_count"] == self.paths.len(), "{reply}");
        Ok(reply["event_id"].as_str().context("no event_id")?.to_owned())
    }

    /// The path of the project's events.
    pub fn events(&self) -> String {
        format!("{}/events", self.project)
    }

    /// Publishes until the subscriptions are in force and what was published has arrived.
    pub async fn warm_up(&self, event: &Bytes) -> Result<()> {
        let enough = (1_000 / self.paths.len()).clamp(1, 100);
        let routed = wait_until("the subscriptions are in force", Duration::from_secs(60), async || {
            let mut routed = 0;
            for _ in 0..enough {
                routed += usize::from(self.publish(event).await.is_ok());
            }
            (routed == enough).then_some(routed)
        })
        .await?;
        wait_until("the first events arrive", Duration::from_secs(60), async || {
            (self.arrived() >= routed * self.paths.len()).then_some(())
        })
        .await?;
        // What was published before the subscriptions were in force arrives in part.
        let mut last = 0;
        wait_until("nothing arrives any more", Duration::from_secs(60), async || {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let before = std::mem::replace(&mut last, self.arrived());
            (before == last).then_some(())
        })
        .await
    }

    /// Deliveries that have arrived, each once.
    pub fn arrived(&self) -> usize {
        self.paths.iter().map(|path| self.receiver.distinct(path)).sum()
    }

    /// Deliveries that arrived again.
    pub fn duplicates(&self) -> usize {
        self.paths.iter().map(|path| self.receiver.duplicates(path)).sum()
    }
}

/// A publish whose payload is JSON of the given length.
pub fn event(payload: usize) -> Bytes {
    let data: Value = "x".repeat(payload.saturating_sub(2)).into();
    json!({"event_type": EVENT_TYPE, "data": data}).to_string().into()
}

/// Does something for each of many, some at once.
async fn all<T>(items: impl Iterator<Item = T>, make: impl AsyncFn(T) -> Result<()>) -> Result<()> {
    let make = &make;
    stream::iter(items.map(|item| async move { make(item).await })).buffer_unordered(SETUP_CALLERS).try_collect().await
}
