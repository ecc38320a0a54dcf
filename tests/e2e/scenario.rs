//! What every scenario needs: a running Outrider with a project of its own, a receiver, and calls
//! for what scenarios often do.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use outrider_tests::{
    Outrider, Receiver, Shape,
    client::{Grpc, Rest},
    cluster::Options,
    servers::{Postgres, Redis},
    wait_until,
};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

/// No step takes longer than this on a loaded machine. A scenario that waits longer fails.
pub const BOUND: Duration = Duration::from_secs(30);
/// No whole scenario takes longer than this.
const SCENARIO_BOUND: Duration = Duration::from_secs(480);

/// The shares of the machine that one scenario takes. Scenarios that publish much take several or
/// all.
pub const SHARES: u32 = 4;
static MACHINE: Semaphore = Semaphore::const_new(SHARES as usize);

/// The PostgreSQL server of the test binary. It ends with this process. Each Outrider has its own
/// database.
static POSTGRES: LazyLock<Result<Postgres, String>> =
    LazyLock::new(|| Postgres::start().map_err(|error| format!("{error:#}")));
/// The Redis server for scenarios that do not harm it.
static REDIS: LazyLock<Result<Redis, String>> =
    LazyLock::new(|| Redis::start().map_err(|error| format!("{error:#}")));
/// An Outrider per shape, for scenarios that do not harm it. Each scenario has its own project.
static SHARED: LazyLock<Mutex<HashMap<Shape, Arc<Outrider>>>> = LazyLock::new(Mutex::default);

/// Returns the PostgreSQL server of the test binary.
pub fn postgres() -> Result<&'static Postgres> {
    POSTGRES.as_ref().map_err(|error| anyhow::anyhow!("PostgreSQL: {error}"))
}

fn shared(shape: Shape) -> Result<Arc<Outrider>> {
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(outrider) = shared.get(&shape) {
        return Ok(Arc::clone(outrider));
    }
    let outrider = Arc::new(start(shape, &Options::default(), None)?);
    shared.insert(shape, Arc::clone(&outrider));
    Ok(outrider)
}

/// Starts an Outrider that a scenario may harm, with its own Redis server if one is given.
pub fn start(shape: Shape, options: &Options, own: Option<&Redis>) -> Result<Outrider> {
    if shape == Shape::Sqlite {
        return Outrider::start(shape, options, None, None);
    }
    let redis = match own {
        Some(redis) => redis,
        None => REDIS.as_ref().map_err(|error| anyhow::anyhow!("Redis: {error}"))?,
    };
    Outrider::start(shape, options, Some(postgres()?), Some(redis))
}

/// Runs a scenario, in its own project, on the Outrider that scenarios of this shape share.
pub async fn run_shared(shape: Shape, scenario: impl AsyncFnOnce(&Scenario) -> Result<()>) {
    let _share = MACHINE.acquire().await.expect("never closed");
    let outrider =
        tokio::task::spawn_blocking(move || shared(shape)).await.expect("does not panic");
    let outrider = outrider.unwrap_or_else(|error| panic!("cannot start: {error:#}"));
    let work = async {
        let world = Scenario::new(&outrider).await?;
        scenario(&world).await?;
        outrider.check_words()
    };
    conclude(bounded(work).await, || outrider.logs(40));
}

/// Returns an error that contains the last lines of the logs.
pub fn with_logs(error: &anyhow::Error, outrider: &Outrider) -> anyhow::Error {
    anyhow::anyhow!("{error:#}\n{}", outrider.logs(30))
}

/// Runs a scenario that takes this many shares of the machine and starts its own Outrider.
pub async fn run_with_shares(shares: u32, scenario: impl AsyncFnOnce() -> Result<()>) {
    let _shares = MACHINE.acquire_many(shares).await.expect("never closed");
    conclude(bounded(scenario()).await, String::new);
}

async fn bounded(work: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::time::timeout(SCENARIO_BOUND, work)
        .await
        .with_context(|| format!("took longer than {SCENARIO_BOUND:?}"))?
}

