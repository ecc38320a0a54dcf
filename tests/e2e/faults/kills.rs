//! kill -9 of each role at random moments.

use std::time::Instant;

use anyhow::Result;

use super::{
    cases,
    trial::{Trial, length, mesh, single, sqlite},
};

const EVERY_TWO: [&str; 10] = [
    "gateway",
    "gateway-2",
    "ingest",
    "ingest-2",
    "dispatch",
    "dispatch-2",
    "worker",
    "worker-2",
    "egress",
    "egress-2",
];

cases! {
    mesh_killed_worker: mesh(), async |trial| again_and_again(trial, &["worker"]).await;
    mesh_killed_dispatch: mesh(), async |trial| again_and_again(trial, &["dispatch"]).await;
    mesh_killed_egress: mesh(), async |trial| again_and_again(trial, &["egress"]).await;
    mesh_killed_outer_roles: mesh(), async |trial| again_and_again(trial, &["gateway", "ingest",
        "admin"]).await;
    mesh_killed_any_role: mesh(), async |trial| {
        again_and_again(trial, &["gateway", "ingest", "admin", "dispatch", "worker",
            "egress"]).await
    };
    mesh_killed_any_of_two: mesh().doubled(), async |trial| again_and_again(trial,
        &EVERY_TWO).await;
    // A lease and the search for expired ones take about a minute.
    mesh_killed_worker_with_the_settings_of_the_product: mesh().with_defaults(), async |trial| {
        trial.may_double();
        trial.kill("worker")?;
        trial.restart("worker")
    };
    postgres_killed_process: single(), async |trial| again_and_again(trial, &["all"]).await;
    sqlite_killed_process: sqlite(), async |trial| again_and_again(trial, &["all"]).await;
}

/// Kills some of these processes, waits and restarts them, until the time is up. Only processes
/// that send or carry requests leave some in flight. Dispatch, ingest, gateway and admin can be
/// killed at any moment without anything being sent twice.
async fn again_and_again(trial: &mut Trial<'_>, names: &[&str]) -> Result<()> {
    let until = Instant::now() + length();
    loop {
        let wait = trial.between(200, 1_500);
        tokio::time::sleep(wait).await;
        let name = names[usize::try_from(trial.between(0, names.len() as u64 - 1).as_millis())?];
        match name.trim_end_matches("-2") {
            "all" | "worker" => trial.may_double(),
            "egress" => trial.may_cut(),
            _ => {}
        }
        trial.kill(name)?;
        let wait = trial.between(0, 600);
        tokio::time::sleep(wait).await;
        trial.restart(name)?;
        if Instant::now() > until {
            return Ok(());
        }
    }
}
