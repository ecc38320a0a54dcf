//! A case of the suite: a world to damage, continuous traffic, and the verdict.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use outrider_tests::{
    Answer, Outrider, Proxy, Shape,
    client::{Grpc, Rest},
    cluster::Options,
    pki::Pki,
    process::Signal,
    servers::{Postgres, Redis},
    usage, wait_until,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use tokio::task::block_in_place;

use super::{
    fronts::Fronts,
    ledger::{Book, Door, Pace, Traffic},
    verdict::{self, Goal, Terms},
};
use crate::scenario::{self, BOUND, Scenario, run_with_shares};

/// The limits of the endpoints: how many of their requests may be in flight, and so how many
/// duplicates may follow a fault. They are little higher than the number that is always in flight.
const WINDOWS: [usize; 2] = [8, 16];
/// How long the endpoints take to answer.
const ANSWERED_AFTER: Duration = Duration::from_millis(60);
/// The time after the end of a fault, and after its acceptance, within which every event must have
/// arrived, and again where it was first refused: with default settings (60 s and the wait before a
/// first retry), and with the short ones of the suite.
const RECOVERY: [Duration; 2] = [Duration::from_secs(66), Duration::from_secs(30)];
/// How long a lease lasts, and how long a delivery may be unsettled before it is checked.
pub const LEASE: Duration = Duration::from_secs(2);
/// How many events arrive before the fault begins.
const WARM: usize = 20;

/// Reads a number from the environment.
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Returns the seed of this run.
pub fn seed() -> u64 {
    setting("OUTRIDER_TEST_SEED", 1)
}

/// Returns the length of cases whose length can vary.
pub fn length() -> Duration {
    Duration::from_secs(setting("OUTRIDER_TEST_FAULT_SECONDS", 4))
}

/// The servers that belong to a case alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Own {
    /// Redis without a disk, in shapes that have Redis.
    Redis,
    /// Redis with an append-only file.
    PersistentRedis,
    /// PostgreSQL and Redis.
    Postgres,
    /// PostgreSQL with few connections, and Redis.
    SmallPostgres,
    /// PostgreSQL and Redis, each behind a link that can fall silent.
    Distant,
    /// The same, with PostgreSQL over TLS.
    DistantByTls,
    /// PostgreSQL with a synchronous standby, both named in the URL, and Redis.
    PostgresPair,
}

/// The links between Outrider and distant servers.
pub struct Links {
    pub postgres: Proxy,
    pub redis: Proxy,
}

impl Links {
    async fn start() -> Result<Self> {
        let nobody = "127.0.0.1:1";
        Ok(Self { postgres: Proxy::start(nobody).await?, redis: Proxy::start(nobody).await? })
    }
}

/// The connections of a PostgreSQL with few.
pub const FEW_CONNECTIONS: u32 = 40;

/// The set-up of a case.
#[derive(Debug, Clone)]
pub struct Setting {
    pub shape: Shape,
    pub own: Own,
    /// Settings that override the configuration.
    pub more: Value,
    pub pace: Pace,
    /// Whether there are two processes of every role, behind proxies.
    pub doubled: bool,
    /// Whether the product's default leases, periods and waits are used, instead of short ones.
    pub defaults: bool,
}

impl Setting {
    pub fn new(shape: Shape) -> Self {
        let pace =
            Pace { callers: 4, pause: Duration::from_millis(50), filler: 4_000, keyed: true };
        Self { shape, own: Own::Redis, more: json!({}), pace, doubled: false, defaults: false }
    }

    pub fn own(self, own: Own) -> Self {
        Self { own, ..self }
    }

    pub fn with(self, more: Value) -> Self {
        Self { more, ..self }
    }

    pub fn doubled(self) -> Self {
        Self { doubled: true, ..self }
    }

    /// Publishes without idempotency keys, so that every duplicate shows.
    pub fn keyless(self) -> Self {
        Self { pace: Pace { keyed: false, ..self.pace }, ..self }
    }

    /// Returns how soon everything must have arrived after a fault.
    pub fn recovery(&self) -> Duration {
        RECOVERY[usize::from(!self.defaults)]
    }

    /// Returns the shortest wait of a first retry: the schedule's first step, less a fifth.
    fn first_wait(&self) -> Duration {
        Duration::from_millis(if self.defaults { 5_000 } else { 500 }) * 4 / 5
    }

