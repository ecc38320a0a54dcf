//! The disk of a store is full for a while. Work that needs room is refused or waits and is never
//! answered OK. It continues by itself once there is room.

use anyhow::{Result, bail, ensure};
use http::{Method, StatusCode};
use outrider_tests::FullDisk;
use serde_json::json;

use super::{
    cases,
    trial::{Own, Trial, mesh, single, sqlite},
};
use crate::scenario::Scenario;

cases! {
    sqlite_disk_full: sqlite(), async |trial| of_sqlite(trial).await;
    sqlite_disk_read_only: sqlite(), async |trial| read_only(trial).await;
    postgres_disk_of_postgres_full: single().own(Own::Postgres),
        async |trial| of_postgres(trial).await;
    mesh_disk_of_redis_full: mesh().own(Own::PersistentRedis), async |trial| of_redis(trial).await;
}

/// The disk of the one process with SQLite.
async fn of_sqlite(trial: &mut Trial<'_>) -> Result<()> {
    let disk = under_sqlite(trial)?;
    nothing_is_taken(trial, || disk.fill(), || disk.free()).await
}

fn under_sqlite(trial: &mut Trial<'_>) -> Result<FullDisk> {
    let disk = FullDisk::create()?;
    trial.harm("on a disk that can be filled", |world| {
        world.outrider.set_environment("all", &disk.environment())
    })?;
    trial.renew("all")?;
    Ok(disk)
}

/// A file that is opened in the meantime can be read but not written, without an error.
async fn read_only(trial: &mut Trial<'_>) -> Result<()> {
    let disk = under_sqlite(trial)?;
    nothing_is_taken(trial, || disk.refuse_writes(), || disk.take_writes()).await
}

async fn of_postgres(trial: &mut Trial<'_>) -> Result<()> {
    let disk = FullDisk::create()?;
    trial.postgres("on a disk that can be filled", |postgres| {
        postgres.set_environment(&disk.environment());
        postgres.restart()?;
        // Otherwise PostgreSQL would need another file of its log, and end at once without it. The
        // case `killed` covers that.
        postgres.query("postgres", "SELECT pg_switch_wal()").map(drop)
    })?;
    nothing_is_taken(trial, || disk.fill(), || disk.free()).await
}

/// Publishers and clients that change configuration are told to try again.
async fn nothing_is_taken(
    trial: &mut Trial<'_>,
    harm: impl Fn() -> Result<()>,
    mend: impl Fn() -> Result<()>,
) -> Result<()> {
    for _ in 0..3 {
        trial.accepts(20).await?;
        trial.harm("the disk is harmed", |_| harm())?;
        trial.answers("REST 503").await?;
        trial.answers("gRPC Unavailable").await?;
        configuration_is_refused(trial.scenario).await?;
        trial.harm("it is as before", |_| mend())?;
        trial.accepts(20).await?;
        trial.scenario.endpoint("/later", json!({})).await?;
    }
    Ok(())
}

/// A file may still have some room, but not for two hundred endpoints.
async fn configuration_is_refused(scenario: &Scenario) -> Result<()> {
    let endpoint =
        json!({"http": {"url": scenario.receiver.url("/none")}, "description": "x".repeat(1_000)});
    for _ in 0..200 {
        let reply = scenario
            .rest
            .send(Method::POST, &scenario.path("endpoints"), endpoint.to_string())
            .await?;
        if !reply.status.is_success() {
            ensure!(
                reply.status == StatusCode::SERVICE_UNAVAILABLE,
                "{}: {:?}",
                reply.status,
                reply.body
            );
            ensure!(reply.reason() == "UNAVAILABLE", "{:?}", reply.body);
            return Ok(());
        }
    }
    bail!("two hundred endpoints find room on a full disk")
}

/// Redis accepts no writes while it cannot append them to its file. Publishing continues.
async fn of_redis(trial: &mut Trial<'_>) -> Result<()> {
    let disk = FullDisk::create()?;
    trial.may_double();
    trial.redis("on a disk that can be filled", |redis| {
        redis.set_environment(&disk.environment());
        redis.restart()
    })?;
    for _ in 0..3 {
        trial.accepts(20).await?;
        trial.redis("its disk is full", |_| disk.fill())?;
        trial.tells("MISCONF").await?;
        trial.accepts(50).await?;
        trial.redis("there is room again", |_| disk.free())?;
    }
    Ok(())
}
