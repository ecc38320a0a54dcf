//! What every scenario stands on: a running Outrider, a project of its own in it, a receiver, and
//! the words to speak of them.

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

/// What no delivery on a loaded machine exceeds; a scenario that waits longer has failed.
pub const BOUND: Duration = Duration::from_secs(30);
/// What no whole scenario exceeds.
const SCENARIO_BOUND: Duration = Duration::from_secs(480);

/// How much of the machine a scenario takes: those that publish much take several shares or all.
pub const SHARES: u32 = 4;
static MACHINE: Semaphore = Semaphore::const_new(SHARES as usize);

/// One PostgreSQL server for the whole test binary, ended by the leash; each Outrider has a
/// database of its own.
static POSTGRES: LazyLock<Result<Postgres, String>> =
    LazyLock::new(|| Postgres::start().map_err(|error| format!("{error:#}")));
/// One Redis server for the scenarios that do not harm it.
static REDIS: LazyLock<Result<Redis, String>> =
    LazyLock::new(|| Redis::start().map_err(|error| format!("{error:#}")));
/// One Outrider per shape for the scenarios that do not harm it, each with a project of its own.
static SHARED: LazyLock<Mutex<HashMap<Shape, Arc<Outrider>>>> = LazyLock::new(Mutex::default);

/// The PostgreSQL server of the test binary.
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

/// Starts an Outrider that a scenario may harm; with a Redis server of its own when one is given.
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

/// Runs a scenario in a project of its own on the shape's shared Outrider.
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

/// An error and below it the last lines of the logs.
pub fn with_logs(error: &anyhow::Error, outrider: &Outrider) -> anyhow::Error {
    anyhow::anyhow!("{error:#}\n{}", outrider.logs(30))
}

/// Runs a scenario that takes so many shares of the machine and starts its own Outrider.
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
    /// ep_….
    pub id: String,
    /// whsec_….
    pub secret: String,
    /// The receiver's path.
    pub path: String,
}

/// A project of its own and a receiver.
#[derive(Debug)]
pub struct Scenario {
    /// With the key of the organisation.
    pub rest: Rest,
    /// The base URL of the public port.
    pub url: String,
    /// Its host and port.
    pub address: String,
    /// Dispatch's and the egress's listeners, where roles are apart.
    pub internal: Option<(String, String)>,
    /// The authority of the public certificate, where the public port has TLS.
    pub authority: Option<PathBuf>,
    /// The key of the organisation.
    pub token: String,
    /// The shape.
    pub shape: Shape,
    /// The project.
    pub project: String,
    /// The receiver.
    pub receiver: Receiver,
}

impl Scenario {
    /// A new project and a new receiver.
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

    /// A path in the project.
    pub fn path(&self, rest: &str) -> String {
        format!("/v1/projects/{}/{rest}", self.project)
    }

    /// A gRPC connection.
    pub async fn grpc(&self) -> Result<Grpc> {
        match &self.authority {
            Some(authority) => Grpc::trusting(&self.url, &self.token, authority).await,
            None => Grpc::connect(&self.url, &self.token).await,
        }
    }

    /// An endpoint on a path of the receiver, with further fields.
    pub async fn endpoint(&self, path: &str, more: Value) -> Result<Target> {
        let mut endpoint = json!({"http": {"url": self.receiver.url(path)}});
        if let (Some(endpoint), Value::Object(more)) = (endpoint.as_object_mut(), more) {
            endpoint.extend(more);
        }
        let made = self.rest.post(&self.path("endpoints"), &endpoint).await?;
        let id = text(&made["endpoint"], "endpoint_id")?;
        Ok(Target { id, secret: text(&made, "secret")?, path: path.to_owned() })
    }

    /// A subscription.
    pub async fn subscribe(&self, target: &Target, event_types: &[&str]) -> Result<String> {
        let subscription =
            json!({"endpoint_id": target.id, "name": "A subscription", "event_types": event_types});
        let made = self.rest.post(&self.path("subscriptions"), &subscription).await?;
        text(&made, "subscription_id")
    }

    /// An endpoint that gets events of these types, in force when this returns.
    pub async fn target(&self, path: &str, event_types: &[&str], more: Value) -> Result<Target> {
        let target = self.endpoint(path, more).await?;
        self.subscribe(&target, event_types).await?;
        self.settle().await?;
        Ok(target)
    }

    /// Waits until all configuration that was changed before is in force. Changes take effect in
    /// the order of their commits: once a change made now is seen, in a project of its own, those
    /// before it are too.
    pub async fn settle(&self) -> Result<()> {
        let probe = self.rest.post("/v1/projects", &json!({"name": "A probe"})).await?;
        let probe = text(&probe, "project_id")?;
        let within = |rest: &str| format!("/v1/projects/{probe}/{rest}");
        let endpoint = json!({"http": {"url": self.receiver.url("/probe")}});
        let endpoint = self.rest.post(&within("endpoints"), &endpoint).await?;
        // Read once before the subscription is made, so that the probe's project is remembered
        // without it.
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

    /// Publishes by REST and gives the answer.
    pub async fn publish(&self, event: Value) -> Result<Value> {
        self.rest.post(&self.path("events"), &event).await
    }

    /// Publishes by REST and gives the event's id.
    pub async fn publish_id(&self, event_type: &str, data: Value) -> Result<String> {
        text(&self.publish(json!({"event_type": event_type, "data": data})).await?, "event_id")
    }

    /// The only delivery of an event.
    pub async fn delivery(&self, event_id: &str) -> Result<Value> {
        let page = self.rest.get(&self.path(&format!("deliveries?event_id={event_id}"))).await?;
        let deliveries = page["deliveries"].as_array().context("no deliveries")?;
        ensure!(deliveries.len() == 1, "not one delivery of {event_id}: {page}");
        Ok(deliveries[0].clone())
    }

    /// Waits until the only delivery of an event has a status such as `DELIVERED`.
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

    /// The attempts of a delivery, first to last.
    pub async fn attempts(&self, delivery_id: &str) -> Result<Vec<Value>> {
        let page = self.rest.get(&self.path(&format!("deliveries/{delivery_id}/attempts"))).await?;
        let mut attempts = page["attempts"].as_array().cloned().unwrap_or_default();
        attempts.sort_by_key(|attempt| number(attempt, "number"));
        Ok(attempts)
    }

    /// Waits until a path has received so many different events.
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

/// A text that must be there.
pub fn text(value: &Value, key: &str) -> Result<String> {
    value[key]
        .as_str()
        .filter(|text| !text.is_empty())
        .map(str::to_owned)
        .with_context(|| format!("no {key} in {value}"))
}

/// A number; 0 when it is left out, as JSON of protobuf may do.
pub fn number(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or(0)
}

/// A flag; false when it is left out.
pub fn flag(value: &Value, key: &str) -> bool {
    value[key].as_bool().unwrap_or(false)
}
