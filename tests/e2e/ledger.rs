//! The ledger's audit from outside: `outrider verify-ledger` beside running processes, and its
//! metrics.

use anyhow::{Context, Result, ensure};
use outrider_tests::{Outrider, Shape, cluster::Options, wait_until};
use serde_json::{Value, json};
use tokio::task::block_in_place;

use crate::{
    faults::trial::{self, Trial},
    scenario::{self, BOUND, Scenario, run_with_shares},
};

/// How many audits run while events arrive.
const AUDITS: usize = 10;

/// Asserts that everything accepted is accounted for at this moment, during or after a scenario.
/// Returns the report.
pub fn adds_up(outrider: &Outrider) -> Result<Value> {
    let (code, told) = block_in_place(|| outrider.verify_ledger(&[]))?;
    ensure!(code == Some(0) && told["ok"] == true, "the ledger does not add up: {told}");
    Ok(told)
}

fn number(told: &Value, pointer: &str) -> u64 {
    told.pointer(pointer).and_then(Value::as_u64).unwrap_or(0)
}

/// The ledger adds up while events arrive, fail and are retried. Every case of the fault suite ends
/// with the same check.
async fn adds_up_at_every_moment(trial: &mut Trial<'_>) -> Result<()> {
    for _ in 0..AUDITS {
        trial.accepts(10).await?;
        let told = adds_up(&trial.world.outrider)?;
        ensure!(
            number(&told, "/total/owed") > 0 && number(&told, "/idempotency_keys") > 0,
            "{told}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_adds_up_at_every_moment() {
    trial::run("sqlite_adds_up_at_every_moment", trial::sqlite(), adds_up_at_every_moment).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mesh_adds_up_at_every_moment() {
    trial::run("mesh_adds_up_at_every_moment", trial::mesh(), adds_up_at_every_moment).await;
}

/// The command finds a lost row with the event's id, and the metrics show it. When the row is back,
/// both say so.
async fn a_lost_row_is_found(outrider: &Outrider) -> Result<()> {
    let scenario = Scenario::new(outrider).await?;
    let target = scenario.target("/held", &["a"], json!({})).await?;
    scenario
        .rest
        .patch(
            &scenario.path(&format!("endpoints/{}", target.id)),
            &json!({"state": "ENDPOINT_STATE_PAUSED"}),
        )
        .await?;
    scenario.settle().await?;
    let event = scenario.publish_id("a", json!({})).await?;
    unaccounted(outrider, 0.0).await?;
    let database = outrider.database().rsplit('/').next().context("no database")?.to_owned();
    let query = |sql: &'static str| block_in_place(|| scenario::postgres()?.query(&database, sql));
    query(
        "CREATE TABLE aside AS SELECT * FROM pending_deliveries; DELETE FROM pending_deliveries",
    )?;
    let (code, told) = block_in_place(|| outrider.verify_ledger(&[]))?;
    ensure!(code == Some(4) && told["ok"] == false, "{code:?}: {told}");
    ensure!(
        told["findings"]
            == json!([{"kind": "missing-delivery", "project_id": scenario.project, "id": event,
                "count": 1}]),
        "{told}"
    );
    let (code, told) = block_in_place(|| {
        outrider.verify_ledger(&["--project", &scenario.project, "--until", "1h"])
    })?;
    ensure!(code == Some(0) && number(&told, "/total/events") == 0, "out of scope: {told}");
    unaccounted(outrider, 1.0).await?;
    ensure!(outrider.logs(400).contains("the ledger does not add up"), "the log does not tell it");
    query("INSERT INTO pending_deliveries SELECT * FROM aside")?;
    unaccounted(outrider, 0.0).await?;
    adds_up(outrider)?;
    Ok(())
}

/// Waits until the metric has this value after a whole audit, whose counter has moved.
async fn unaccounted(outrider: &Outrider, value: f64) -> Result<()> {
    let metrics = |text: &[String], name: &str| {
        let lines = text.iter().flat_map(|text| text.lines()).filter(|line| line.starts_with(name));
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum::<f64>()
    };
    let mut audited = None;
    wait_until(&format!("{value} deliveries are unaccounted for"), BOUND, async || {
        let mut texts = Vec::new();
        for address in outrider.operations() {
            let rest = outrider_tests::client::Rest::new(&format!("http://{address}"), None);
            let reply = rest.send(http::Method::GET, "/metrics", "").await.ok()?;
            texts.push(String::from_utf8(reply.body.to_vec()).ok()?);
        }
        let now = metrics(&texts, "outrider_dispatch_audited_events_total");
        let before = *audited.get_or_insert(now);
        let age = metrics(&texts, "outrider_dispatch_audit_age_seconds");
        let known = metrics(&texts, "outrider_dispatch_unaccounted_deliveries");
        ((known - value).abs() < 0.5 && now > before && age > 0.0 && age < 20.0).then_some(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_row_is_found_by_the_command_and_the_metrics() {
    run_with_shares(1, async || {
        let more = json!({"dispatch": {"audit_period": "200ms", "audit_grace": "1s",
            "audit_repeat": "1s"}});
        let outrider = block_in_place(|| {
            scenario::start(Shape::Postgres, &Options { more, ..Options::default() }, None)
        })?;
        a_lost_row_is_found(&outrider).await.map_err(|error| scenario::with_logs(&error, &outrider))
    })
    .await;
}

/// Of two processes with all roles, one audits. The other takes over when that one is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_processes_audits_and_the_other_takes_over() {
    run_with_shares(1, async || {
        let more = json!({"dispatch": {"audit_period": "200ms", "audit_grace": "1s",
            "audit_repeat": "1s"}});
        let mut outrider = block_in_place(|| {
            scenario::start(Shape::Postgres, &Options { more, ..Options::default() }, None)
        })?;
        Scenario::new(&outrider).await?.settle().await?;
        block_in_place(|| outrider.start_another("all"))?;
        let addresses = outrider.operations();
        let age = async |address: &str| {
            let reply = outrider_tests::client::Rest::new(&format!("http://{address}"), None)
                .send(http::Method::GET, "/metrics", "")
                .await;
            let text = String::from_utf8(reply.ok()?.body.to_vec()).ok()?;
            let line = text
                .lines()
                .find(|line| line.starts_with("outrider_dispatch_audit_age_seconds "))?
                .to_owned();
            line.rsplit_once(' ')?.1.parse::<f64>().ok()
        };
        wait_until("the first audits and the second does not", BOUND, async || {
            (age(&addresses[0]).await? > 0.9 && age(&addresses[1]).await? < 0.5).then_some(())
        })
        .await?;
        block_in_place(|| outrider.kill("all"))?;
        wait_until("the second audits", BOUND, async || {
            (age(&addresses[1]).await? > 0.9).then_some(())
        })
        .await
    })
    .await;
}
