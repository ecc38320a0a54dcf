//! Redis dies, loses its data, is full, freezes, or comes back empty or with old data. Publishing
//! continues, and deliveries continue by themselves.

use std::{thread::sleep, time::Duration};

use anyhow::{Context, Result, ensure};
use outrider_tests::process::Signal;

use super::{
    cases,
    trial::{Own, Trial, mesh, single},
};

/// How long Redis is down. Calls in flight fail and are tried again.
const AWAY: Duration = Duration::from_millis(1_500);

cases! {
    mesh_redis_killed: mesh(), async |trial| killed(trial).await;
    postgres_redis_killed: single(), async |trial| killed(trial).await;
    mesh_redis_restarted: mesh().own(Own::PersistentRedis), async |trial| killed(trial).await;
    mesh_redis_flushed: mesh(), async |trial| flushed(trial).await;
    mesh_redis_flushed_before_two_workers: mesh().doubled(), async |trial| flushed(trial).await;
    postgres_redis_flushed: single(), async |trial| flushed(trial).await;
    mesh_redis_full: mesh(), async |trial| full(trial).await;
    mesh_redis_frozen: mesh(), async |trial| frozen(trial).await;
    mesh_redis_vanishes: mesh().own(Own::Distant), async |trial| vanishes(trial).await;
    postgres_redis_vanishes: single().own(Own::Distant), async |trial| vanishes(trial).await;
    mesh_redis_replaced_by_a_stale_copy: mesh().own(Own::PersistentRedis),
        async |trial| stale(trial).await;
}

/// Redis is killed and restarted, empty or with the contents of its append-only file.
async fn killed(trial: &mut Trial<'_>) -> Result<()> {
    trial.may_double();
    trial.redis("SIGKILL", |redis| redis.kill())?;
    trial.accepts(10).await?;
    tokio::time::sleep(AWAY).await;
    trial.redis("start", |redis| redis.restart())
}

async fn flushed(trial: &mut Trial<'_>) -> Result<()> {
    for _ in 0..3 {
        trial.may_double();
        trial.redis("FLUSHALL", |redis| redis.flush_all())?;
        let wait = trial.between(200, 1_500);
        tokio::time::sleep(wait).await;
    }
    Ok(())
}

/// Writes are refused, while commands that acknowledge and remove succeed. Nothing may be
/// acknowledged before it is durable elsewhere.
async fn full(trial: &mut Trial<'_>) -> Result<()> {
    set(trial, "maxmemory 1")?;
    trial.accepts(100).await?;
    set(trial, "maxmemory 0")
}

fn set(trial: &mut Trial<'_>, what: &str) -> Result<()> {
    let command = format!("CONFIG SET {what}");
    trial.redis(&command, |redis| {
        let answer = redis.ask(&command)?;
        ensure!(answer.starts_with("+OK"), "{answer}");
        Ok(())
    })
}

/// It answers nothing and keeps all connections, for longer than leases last.
async fn frozen(trial: &mut Trial<'_>) -> Result<()> {
    trial.may_double();
    trial.redis("SIGSTOP", |redis| redis.signal(Signal::Stop))?;
    trial.accepts(100).await?;
    tokio::time::sleep(Duration::from_secs(9)).await;
    trial.accepts(20).await?;
    trial.redis("SIGCONT", |redis| redis.signal(Signal::Continue))
}

/// It is replaced by a copy that lacks the last seconds, and has jobs that were finished in them.
async fn stale(trial: &mut Trial<'_>) -> Result<()> {
    let mut copy = None;
    trial.redis("copied", |redis| {
        copy = Some(redis.copy_data()?);
        Ok(())
    })?;
    trial.accepts(60).await?;
    // Jobs that were held when it was copied, and jobs that were held when it was replaced.
    trial.may_double();
    trial.may_double();
    trial.redis("replaced by the copy", |redis| {
        redis.kill()?;
        sleep(Duration::from_millis(300));
        copy.iter().try_for_each(|copy| redis.restart_with(copy))
    })
}

/// Its host disappears without closing connections. Another with the same data takes its place for
/// new connections.
async fn vanishes(trial: &mut Trial<'_>) -> Result<()> {
    trial.may_double();
    trial.harm("Redis: all connections fall silent", |world| {
        world.links.as_ref().context("no links here")?.redis.fall_silent();
        Ok(())
    })?;
    trial.accepts(50).await
}
