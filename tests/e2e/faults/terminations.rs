//! SIGTERM under load, and two processes of every role. Clients of two gateways see no error, and
//! nothing is sent twice.

use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::{
    cases,
    trial::{Trial, length, mesh, single, sqlite},
};

cases! {
    mesh_terminated_worker: mesh(), async |trial| trial.renew("worker");
    mesh_terminated_dispatch: mesh(), async |trial| trial.renew("dispatch");
    mesh_terminated_outer_roles: mesh(), async |trial| {
        ["admin", "ingest", "gateway"].iter().try_for_each(|role| trial.renew(role))
    };
    // Workers continue to use their tunnels until these are cut.
    mesh_terminated_egress: mesh(), async |trial| { trial.may_cut(); trial.renew("egress") };
    postgres_terminated_process: single(), async |trial| trial.renew("all");
    sqlite_terminated_process: sqlite(), async |trial| trial.renew("all");
    mesh_two_of_every_role: mesh().doubled().keyless(), async |trial| {
        tokio::time::sleep(length()).await;
        undisturbed(trial)
    };
    mesh_rolling_restart: mesh().doubled().keyless(), async |trial| {
        let until = Instant::now() + length();
        loop {
            for role in ["worker", "dispatch", "ingest", "admin", "gateway"] {
                one_after_the_other(trial, role)?;
            }
            if Instant::now() > until {
                break;
            }
        }
        undisturbed(trial)
    };
    // Workers continue to use their tunnels until these are cut.
    mesh_rolling_restart_of_egress: mesh().doubled(), async |trial| {
        trial.may_cut();
        one_after_the_other(trial, "egress")?;
        undisturbed(trial)
    };
}

/// Each of the two leaves, ends by SIGTERM, comes back and is used again.
fn one_after_the_other(trial: &mut Trial<'_>, role: &str) -> Result<()> {
    for name in [role.to_owned(), format!("{role}-2")] {
        let fronts = |world: &super::trial::World, leave: bool| {
            let fronts = world.fronts.as_ref().context("nothing stands before the roles")?;
            if leave { fronts.leave(role, &name) } else { fronts.join(role) }
        };
        fronts(trial.world, true)?;
        trial.renew(&name)?;
        fronts(trial.world, false)?;
    }
    Ok(())
}

/// Asserts that every answer was OK.
fn undisturbed(trial: &Trial<'_>) -> Result<()> {
    let answers = trial.book.answers();
    ensure!(
        answers.keys().all(|answer| ["REST 200", "gRPC Ok"].contains(&answer.as_str())),
        "clients saw {answers:?}"
    );
    Ok(())
}