    pub fn with_defaults(self) -> Self {
        Self { defaults: true, ..self }
    }

    /// Returns the options, with `fronts` in front of the roles if they are doubled.
    fn options(&self, fronts: Option<&Fronts>) -> Options {
        let ports = fronts.map(|fronts| fronts.ports.clone()).unwrap_or_default();
        let fronts = fronts.map_or(Value::Null, Fronts::configuration);
        if self.defaults {
            let options = Options { ports, ..Options::of_the_product() };
            return Options { more: merged([&options.more, &self.more, &fronts]), ..options };
        }
        // More attempts than any outage in these tests uses up.
        Options {
            lease: format!("{}ms", LEASE.as_millis()),
            retry_schedule: vec!["500ms".to_owned(); 100],
            ports,
            more: merged([&json!({"dispatch": {"check_after": "2s"}}), &self.more, &fronts]),
            ..Options::default()
        }
    }
}

/// Separate roles with servers.
pub fn mesh() -> Setting {
    Setting::new(Shape::Mesh)
}

/// One process with servers.
pub fn single() -> Setting {
    Setting::new(Shape::Postgres)
}

/// One process without servers.
pub fn sqlite() -> Setting {
    Setting::new(Shape::Sqlite)
}

/// The servers and processes that a case may damage.
pub struct World {
    pub outrider: Outrider,
    pub redis: Option<Redis>,
    pub postgres: Option<Postgres>,
    /// The other server of a pair.
    pub other: Option<Postgres>,
    pub fronts: Option<Fronts>,
    pub links: Option<Links>,
    /// The certificates of its servers.
    _pki: Option<Pki>,
}

impl World {
    /// Starts the world, with `fronts` in front of doubled roles and `links` in front of distant
    /// servers.
    pub fn start(
        setting: &Setting,
        mut fronts: Option<Fronts>,
        links: Option<Links>,
    ) -> Result<Self> {
        let mut redis = match (setting.shape, setting.own) {
            (Shape::Sqlite, _) => None,
            (_, Own::PersistentRedis) => Some(Redis::start_persistent()?),
            _ => Some(Redis::start()?),
        };
        let pki = if setting.own == Own::DistantByTls { Some(Pki::create()?) } else { None };
        let mut postgres = match setting.own {
            Own::Postgres | Own::Distant | Own::PostgresPair => Some(Postgres::start()?),
            Own::SmallPostgres => Some(Postgres::start_with_connections(FEW_CONNECTIONS)?),
            _ => {
                pki.as_ref().map(|pki| Postgres::start_tls(&pki.issue("postgres")?)).transpose()?
            }
        };
        let other = match &mut postgres {
            Some(postgres) if setting.own == Own::PostgresPair => {
                let standby = postgres.start_standby()?;
                postgres.has_another(&standby);
                Some(standby)
            }
            _ => None,
        };
        if let (Some(links), Some(postgres), Some(redis)) = (&links, &mut postgres, &mut redis) {
            links.postgres.turn_to(&postgres.address());
            postgres.stands_behind(links.postgres.address());
            links.redis.turn_to(&redis.address());
            redis.stands_behind(links.redis.address());
        }
        let options = setting.options(fronts.as_ref());
        let mut outrider = match &postgres {
            Some(postgres) => {
                Outrider::start(setting.shape, &options, Some(postgres), redis.as_ref())?
            }
            None => scenario::start(setting.shape, &options, redis.as_ref())?,
        };
        if let Some(fronts) = &mut fronts {
            fronts.double(&mut outrider)?;
        }
        Ok(Self { outrider, redis, postgres, other, fronts, links, _pki: pki })
    }
}

/// Merges sections of configuration. Later ones override earlier ones.
fn merged<const N: usize>(layers: [&Value; N]) -> Value {
    let mut settings = json!({});
    for (section, keys) in layers.iter().flat_map(|layer| layer.as_object().into_iter().flatten()) {
        for (key, value) in keys.as_object().into_iter().flatten() {
            settings[section.as_str()][key.as_str()] = value.clone();
        }
    }
    settings
}

/// A running case.
pub struct Trial<'a> {
    pub world: &'a mut World,
    pub scenario: &'a Scenario,
    pub book: &'a Arc<Book>,
    pub random: StdRng,
    /// How many requests the faults so far may have duplicated without a record.
    excess: usize,
    /// How many requests may have lost their answers through the faults so far, with a record.
    cut: usize,
    /// Whether connections of callers were damaged, so that they may get no answer.
    callers_harmed: bool,
    /// The memory of the one process before the traffic, in bytes.
    pub memory_before: u64,
    traffic: Option<Traffic>,
    seed: u64,
    pace: Pace,
}

