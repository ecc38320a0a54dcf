//! A process cannot open another file, and so no connection, for a while. Open connections
//! continue, work that needs a new one waits, and no endpoint is blamed.

use std::time::Duration;

use anyhow::{Result, ensure};
use outrider_tests::{Receiver, wait_until};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{
    cases,
    trial::{Trial, mesh, single, sqlite},
};
use crate::scenario::{BOUND, Target, text};

cases! {
    sqlite_no_files: sqlite(), async |trial| none(trial, "all").await;
    postgres_no_files: single(), async |trial| none(trial, "all").await;
    mesh_no_files_for_egress: mesh(), async |trial| none(trial, "egress").await;
    mesh_no_files_for_worker: mesh(), async |trial| none(trial, "worker").await;
}

/// An endpoint of another host, to which there is no connection yet, gets the events.
async fn none(trial: &mut Trial<'_>, role: &str) -> Result<()> {
    let other = Receiver::start().await?;
    trial.may_cut_callers_off(role);
    trial.harm("no files are left", |world| world.outrider.take_files(role))?;
    let endpoint = json!({"http": {"url": other.url("/other")}, "timeout": "1s"});
    // A new connection of the client may be refused, but an existing one is served.
    let made = wait_until("an endpoint is made", BOUND, async || {
        trial.scenario.rest.post(&trial.scenario.path("endpoints"), &endpoint).await.ok()
    })
    .await?;
    let target = Target {
        id: text(&made["endpoint"], "endpoint_id")?,
        secret: text(&made, "secret")?,
        path: "/other".to_owned(),
    };
    wait_until("it is subscribed", BOUND, async || {
        trial.scenario.subscribe(&target, &["load"]).await.ok()
    })
    .await?;
    trial.tells("Too many open files").await?;
    // Longer than the timeout of a request to it.
    sleep(Duration::from_secs(3)).await;
    ensure!(other.distinct("/other") == 0, "it was reached without a file");
    trial.harm("there are more again", |world| world.outrider.give_files(role))?;
    wait_until("it is reached", BOUND, async || (other.distinct("/other") > 0).then_some(()))
        .await?;
    // Delete the endpoint, so that nothing more is sent there.
    trial.scenario.rest.delete(&trial.scenario.path(&format!("endpoints/{}", target.id))).await?;
    let pending = trial.scenario.path(&format!(
        "deliveries?endpoint_id={}&status=DELIVERY_STATUS_PENDING&page_size=1",
        target.id
    ));
    wait_until("nothing is pending there", BOUND, async || {
        let page = trial.scenario.rest.get(&pending).await.ok()?;
        page["deliveries"].as_array().is_none_or(Vec::is_empty).then_some(())
    })
    .await?;
    let attempts = trial
        .scenario
        .rest
        .get(&trial.scenario.path(&format!("attempts?endpoint_id={}&page_size=200", target.id)))
        .await?;
    let attempts = attempts["attempts"].as_array().cloned().unwrap_or_default();
    let blamed: Vec<&Value> = attempts
        .iter()
        .filter(|attempt| attempt["outcome"] != "ATTEMPT_OUTCOME_SUCCEEDED")
        .collect();
    ensure!(!attempts.is_empty() && blamed.is_empty(), "attempts without a file: {blamed:?}");
    Ok(())
}
