//! Processes that end in mid-flight: what was accepted is delivered, and no more than was in flight is sent twice.

use std::time::Duration;

use anyhow::{Result, ensure};
use outrider_tests::{
    Answer, Outrider, Shape,
    cluster::Options,
    servers::{Postgres, Redis},
    wait_until,
};
use serde_json::json;
use tokio::task::block_in_place;

use crate::{
    load::{publish_steadily, reckon},
    scenario::{self, BOUND, Scenario, run_with_shares},
};

/// Events per scenario, one every ten milliseconds.
const EVENTS: usize = 400;
const PAUSE: Duration = Duration::from_millis(10);
/// The endpoint's limit: so many may be in flight, and so many duplicates may follow a fault.
const IN_FLIGHT: usize = 64;

/// What a scenario may harm.
struct World {
    outrider: Outrider,
    redis: Option<Redis>,
    postgres: Option<Postgres>,
}

impl World {
    fn start(shape: Shape, own_postgres: bool) -> Result<Self> {
        // More attempts than any outage here can use up.
        let options = Options { lease: "3s".to_owned(), retry_schedule: vec!["500ms".to_owned(); 60], ..Options::default() };
        let redis = (shape != Shape::Sqlite).then(Redis::start).transpose()?;
        let postgres = own_postgres.then(Postgres::start).transpose()?;
        let outrider = match &postgres {
            Some(postgres) => Outrider::start(shape, &options, Some(postgres), redis.as_ref())?,
            None => scenario::start(shape, &options, redis.as_ref())?,
        };
        Ok(Self { outrider, redis, postgres })
    }

    fn redis(&mut self) -> Result<&mut Redis> {
        self.redis.as_mut().ok_or_else(|| anyhow::anyhow!("no Redis here"))
    }
}

/// Publishes steadily, does `fault` when a quarter has arrived, and reckons.
async fn in_mid_flight(
    shape: Shape,
    own_postgres: bool,
    excess: usize,
    fault: impl FnOnce(&mut World) -> Result<()>,
) -> Result<()> {
    let mut world = block_in_place(|| World::start(shape, own_postgres))?;
    let outcome = publish_and_harm(&mut world, excess, fault).await;
    outcome.map_err(|error| scenario::with_logs(&error, &world.outrider))
}

async fn publish_and_harm(world: &mut World, excess: usize, fault: impl FnOnce(&mut World) -> Result<()>) -> Result<()> {
    let scenario = Scenario::new(&world.outrider).await?;
    // About 25 requests are open at any time.
    scenario.receiver.answer("/steady", [Answer::After(Duration::from_millis(250), 200)]);
    scenario.target("/steady", &["load"], json!({"max_in_flight": IN_FLIGHT, "timeout": "5s"})).await?;
    let harm = async {
        wait_until("a quarter has arrived", BOUND, async || (scenario.receiver.distinct("/steady") >= EVENTS / 4).then_some(()))
            .await?;
        block_in_place(|| fault(world))
    };
    let (accepted, harmed) = tokio::join!(publish_steadily(&scenario, EVENTS, PAUSE), harm);
    harmed?;
    reckon(&scenario, "/steady", &accepted?, EVENTS, excess).await
}

/// Tests named after the fault, in the shapes where it can happen.
macro_rules! faults {
    ($($name:ident: $shape:ident, $own_postgres:expr, $excess:expr, $fault:expr;)+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                run_with_shares(2, async || in_mid_flight(Shape::$shape, $own_postgres, $excess, $fault).await).await;
            }
        )+
    };
}

faults! {
    mesh_killed_worker: Mesh, false, IN_FLIGHT, |world| kill_and_restart(world, "worker");
    mesh_killed_dispatch: Mesh, false, IN_FLIGHT, |world| kill_and_restart(world, "dispatch");
    mesh_killed_egress: Mesh, false, IN_FLIGHT, |world| kill_and_restart(world, "egress");
    mesh_killed_gateway_and_ingest: Mesh, false, 0, |world| {
        kill_and_restart(world, "gateway")?;
        kill_and_restart(world, "ingest")
    };
    mesh_killed_redis: Mesh, false, IN_FLIGHT, kill_redis;
    mesh_flushed_redis: Mesh, false, IN_FLIGHT, flush_redis;
    mesh_killed_postgres: Mesh, true, IN_FLIGHT, kill_postgres;
    mesh_terminated_worker: Mesh, false, 0, |world| terminate_and_restart(world, "worker");
    mesh_terminated_dispatch: Mesh, false, 0, |world| terminate_and_restart(world, "dispatch");
    mesh_terminated_outer_roles: Mesh, false, 0, |world| {
        ["admin", "ingest", "gateway"].iter().try_for_each(|role| terminate_and_restart(world, role))
    };
    // Workers go on to use the tunnels that they have until these are cut.
    mesh_terminated_egress: Mesh, false, IN_FLIGHT, |world| terminate_and_restart(world, "egress");
    postgres_killed_process: Postgres, false, IN_FLIGHT, |world| kill_and_restart(world, "all");
    postgres_killed_redis: Postgres, false, IN_FLIGHT, kill_redis;
    postgres_flushed_redis: Postgres, false, IN_FLIGHT, flush_redis;
    postgres_killed_postgres: Postgres, true, IN_FLIGHT, kill_postgres;
    postgres_terminated_process: Postgres, false, 0, |world| terminate_and_restart(world, "all");
    sqlite_killed_process: Sqlite, false, IN_FLIGHT, |world| kill_and_restart(world, "all");
    sqlite_terminated_process: Sqlite, false, 0, |world| terminate_and_restart(world, "all");
}

fn kill_and_restart(world: &mut World, role: &str) -> Result<()> {
    world.outrider.kill(role)?;
    world.outrider.restart(role)?;
    world.outrider.ready()
}

fn terminate_and_restart(world: &mut World, role: &str) -> Result<()> {
    let status = world.outrider.terminate(role, Duration::from_secs(40))?;
    ensure!(status.success(), "{role} ended with {status} after SIGTERM");
    world.outrider.restart(role)?;
    world.outrider.ready()
}

fn kill_redis(world: &mut World) -> Result<()> {
    world.redis()?.kill()?;
    // Long enough that what was under way has failed and is tried again.
    std::thread::sleep(Duration::from_millis(500));
    world.redis()?.restart()
}

fn flush_redis(world: &mut World) -> Result<()> {
    world.redis()?.flush_all()
}

fn kill_postgres(world: &mut World) -> Result<()> {
    let Some(postgres) = world.postgres.as_mut() else { anyhow::bail!("no PostgreSQL of its own") };
    postgres.kill()?;
    postgres.restart()
}