impl Trial<'_> {
    pub fn note(&self, what: impl Into<String>) {
        self.book.note(what);
    }

    /// Allows requests in flight to be sent twice.
    pub fn may_double(&mut self) {
        self.excess += WINDOWS.iter().sum::<usize>();
        self.may_cut();
    }

    /// Allows requests in flight to get no answer, which is recorded, and to be sent again.
    pub fn may_cut(&mut self) {
        self.cut += WINDOWS.iter().sum::<usize>();
    }

    /// Returns a random time.
    pub fn between(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(self.random.random_range(least..=most))
    }

    /// Runs something that blocks, while the traffic continues.
    pub fn harm<T>(&mut self, what: &str, act: impl FnOnce(&mut World) -> Result<T>) -> Result<T> {
        self.note(what);
        block_in_place(|| act(self.world)).with_context(|| what.to_owned())
    }

    /// Notes that a process that serves callers ends, so that they may get no answer.
    fn note_end_of(&mut self, name: &str) {
        self.callers_harmed |= ["gateway", "all"].contains(&name.trim_end_matches("-2"));
    }

    /// Allows this process to cut off callers, if it serves them.
    pub fn may_cut_callers_off(&mut self, name: &str) {
        self.note_end_of(name);
    }

    pub fn kill(&mut self, name: &str) -> Result<()> {
        self.note_end_of(name);
        self.harm(&format!("SIGKILL {name}"), |world| world.outrider.kill(name))
    }

    /// Restarts a process. It is ready when this returns.
    pub fn restart(&mut self, name: &str) -> Result<()> {
        self.harm(&format!("start {name}"), |world| {
            world.outrider.restart(name)?;
            world.outrider.ready()
        })
    }

    pub fn signal(&mut self, name: &str, signal: Signal) -> Result<()> {
        self.harm(&format!("{signal:?} {name}"), |world| world.outrider.signal(name, signal))
    }

    /// Asks a process to end in good order, and restarts it.
    pub fn renew(&mut self, name: &str) -> Result<()> {
        self.note_end_of(name);
        self.harm(&format!("SIGTERM {name}"), |world| {
            let status = world.outrider.terminate(name, Duration::from_secs(40))?;
            ensure!(status.success(), "{name} ended with {status} after SIGTERM");
            Ok(())
        })?;
        self.restart(name)
    }

    pub fn redis(&mut self, what: &str, act: impl FnOnce(&mut Redis) -> Result<()>) -> Result<()> {
        self.harm(&format!("Redis: {what}"), |world| {
            act(world.redis.as_mut().context("no Redis here")?)
        })
    }

    pub fn postgres<T>(
        &mut self,
        what: &str,
        act: impl FnOnce(&mut Postgres) -> Result<T>,
    ) -> Result<T> {
        self.harm(&format!("PostgreSQL: {what}"), |world| {
            act(world.postgres.as_mut().context("no PostgreSQL of its own")?)
        })
    }

    /// Waits until this many more events are accepted, so that the work has resumed.
    pub async fn accepts(&self, more: usize) -> Result<()> {
        let wanted = self.book.accepted() + more;
        let what = format!("{more} more events are accepted");
        wait_until(&what, BOUND, async || (self.book.accepted() >= wanted).then_some(())).await?;
        self.note(what);
        Ok(())
    }

    /// Waits for one more answer of this kind.
    pub async fn answers(&self, begin: &str) -> Result<()> {
        let before = self.book.answered(begin);
        let what = format!("{begin} is answered");
        wait_until(&what, BOUND, async || (self.book.answered(begin) > before).then_some(()))
            .await?;
        self.note(what);
        Ok(())
    }

    /// Waits until a process has logged these words once more.
    pub async fn tells(&self, words: &str) -> Result<()> {
        const LINES: usize = 10_000;
        let told = || block_in_place(|| self.world.outrider.logs(LINES).matches(words).count());
        let (before, what) = (told(), format!("somebody logs \"{words}\""));
        wait_until(&what, BOUND, async || (told() > before).then_some(())).await?;
        self.note(what);
        Ok(())
    }

    /// Starts callers over REST and gRPC, and waits until the first of their events have arrived.
    async fn start_traffic(&mut self) -> Result<()> {
        let url = self.world.fronts.as_ref().map_or_else(|| self.world.outrider.url(), Fronts::url);
        let token = &self.scenario.token;
        let doors = [
            Door::Rest(Rest::new(&url, Some(token))),
            Door::Grpc(Grpc::connect(&url, token).await?),
        ];
        self.traffic =
            Some(Traffic::start(self.book, &self.scenario.project, &doors, self.pace, self.seed));
        let warm = async || (self.scenario.receiver.distinct("/steady") >= WARM).then_some(());
        wait_until("the first events have arrived", BOUND, warm).await
    }
}