fn conclude(outcome: Result<()>, logs: impl FnOnce() -> String) {
    if let Err(error) = outcome {
        panic!("{error:#}\n{}", logs());
    }
}

/// An endpoint of a scenario.
#[derive(Debug, Clone)]
pub struct Target {
    /// `ep_…`
    pub id: String,
    /// `whsec_…`
    pub secret: String,
    /// The path on the receiver.
    pub path: String,
}

/// A project of its own, and a receiver.
#[derive(Debug)]
pub struct Scenario {
    /// REST with the key of the organization.
    pub rest: Rest,
    /// The base URL of the public port.
    pub url: String,
    /// The host and port of the public port.
    pub address: String,
    /// The listeners of dispatch and the egress, if each role has its own process.
    pub internal: Option<(String, String)>,
    /// The authority of the public certificate, if the public port has TLS.
    pub authority: Option<PathBuf>,
    /// The key of the organization.
    pub token: String,
    /// The shape.
    pub shape: Shape,
    /// The project.
    pub project: String,
    /// The receiver.
    pub receiver: Receiver,
}

impl Scenario {
    /// Creates a project and a receiver.
    pub async fn new(outrider: &Outrider) -> Result<Self> {
        let (url, token) = (outrider.url(), Some(outrider.token.as_str()));
        let authority = outrider.authority().map(Path::to_owned);
        let rest = match &authority {
            Some(authority) => Rest::trusting(&url, token, authority)?,
            None => Rest::new(&url, token),
        };
        let project = rest.post("/v1/projects", &json!({"name": "A scenario"})).await?;
        Ok(Self {
            rest,
            url,
            authority,
            address: outrider.address(),
            internal: (outrider.shape() == Shape::Mesh)
                .then(|| (outrider.role_address("dispatch"), outrider.role_address("egress"))),
            token: outrider.token.clone(),
            shape: outrider.shape(),
            project: text(&project, "project_id")?,
            receiver: Receiver::start().await?,
        })
    }

    /// Returns a path in the project.
    pub fn path(&self, rest: &str) -> String {
        format!("/v1/projects/{}/{rest}", self.project)
    }

    /// Opens a gRPC connection.
    pub async fn grpc(&self) -> Result<Grpc> {
        match &self.authority {
            Some(authority) => Grpc::trusting(&self.url, &self.token, authority).await,
            None => Grpc::connect(&self.url, &self.token).await,
        }
    }

    /// Creates an endpoint at a path of the receiver, with further fields.
    pub async fn endpoint(&self, path: &str, more: Value) -> Result<Target> {
        let mut endpoint = json!({"http": {"url": self.receiver.url(path)}});
        if let (Some(endpoint), Value::Object(more)) = (endpoint.as_object_mut(), more) {
            endpoint.extend(more);
        }
        let made = self.rest.post(&self.path("endpoints"), &endpoint).await?;
        let id = text(&made["endpoint"], "endpoint_id")?;
        Ok(Target { id, secret: text(&made, "secret")?, path: path.to_owned() })
    }

    /// Creates a subscription.
    pub async fn subscribe(&self, target: &Target, event_types: &[&str]) -> Result<String> {
        let subscription =
            json!({"endpoint_id": target.id, "name": "A subscription", "event_types": event_types});
        let made = self.rest.post(&self.path("subscriptions"), &subscription).await?;
        text(&made, "subscription_id")
    }

    /// Creates an endpoint that gets events of these types, and returns when every process knows
    /// it.
    pub async fn target(&self, path: &str, event_types: &[&str], more: Value) -> Result<Target> {
        let target = self.endpoint(path, more).await?;
        self.subscribe(&target, event_types).await?;
        self.settle().await?;
        Ok(target)
    }

