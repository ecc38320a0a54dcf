//! The environment of a load: servers, a receiver, endpoints and their subscriptions.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures::{StreamExt, stream};
use http::Method;
use outrider_tests::{Receiver, client::Rest};
use serde_json::{Value, json};
use tokio::{task::block_in_place, time::sleep};

use crate::{
    arguments::Layout,
    arrivals::{self, PATIENCE},
    progress::Progress,
    servers::Servers,
    turns::Turns,
};

/// The type of published events.
pub const EVENT_TYPE: &str = "bench";
/// How many requests run at once while endpoints and subscriptions are created. The server creates
/// them one after the other, so these only keep it busy.
const SETUP_CALLERS: usize = 32;

/// Running servers with their configuration.
pub struct World {
    pub servers: Servers,
    pub receiver: Arc<Receiver>,
    /// Clients of every public port.
    rests: Turns<Rest>,
    /// The path of the project.
    project: String,
    /// The paths of the receiver that get every event.
    pub paths: Vec<String>,
    /// The number of created endpoints.
    pub endpoints: usize,
    subscriptions: usize,
}

impl World {
    /// Starts fresh servers without endpoints.
    pub fn start(layout: Layout, processes: usize, receiver: Receiver) -> Result<Self> {
        let servers = Servers::start(layout, processes)?;
        let rests = servers.urls.iter().map(|url| Rest::new(url, Some(&servers.outrider.token)));
        let rests = Turns::of(rests.collect());
        let project = format!("/v1/projects/{}", servers.outrider.project_id);
        let receiver = Arc::new(receiver);
        Ok(Self {
            servers,
            receiver,
            rests,
            project,
            paths: Vec::new(),
            endpoints: 0,
            subscriptions: 0,
        })
    }

    /// Creates endpoints that each get every event.
    pub async fn endpoints(&mut self, count: usize, max_in_flight: u32) -> Result<()> {
        self.paths = (0..count).map(|number| format!("/bench/{number}")).collect();
        all("endpoints are made", count, async |number| {
            let endpoint = self.endpoint(&self.paths[number], max_in_flight).await?;
            self.subscribe(&endpoint, EVENT_TYPE).await
        })
        .await?;
        self.made(count, count);
        Ok(())
    }

    /// Creates further endpoints that never get an event.
    pub async fn idle_endpoints(&mut self, count: usize) -> Result<()> {
        all("idle endpoints are made", count, async |number| {
            let endpoint = self.endpoint("/idle", 64).await?;
            self.subscribe(&endpoint, &format!("idle.{number}")).await
        })
        .await?;
        self.made(count, count);
        Ok(())
    }

    /// Creates further subscriptions that never match, of a separate endpoint.
    pub async fn idle_subscriptions(&mut self, count: usize) -> Result<()> {
        let endpoint = self.endpoint("/idle", 64).await?;
        let subscribe = async |number| self.subscribe(&endpoint, &format!("idle.{number}")).await;
        all("idle subscriptions are made", count, subscribe).await?;
        self.made(1, count);
        Ok(())
    }

    fn made(&mut self, endpoints: usize, subscriptions: usize) {
        self.endpoints += endpoints;
        self.subscriptions += subscriptions;
    }

    /// Creates an endpoint that gets the events of one type.
    pub async fn target(&self, path: &str, event_type: &str, max_in_flight: u32) -> Result<()> {
        let endpoint = self.endpoint(path, max_in_flight).await?;
        self.subscribe(&endpoint, event_type).await
    }

    /// Publishes an event of a type. Returns to how many endpoints it goes.
    pub async fn publish_as(&self, event_type: &str) -> Result<usize> {
        let event = json!({"event_type": event_type, "data": "x".repeat(1_000)}).to_string();
        self.offer(&event.into()).await.map(|(_, owed)| owed)
    }

    async fn endpoint(&self, path: &str, max_in_flight: u32) -> Result<String> {
        let endpoint =
            json!({"http": {"url": self.receiver.url(path)}, "max_in_flight": max_in_flight});
        let made =
            self.rests.next().post(&format!("{}/endpoints", self.project), &endpoint).await?;
        Ok(made["endpoint"]["endpoint_id"].as_str().context("no endpoint_id")?.to_owned())
    }

    async fn subscribe(&self, endpoint: &str, event_type: &str) -> Result<()> {
        let subscription =
            json!({"endpoint_id": endpoint, "name": event_type, "event_types": [event_type]});
        self.rests
            .next()
            .post(&format!("{}/subscriptions", self.project), &subscription)
            .await
            .map(drop)
    }