/// Runs a case with its name and the seed of the run. A failure reports both, and the timeline.
pub async fn run(
    name: &str,
    setting: Setting,
    fault: impl AsyncFnOnce(&mut Trial<'_>) -> Result<()>,
) {
    let mut hasher = DefaultHasher::new();
    (name, seed()).hash(&mut hasher);
    let own_seed = hasher.finish();
    run_with_shares(1, async || {
        let book = Arc::new(Book::new());
        let fronts = if setting.doubled { Some(Fronts::start().await?) } else { None };
        let links = if [Own::Distant, Own::DistantByTls].contains(&setting.own) {
            Some(Links::start().await?)
        } else {
            None
        };
        let mut world = block_in_place(|| World::start(&setting, fronts, links))?;
        let outcome = carry_out(&setting, &mut world, &book, own_seed, fault).await;
        match outcome {
            Ok(summary) => {
                eprintln!("{name}: {summary}");
                Ok(())
            }
            Err(error) => {
                let told = format!(
                    "{name}, OUTRIDER_TEST_SEED={}: {error:#}\n{}",
                    seed(),
                    book.timeline()
                );
                Err(scenario::with_logs(&anyhow::anyhow!(told), &world.outrider))
            }
        }
    })
    .await;
}

async fn carry_out(
    setting: &Setting,
    world: &mut World,
    book: &Arc<Book>,
    own_seed: u64,
    fault: impl AsyncFnOnce(&mut Trial<'_>) -> Result<()>,
) -> Result<String> {
    let scenario = Scenario::new(&world.outrider).await?;
    let goals = goals(&scenario, WINDOWS).await?;
    let memory_before =
        world.outrider.process_id("all").map_or(0, |process| usage::of_one(process).memory);
    let mut trial = Trial {
        world,
        scenario: &scenario,
        book,
        random: StdRng::seed_from_u64(own_seed),
        excess: 0,
        cut: 0,
        callers_harmed: false,
        memory_before,
        traffic: None,
        seed: own_seed,
        pace: setting.pace,
    };
    trial.start_traffic().await?;
    fault(&mut trial).await?;
    trial.note("the fault has ended");
    let fault_ended = Instant::now();
    trial.accepts(WARM).await?;
    let Trial { excess, cut, callers_harmed, .. } = trial;
    if let Some(traffic) = trial.traffic.take() {
        traffic.stop().await?;
    }
    book.note("the last event is answered");
    let first_wait = (excess + cut == 0).then(|| setting.first_wait());
    let terms = Terms {
        fault_ended,
        recovery: setting.recovery(),
        excess,
        cut,
        first_wait,
        callers_harmed,
    };
    let summary = verdict::judge(&scenario, &goals, book, terms).await?;
    crate::ledger::adds_up(&world.outrider)?;
    Ok(summary)
}

/// Creates two endpoints that get every event: one that answers slowly, and one that fails first.
pub async fn goals(scenario: &Scenario, windows: [usize; 2]) -> Result<Vec<Goal>> {
    let slow = |status| Answer::After(ANSWERED_AFTER, status);
    scenario.receiver.answer("/steady", [slow(200)]);
    scenario.receiver.answer("/flaky", [slow(500), slow(200)]);
    let [steady, flaky] = windows.map(|window| json!({"max_in_flight": window, "timeout": "10s"}));
    let steady = scenario.endpoint("/steady", steady).await?;
    let flaky = scenario.endpoint("/flaky", flaky).await?;
    for target in [&steady, &flaky] {
        scenario.subscribe(target, &["load"]).await?;
    }
    scenario.settle().await?;
    Ok(vec![Goal { target: steady, requests: 1 }, Goal { target: flaky, requests: 2 }])
}
