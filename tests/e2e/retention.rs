//! Data past its retention is removed, pending deliveries stay, and erased payloads do not come
//! back.

use std::{
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use http::Method;
use outrider_model::{AttemptId, DeliveryId, EventId};
use outrider_tests::{Answer, Outrider, Shape, client::Rest, cluster::Options, wait_until};
use serde_json::json;
use tokio::task::block_in_place;
use uuid::Uuid;

use crate::scenario::{self, BOUND, SHARES, Scenario, postgres, run_with_shares, text, with_logs};

const DAY: Duration = Duration::from_secs(86_400);
/// The longest that a publish may wait while a day is removed, for a debug build on a loaded
/// machine. A sweep waits for locks for half a second.
const WAIT: Duration = Duration::from_secs(4);

/// An Outrider that sweeps continually, with a project.
struct World {
    outrider: Outrider,
    scenario: Scenario,
}

impl World {
    async fn start(shape: Shape) -> Result<Self> {
        let options =
            Options { more: json!({"dispatch": {"sweep_period": "200ms"}}), ..Options::default() };
        let outrider = block_in_place(|| scenario::start(shape, &options, None))?;
        let scenario = Scenario::new(&outrider).await?;
        Ok(Self { outrider, scenario })
    }

    /// Runs statements in one transaction, without Outrider.
    fn sql(&self, statements: &str) -> Result<()> {
        const PYTHON: &str = "import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=20, isolation_level=None)
connection.executescript('BEGIN IMMEDIATE;' + sys.argv[2] + ';COMMIT')";
        let url = self.outrider.database();
        let Some(file) = url.strip_prefix("sqlite://") else {
            return postgres()?.query(url, statements).map(drop);
        };
        let output = Command::new("python3")
            .args(["-c", PYTHON, file, statements])
            .output()
            .context("python3")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    fn literal(&self, id: Uuid) -> String {
        if self.outrider.shape() == Shape::Sqlite {
            format!("x'{}'", id.simple())
        } else {
            format!("'{id}'")
        }
    }

    /// Makes an event with its deliveries and attempts this much older, and creates the day's
    /// partitions. Returns the event's new id.
    async fn age(&self, event: &str, by: Duration) -> Result<String> {
        let id: EventId = event.parse()?;
        let page = self
            .scenario
            .rest
            .get(&self.scenario.path(&format!("deliveries?event_id={event}")))
            .await?;
        let old = EventId(older(id.0, by));
        let micros = by.as_micros();
        let (from, to) = (self.literal(id.0), self.literal(old.0));
        let mut statements = vec![
            self.partitions(old),
            format!(
                "UPDATE events SET id = {to}, created_at = created_at - {micros} WHERE id = {from}"
            ),
        ];
        for delivery in page["deliveries"].as_array().into_iter().flatten() {
            let text = text(delivery, "delivery_id")?;
            let id: DeliveryId = text.parse()?;
            let (to_delivery, from_delivery) = (self.literal(older(id.0, by)), self.literal(id.0));
            for table in ["deliveries", "pending_deliveries"] {
                statements.push(format!(
                    "UPDATE {table} SET id = {to_delivery}, event_id = {to} \
                    WHERE id = {from_delivery}"
                ));
            }
            for attempt in self.scenario.attempts(&text).await? {
                let id: AttemptId = crate::scenario::text(&attempt, "attempt_id")?.parse()?;
                let (to_attempt, from_attempt) =
                    (self.literal(older(id.0, by)), self.literal(id.0));
                statements.push(format!(
                    "UPDATE attempts SET id = {to_attempt}, delivery_id = {to_delivery}, event_id \
                        = {to} WHERE id = {from_attempt}"
                ));
            }
        }
        block_in_place(|| self.sql(&statements.join(";")))?;
        Ok(old.to_string())
    }

    /// Returns the statements that create the partitions of an event's day. Empty on SQLite.
    fn partitions(&self, event: EventId) -> String {
        if self.outrider.shape() == Shape::Sqlite {
            return "SELECT 1".to_owned();
        }
        let day = event.time().seconds().div_euclid(86_400);
        let bound = |day: i64| Uuid::from_u128(u128::from((day * 86_400_000).unsigned_abs()) << 80);
        format!(
            "DO $do$ DECLARE t text; BEGIN
                FOREACH t IN ARRAY ARRAY['events', 'deliveries', 'attempts'] LOOP
                    EXECUTE format('CREATE TABLE IF NOT EXISTS %I PARTITION OF %I FOR VALUES FROM \
                    (%L) TO (%L)',
                        t || '_p' || to_char(DATE '1970-01-01' + {day}, 'YYYYMMDD'), t, '{}', '{}');
                END LOOP;
            END $do$",
            bound(day),
            bound(day + 1)
        )
    }

    async fn status(&self, path: &str) -> Result<u16> {
        Ok(self
            .scenario
            .rest
            .send(Method::GET, &self.scenario.path(path), "")
            .await?
            .status
            .as_u16())
    }

    /// Waits until an event is no longer found.
    async fn gone(&self, event: &str) -> Result<()> {
        let path = format!("events/{event}");
        wait_until("the event's day is gone", BOUND, async || {
            (self.status(&path).await.ok()? == 404).then_some(())
        })
        .await
    }

    /// Returns the largest sample of a metric in any process.
    async fn metric(&self, begin: &str) -> Result<f64> {
        let mut most = 0.0_f64;
        for address in self.outrider.operations() {
            let reply = Rest::new(&format!("http://{address}"), None)
                .send(Method::GET, "/metrics", "")
                .await?;
            let text = String::from_utf8(reply.body.to_vec())?;
            let samples = text
                .lines()
                .filter(|line| line.starts_with(begin))
                .filter_map(|line| line.rsplit_once(' '));
            most = samples.filter_map(|(_, value)| value.parse().ok()).fold(most, f64::max);
        }
        Ok(most)
    }
}

/// Returns the same id, this much older.
fn older(id: Uuid, by: Duration) -> Uuid {
    Uuid::from_u128(id.as_u128() - (by.as_millis() << 80))
}

async fn old_days_go_and_pending_ones_stay(world: &World) -> Result<()> {
    let scenario = &world.scenario;
    scenario.target("/kept", &["a"], json!({})).await?;
    let paused =
        scenario.target("/held", &["held"], json!({"state": "ENDPOINT_STATE_PAUSED"})).await?;
    let recent = scenario.publish_id("a", json!({"recent": true})).await?;
    let old = scenario.publish_id("a", json!({})).await?;
    let waiting = scenario.publish_id("held", json!({"still": "here"})).await?;
    for event in [&recent, &old] {
        scenario.delivery_in(event, "DELIVERED").await?;
    }
    let waiting = world.age(&waiting, DAY * 41).await?;
    let delivery = text(&scenario.delivery(&waiting).await?, "delivery_id")?;
    let attempt = text(
        &scenario.attempts(&text(&scenario.delivery(&old).await?, "delivery_id")?).await?[0],
        "attempt_id",
    )?;
    let attempt = AttemptId(older(attempt.parse::<AttemptId>()?.0, DAY * 40));
    let old = world.age(&old, DAY * 40).await?;

    // Lists and gets answer as if it had never existed.
    world.gone(&old).await?;
    wait_until("its attempts are gone, too", BOUND, async || {
        (world.status(&format!("attempts/{attempt}")).await.ok()? == 404).then_some(())
    })
    .await?;
    let page = scenario.rest.get(&scenario.path(&format!("deliveries?event_id={old}"))).await?;
    ensure!(page["deliveries"].as_array().is_none_or(Vec::is_empty), "{page}");
    let events = scenario.rest.get(&scenario.path("events")).await?;
    ensure!(events["events"].as_array().context("no events")?.len() == 2, "{events}");

    // The day of a pending delivery stays, and the metric shows it.
    wait_until("a day is held", BOUND, async || {
        (world.metric("outrider_dispatch_history_held").await.ok()? == 1.0).then_some(())
    })
    .await?;
    let event = scenario.rest.get(&scenario.path(&format!("events/{waiting}"))).await?;
    ensure!(event["data"] == json!({"still": "here"}), "{event}");
    let went =
        if world.outrider.shape() == Shape::Sqlite { "rows_deleted" } else { "partitions_dropped" };
    ensure!(
        world.metric(&format!("outrider_dispatch_{went}_total{{kind=\"events\"}}")).await? >= 1.0,
        "nothing is counted"
    );

    // It is delivered with its payload, and then its day is removed as well.
    let resume = json!({"state": "ENDPOINT_STATE_ACTIVE"});
    scenario.rest.patch(&scenario.path(&format!("endpoints/{}", paused.id)), &resume).await?;
    scenario.arrived("/held", 1, BOUND).await?;
    let received = scenario.receiver.received_of("/held", &waiting);
    ensure!(received.len() == 1 && received[0].body == "{\"still\":\"here\"}", "{received:?}");
    world.gone(&waiting).await?;
    wait_until("its delivery is gone", BOUND, async || {
        (world.status(&format!("deliveries/{delivery}")).await.ok()? == 404).then_some(())
    })
    .await?;
    ensure!(world.status(&format!("events/{recent}")).await? == 200, "what is recent went");
    let retried = scenario
        .rest
        .send(Method::POST, &scenario.path(&format!("deliveries/{delivery}:retry")), "{}")
        .await?;
    ensure!(retried.status == 404, "{retried:?}");
    crate::ledger::adds_up(&world.outrider)?;
    Ok(())
}

async fn nobody_waits_for_a_day_that_goes(world: &World) -> Result<()> {
    let scenario = &world.scenario;
    scenario.target("/busy", &["busy"], json!({})).await?;
    let mut old = Vec::new();
    for _ in 0..8 {
        let event = scenario.publish_id("old", json!({"padding": "x".repeat(1_000)})).await?;
        old.push(event);
    }
    let stop = AtomicBool::new(false);
    let publish = async || {
        let (mut worst, mut count) = (Duration::ZERO, 0_usize);
        while !stop.load(Ordering::Relaxed) {
            let began = Instant::now();
            scenario.publish_id("busy", json!({})).await?;
            worst = worst.max(began.elapsed());
            count += 1;
        }
        anyhow::Ok((worst, count))
    };
    let drop_days = async {
        for (number, event) in old.iter().enumerate() {
            let event = world.age(event, DAY * u32::try_from(40 + number)?).await?;
            world.gone(&event).await?;
        }
        stop.store(true, Ordering::Relaxed);
        anyhow::Ok(())
    };
    let publishing = async {
        let outcome = try_join_all((0..8).map(|_| publish())).await;
        stop.store(true, Ordering::Relaxed);
        outcome
    };
    let (dropped, published) = tokio::join!(drop_days, publishing);
    let published = published.context("a publish failed while days were dropped")?;
    dropped?;
    let count: usize = published.iter().map(|(_, count)| count).sum();
    let worst = published.iter().map(|(worst, _)| *worst).max().unwrap_or_default();
    eprintln!("{count} events while 8 days went; the slowest took {worst:?}");
    ensure!(count >= 50 && worst < WAIT, "of {count} publishes one took {worst:?}");
    scenario.arrived("/busy", count, BOUND).await
}

async fn what_is_erased_does_not_come_back(world: &World) -> Result<()> {
    let scenario = &world.scenario;
    scenario.receiver.answer("/told", [Answer::Full(200, Vec::new(), "a secret answer".into())]);
    scenario.target("/told", &["told"], json!({})).await?;
    let paused =
        scenario.target("/later", &["later"], json!({"state": "ENDPOINT_STATE_PAUSED"})).await?;
    let told = scenario.publish_id("told", json!({"name": "Ada"})).await?;
    let delivery = text(&scenario.delivery_in(&told, "DELIVERED").await?, "delivery_id")?;
    let attempt = text(&scenario.attempts(&delivery).await?[0], "attempt_id")?;
    let attempt = scenario.path(&format!("attempts/{attempt}"));
    ensure!(
        !scenario.rest.get(&attempt).await?["response_body"]
            .as_str()
            .unwrap_or_default()
            .is_empty(),
        "no answer is kept"
    );

    // At once.
    let erase = |event: &str| scenario.path(&format!("events/{event}:erasePayload"));
    let first = scenario.rest.post(&erase(&told), &json!({})).await?;
    let at = text(&first, "payload_erase_time")?;
    let event = scenario.rest.get(&scenario.path(&format!("events/{told}"))).await?;
    ensure!(event["payload_erase_time"] == at.as_str() && event.get("data").is_none(), "{event}");
    ensure!(event["payload_size"] == 14 && event["event_type"] == "told", "{event}");
    ensure!(
        scenario.rest.get(&attempt).await?["response_body"].as_str().unwrap_or_default().is_empty(),
        "an answer is kept"
    );
    let again = scenario.rest.post(&erase(&told), &json!({})).await?;
    ensure!(again["payload_erase_time"] == at.as_str(), "{again}");
    let retry = scenario.path(&format!("deliveries/{delivery}:retry"));
    let refused = scenario.rest.send(Method::POST, &retry, "{}").await?;
    ensure!(refused.status == 412 && refused.reason() == "PAYLOAD_ERASED", "{refused:?}");
    ensure!(scenario.receiver.distinct("/told") == 1, "something was sent");

    // Not while a delivery needs it, but by age once it was delivered.
    let later = scenario.publish_id("later", json!({"name": "Grace"})).await?;
    let refused = scenario.rest.send(Method::POST, &erase(&later), "{}").await?;
    ensure!(refused.status == 412 && refused.reason() == "DELIVERIES_PENDING", "{refused:?}");
    let old = scenario.publish_id("nobody", json!({"name": "Edsger"})).await?;
    let later = world.age(&later, Duration::from_secs(600)).await?;
    let old = world.age(&old, Duration::from_secs(590)).await?;
    let young = scenario.publish_id("nobody", json!({"name": "Barbara"})).await?;
    let project = format!("/v1/projects/{}", scenario.project);
    let changed = scenario.rest.patch(&project, &json!({"payload_retention": "300s"})).await?;
    ensure!(changed["payload_retention"] == "300s", "{changed}");
    let erased = async |event: &str| {
        let event = scenario.rest.get(&scenario.path(&format!("events/{event}"))).await.ok()?;
        Some(event.get("payload_erase_time").is_some() && event.get("data").is_none())
    };
    wait_until("an old payload is erased", BOUND, async || erased(&old).await?.then_some(()))
        .await?;
    ensure!(
        erased(&later).await == Some(false) && erased(&young).await == Some(false),
        "too much is erased"
    );
    let resume = json!({"state": "ENDPOINT_STATE_ACTIVE"});
    scenario.rest.patch(&scenario.path(&format!("endpoints/{}", paused.id)), &resume).await?;
    scenario.arrived("/later", 1, BOUND).await?;
    ensure!(
        scenario.receiver.received_of("/later", &later)[0].body == "{\"name\":\"Grace\"}",
        "another payload was sent"
    );
    wait_until("the payload is erased after its delivery", BOUND, async || {
        erased(&later).await?.then_some(())
    })
    .await?;
    ensure!(erased(&young).await == Some(false), "too much is erased");
    ensure!(
        world.metric("outrider_dispatch_payloads_erased_total{cause=\"request\"}").await? == 1.0,
        "not counted"
    );
    let refused =
        scenario.rest.send(Method::PATCH, &project, "{\"payload_retention\": \"59s\"}").await?;
    ensure!(
        refused.status == 400 && refused.fields() == ["project.payload_retention"],
        "{refused:?}"
    );
    let cleared = scenario
        .rest
        .patch(&format!("{project}?update_mask=payload_retention"), &json!({}))
        .await?;
    ensure!(cleared.get("payload_retention").is_none(), "{cleared}");
    Ok(())
}

async fn run(shape: Shape, shares: u32, scenario: impl AsyncFnOnce(&World) -> Result<()>) {
    run_with_shares(shares, async || {
        let world = World::start(shape).await?;
        scenario(&world).await.map_err(|error| with_logs(&error, &world.outrider))
    })
    .await;
}

macro_rules! on_shapes {
    ($($module:ident $shape:ident;)+) => {$(
        mod $module {
            use super::*;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn old_days_go_and_pending_ones_stay() {
                run(Shape::$shape, 1, super::old_days_go_and_pending_ones_stay).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn nobody_waits_for_a_day_that_goes() {
                run(Shape::$shape, SHARES, super::nobody_waits_for_a_day_that_goes).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn what_is_erased_does_not_come_back() {
                run(Shape::$shape, 1, super::what_is_erased_does_not_come_back).await;
            }
        }
    )+};
}

on_shapes! {
    sqlite Sqlite;
    postgres Postgres;
    mesh Mesh;
}