    /// Publishes, and returns the event's id. Fails if the event does not go to all endpoints.
    pub async fn publish(&self, event: &Bytes) -> Result<String> {
        let (id, owed) = self.offer(event).await?;
        ensure!(owed == self.paths.len(), "{id} goes to {owed} endpoints of {}", self.paths.len());
        Ok(id)
    }

    /// Publishes. Returns the event's id and to how many endpoints it goes.
    async fn offer(&self, event: &Bytes) -> Result<(String, usize)> {
        let reply =
            self.rests.next().send(Method::POST, &self.events(), event.clone()).await?.success()?;
        let owed = reply["delivery_count"]
            .as_u64()
            .with_context(|| format!("no delivery_count: {reply}"))?;
        Ok((reply["event_id"].as_str().context("no event_id")?.to_owned(), usize::try_from(owed)?))
    }

    /// Returns the path of the project's events.
    pub fn events(&self) -> String {
        format!("{}/events", self.project)
    }

    /// Publishes until all subscriptions are in effect and all events have arrived, so that workers
    /// know every endpoint.
    pub async fn warm_up(&self, event: &Bytes) -> Result<()> {
        let all = self.paths.len();
        let enough = (1_000 / all.max(1)).clamp(1, 100).max(self.servers.urls.len());
        let bound = Duration::from_secs(60)
            + Duration::from_millis(10) * u32::try_from(self.endpoints + self.subscriptions)?;
        let (begin, before) = (Instant::now(), self.arrived());
        let (mut full, mut owed) = (0, 0);
        while full < enough {
            let (_, to) = self.offer(event).await.context("while it warms up")?;
            owed += to;
            full = if to == all { full + 1 } else { 0 };
            ensure!(
                to == all || begin.elapsed() < bound,
                "events go to {to} endpoints of {all} after {bound:?}"
            );
            if to < all {
                sleep(Duration::from_millis(100)).await;
            }
        }
        let arrived =
            arrivals::wait(before + owed, PATIENCE, || self.arrived()).await.count - before;
        ensure!(arrived == owed, "{arrived} deliveries of {owed} arrived while it warmed up");
        Ok(())
    }

    /// Returns the number of different deliveries that have arrived.
    pub fn arrived(&self) -> usize {
        self.receiver.distinct_on_all()
    }

    /// Returns the number of deliveries that arrived again.
    pub fn duplicates(&self) -> usize {
        self.receiver.duplicates_on_all()
    }

    /// Returns the number of discrepancies that `outrider verify-ledger` finds. It reports them on
    /// stderr.
    pub fn findings(&self) -> Result<usize> {
        let (code, told) = block_in_place(|| self.servers.outrider.verify_ledger(&[]))?;
        let kinds = told["total"]["discrepancies"]
            .as_object()
            .with_context(|| format!("verify-ledger tells {told}"))?;
        let count: u64 = kinds.values().filter_map(Value::as_u64).sum();
        let total = |pointer: &str| told["total"].pointer(pointer).cloned().unwrap_or_default();
        let pending = ["queued", "waiting", "held"]
            .map(|kind| total(&format!("/pending/{kind}")).as_u64().unwrap_or(0));
        eprintln!(
            "  verify-ledger: {} owed, {} delivered, {} pending, {count} findings",
            total("/owed"),
            total("/delivered"),
            pending.iter().sum::<u64>()
        );
        ensure!(
            (code == Some(0)) == (count == 0),
            "verify-ledger ends with {code:?} and tells {told}"
        );
        if count > 0 {
            eprintln!("  {}", told["findings"]);
        }
        Ok(usize::try_from(count)?)
    }

    /// Adds the last lines of the servers' logs to an error.
    pub fn logged<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|error| error.context(self.servers.outrider.logs(20)))
    }
}

/// Returns a publish whose payload is JSON of the given length.
pub fn event(payload: usize) -> Bytes {
    let data: Value = "x".repeat(payload.saturating_sub(2)).into();
    json!({"event_type": EVENT_TYPE, "data": data}).to_string().into()
}

/// Runs something for each number, some of them at once.
async fn all(
    what: &'static str,
    count: usize,
    make: impl AsyncFn(usize) -> Result<()>,
) -> Result<()> {
    let (make, mut progress) = (&make, Progress::new(what));
    let mut made = stream::iter((0..count).map(|number| make(number)))
        .buffer_unordered(SETUP_CALLERS)
        .enumerate();
    while let Some((number, result)) = made.next().await {
        result?;
        progress.tell(number + 1, count);
    }
    Ok(())
}