    /// Waits until all earlier changes of the configuration are in force. Changes take effect in
    /// the order of their commits, so this makes one in a project of its own and waits until it is
    /// seen.
    pub async fn settle(&self) -> Result<()> {
        let probe = self.rest.post("/v1/projects", &json!({"name": "A probe"})).await?;
        let probe = text(&probe, "project_id")?;
        let within = |rest: &str| format!("/v1/projects/{probe}/{rest}");
        let endpoint = json!({"http": {"url": self.receiver.url("/probe")}});
        let endpoint = self.rest.post(&within("endpoints"), &endpoint).await?;
        // Publish once before the subscription exists, so that the process caches the probe's
        // project without it.
        let event = json!({"event_type": "probe", "data": {}});
        self.rest.post(&within("events"), &event).await?;
        let subscription = json!({"endpoint_id": endpoint["endpoint"]["endpoint_id"],
            "name": "probe", "event_types": ["probe"]});
        self.rest.post(&within("subscriptions"), &subscription).await?;
        wait_until("a new subscription is in force", BOUND, async || {
            let published = self.rest.post(&within("events"), &event).await.ok()?;
            (number(&published, "delivery_count") == 1).then_some(())
        })
        .await
    }

    /// Publishes over REST and returns the answer.
    pub async fn publish(&self, event: Value) -> Result<Value> {
        self.rest.post(&self.path("events"), &event).await
    }

    /// Publishes over REST and returns the event's id.
    pub async fn publish_id(&self, event_type: &str, data: Value) -> Result<String> {
        text(&self.publish(json!({"event_type": event_type, "data": data})).await?, "event_id")
    }

    /// Returns the only delivery of an event.
    pub async fn delivery(&self, event_id: &str) -> Result<Value> {
        let page = self.rest.get(&self.path(&format!("deliveries?event_id={event_id}"))).await?;
        let deliveries = page["deliveries"].as_array().context("no deliveries")?;
        ensure!(deliveries.len() == 1, "not one delivery of {event_id}: {page}");
        Ok(deliveries[0].clone())
    }

    /// Waits until the only delivery of an event has a status, such as `DELIVERED`.
    pub async fn delivery_in(&self, event_id: &str, status: &str) -> Result<Value> {
        let status = format!("DELIVERY_STATUS_{status}");
        let mut last = Value::Null;
        let found = wait_until(&format!("the delivery is {status}"), BOUND, async || {
            last = self.delivery(event_id).await.ok()?;
            (last["status"] == status.as_str()).then(|| last.clone())
        })
        .await;
        found.with_context(|| format!("the delivery of {event_id} is {last}"))
    }

    /// Returns the attempts of a delivery, in order.
    pub async fn attempts(&self, delivery_id: &str) -> Result<Vec<Value>> {
        let page = self.rest.get(&self.path(&format!("deliveries/{delivery_id}/attempts"))).await?;
        let mut attempts = page["attempts"].as_array().cloned().unwrap_or_default();
        attempts.sort_by_key(|attempt| number(attempt, "number"));
        Ok(attempts)
    }

    /// Waits until a path has received this many different events.
    pub async fn arrived(&self, path: &str, count: usize, bound: Duration) -> Result<()> {
        let what = format!("{count} events arrived on {path}");
        let arrived = wait_until(&what, bound, async || {
            (self.receiver.distinct(path) >= count).then_some(())
        });
        arrived
            .await
            .with_context(|| format!("{} of {count} arrived", self.receiver.distinct(path)))
    }
}

/// Returns a text, which must be there.
pub fn text(value: &Value, key: &str) -> Result<String> {
    value[key]
        .as_str()
        .filter(|text| !text.is_empty())
        .map(str::to_owned)
        .with_context(|| format!("no {key} in {value}"))
}

/// Returns a number. One that is absent is 0, as in the JSON form of protobuf.
pub fn number(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or(0)
}

/// Returns a flag. One that is absent is false, as in the JSON form of protobuf.
pub fn flag(value: &Value, key: &str) -> bool {
    value[key].as_bool().unwrap_or(false)
}
