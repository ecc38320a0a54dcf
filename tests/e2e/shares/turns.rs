//! Resources with few places, for which callers take turns: connections to the database, changes of
//! configuration, long validations, checks of schemas. A greedy key has many calls in line for
//! them, and a call of another goes before nearly all of these.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use http::Method;
use outrider_tests::{
    Outrider, Shape,
    client::Reply,
    cluster::Options,
    servers::{Postgres, Redis},
    wait_until,
};
use serde_json::{Value, json};
use tokio::task::{JoinHandle, block_in_place};

use super::{Caller, Callers, Refusal, in_time, of_resource, returned, start};
use crate::scenario::{BOUND, run_with_shares, with_logs};

/// The lock of all changes of configuration.
const CONFIGURATION: &str = "SELECT pg_advisory_lock(8031453545228428658)";
const ATTEMPTS: &str = "LOCK TABLE attempts IN ACCESS EXCLUSIVE MODE";

/// The calls of the greedy key.
struct Flood {
    calls: Vec<JoinHandle<Result<Reply>>>,
    done: Arc<AtomicUsize>,
}

impl Flood {
    fn of<F>(greedy: &Caller, count: usize, call: impl Fn(Caller, usize) -> F) -> Self
    where
        F: Future<Output = Result<Reply>> + Send + 'static,
    {
        let done = Arc::new(AtomicUsize::new(0));
        let calls = (0..count).map(|index| {
            let (answer, done) = (call(greedy.clone(), index), Arc::clone(&done));
            tokio::spawn(async move {
                let answer = answer.await;
                done.fetch_add(1, SeqCst);
                answer
            })
        });
        Self { calls: calls.collect(), done }
    }

    fn done(&self) -> usize {
        self.done.load(SeqCst)
    }

    /// Returns how many were answered, and the refusals of the others.
    async fn end(self) -> Result<(usize, Vec<Refusal>)> {
        let (mut answered, mut refused) = (0, Vec::new());
        for call in self.calls {
            match call.await?? {
                reply if reply.status == 200 => answered += 1,
                reply => refused.push(Refusal::of_reply(&reply)),
            }
        }
        Ok((answered, refused))
    }
}

/// Makes each of the others call once.
async fn once<F>(others: &[Caller], call: impl Fn(Caller, usize) -> F) -> Result<()>
where
    F: Future<Output = Result<Reply>>,
{
    let calls = others.iter().map(|other| {
        let answer = call(other.clone(), usize::MAX);
        async move {
            let reply = in_time("another key", answer).await?;
            ensure!(reply.status == 200, "{other:?}: {reply:?}");
            anyhow::Ok(())
        }
    });
    try_join_all(calls).await.map(drop)
}

/// Waits until at least this many wait in a line.
async fn lined_up(outrider: &Outrider, line: &str, least: usize) -> Result<()> {
    let mut waiting = 0.0;
    let lined_up = wait_until("they wait in line", BOUND, async || {
        waiting = of_resource(outrider, "held", line).await.ok()?;
        (waiting >= least as f64).then_some(())
    });
    lined_up.await.with_context(|| format!("{waiting} of {least} wait for {line}"))
}

/// A session of PostgreSQL that holds something until it is released.
struct Keeper {
    postgres: Arc<Postgres>,
    session: std::thread::JoinHandle<Result<String>>,
}

impl Keeper {
    /// Starts a session that holds what the statement takes.
    async fn new(postgres: &Arc<Postgres>, outrider: &Outrider, statement: &str) -> Result<Self> {
        let database = outrider.database().rsplit('/').next().unwrap_or_default().to_owned();
        let hold = format!("{statement}; SELECT pg_sleep(300)");
        let keeper = Self {
            postgres: Arc::clone(postgres),
            session: std::thread::spawn({
                let postgres = Arc::clone(postgres);
                move || postgres.query(&database, &hold)
            }),
        };
        wait_until("a session holds it", BOUND, async || {
            let sleeping = block_in_place(|| keeper.postgres.query("postgres", &count(SLEEPING)));
            (sleeping.ok()?.trim() == "1").then_some(())
        })
        .await?;
        Ok(keeper)
    }

    fn let_go(self) -> Result<()> {
        let end = format!("SELECT pg_terminate_backend(pid) FROM {SLEEPING}");
        block_in_place(|| {
            self.postgres.query("postgres", &end)?;
            ensure!(self.session.join().is_ok_and(|ended| ended.is_err()), "it ended by itself");
            Ok(())
        })
    }
}

const SLEEPING: &str = "pg_stat_activity WHERE wait_event = 'PgSleep'";

fn count(rows: &str) -> String {
    format!("SELECT count(*) FROM {rows}")
}

/// Runs an Outrider with its own PostgreSQL.
async fn over_postgres(
    database: Value,
    scenario: impl AsyncFnOnce(&Outrider, &Arc<Postgres>, Callers) -> Result<()>,
) -> Result<()> {
    let (postgres, redis) =
        block_in_place(|| anyhow::Ok((Arc::new(Postgres::start()?), Redis::start()?)))?;
    let options = Options { more: json!({"database": database}), ..Options::default() };
    let outrider = block_in_place(|| {
        Outrider::start(Shape::Postgres, &options, Some(&postgres), Some(&redis))
    })?;
    let outcome = async { scenario(&outrider, &postgres, Callers::new(&outrider).await?).await };
    outcome.await.map_err(|error| with_logs(&error, &outrider))
}

async fn attempts(caller: Caller, _: usize) -> Result<Reply> {
    caller.rest().send(Method::GET, &caller.path("attempts"), "").await
}

async fn events(caller: Caller, _: usize) -> Result<Reply> {
    caller.rest().send(Method::GET, &caller.path("events"), "").await
}

/// The greedy key requests data that the database cannot return now.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_to_the_database_are_divided() {
    let scenario = async |outrider: &Outrider, postgres: &Arc<Postgres>, callers: Callers| {
        const RESOURCE: &str = "database-connections";
        let Callers { greedy, others } = callers;
        returned(outrider, RESOURCE).await?;
        let keeper = Keeper::new(postgres, outrider, ATTEMPTS).await?;
        let flood = Flood::of(&greedy, 300, attempts);
        // A single key has 2 of 8 places, and 256 of 1,024 in the line.
        lined_up(outrider, "database-line", 128).await?;
        wait_until("the others are refused", BOUND, async || (flood.done() >= 42).then_some(()))
            .await?;
        ensure!(of_resource(outrider, "held", RESOURCE).await? == 2.0, "a lone key has two");
        once(&others, events).await?;
        keeper.let_go()?;
        let (answered, refused) = flood.end().await?;
        // A call has two statements, and the line may be full when its second one joins it.
        let all = answered + refused.len();
        ensure!(
            all == 300 && refused.len() >= 42,
            "{answered} were answered, {} refused",
            refused.len()
        );
        refused.iter().try_for_each(Refusal::is_of_the_key)?;
        ensure!(
            of_resource(outrider, "refused_total", "database-line").await? >= 42.0,
            "refusals are not counted"
        );
        returned(outrider, "database-line").await?;
        returned(outrider, RESOURCE).await
    };
    let database = json!({"acquire_timeout": "60s", "statement_timeout": "60s"});
    run_with_shares(2, async || over_postgres(database, scenario).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_too_long_for_the_database_has_used_up_its_share() {
    let scenario = async |outrider: &Outrider, postgres: &Arc<Postgres>, callers: Callers| {
        let keeper = Keeper::new(postgres, outrider, ATTEMPTS).await?;
        let flood = Flood::of(&callers.greedy, 10, attempts);
        // Two calls hang, and the others wait for as long as they may.
        wait_until("the others are refused", BOUND, async || (flood.done() == 8).then_some(()))
            .await?;
        once(&callers.others, events).await?;
        keeper.let_go()?;
        let (answered, refused) = flood.end().await?;
        ensure!(answered == 2, "{answered} were answered");
        refused.iter().try_for_each(Refusal::is_of_the_key)
    };
    let database = json!({"acquire_timeout": "500ms", "statement_timeout": "60s"});
    run_with_shares(2, async || over_postgres(database, scenario).await).await;
}

async fn rename(caller: Caller, index: usize) -> Result<Reply> {
    let path = format!("/v1/projects/{}", caller.project);
    caller.rest().send(Method::PATCH, &path, json!({"name": format!("{index}")}).to_string()).await
}

/// For a while, no configuration can be changed, and then all changes are made in turn.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_of_configuration_take_turns() {
    let scenario = async |outrider: &Outrider, postgres: &Arc<Postgres>, callers: Callers| {
        let Callers { greedy, others } = callers;
        let keeper = Keeper::new(postgres, outrider, CONFIGURATION).await?;
        let flood = Flood::of(&greedy, 100, rename);
        lined_up(outrider, "database-line", 98).await?;
        ensure!(
            of_resource(outrider, "held", "configuration-changes").await? == 1.0,
            "one at a time"
        );
        let apart = async {
            once(&others, rename).await?;
            Ok(flood.done())
        };
        let released = async {
            // Each of the others has a connection, or waits for one.
            let all = async || {
                let held = of_resource(outrider, "held", "database-connections").await?;
                anyhow::Ok(held + of_resource(outrider, "held", "database-line").await?)
            };
            wait_until("the others wait", BOUND, async || {
                (all().await.ok()? >= 103.0).then_some(())
            })
            .await?;
            keeper.let_go()
        };
        let (before, ()) = tokio::try_join!(apart, released)?;
        ensure!(before <= 40, "{before} changes of the greedy key came before those of the others");
        let (answered, refused) = flood.end().await?;
        ensure!(answered == 100, "{refused:?}");
        returned(outrider, "configuration-changes").await
    };
    let database = json!({"acquire_timeout": "60s", "statement_timeout": "60s"});
    run_with_shares(2, async || over_postgres(database, scenario).await).await;
}

/// Returns a schema with many subschemas, patterns and definitions, which takes long to compile.
fn schema(index: usize) -> Value {
    let member = |n: usize| {
        (
            format!("p{n}"),
            json!({"type": ["string", "null"], "maxLength": n, "minLength": index % 7}),
        )
    };
    let members: serde_json::Map<_, _> = (0..450).map(member).collect();
    let patterns: Vec<_> =
        (0..90).map(|n| json!({"pattern": format!("^(a|b|c{n}){{1,9}}[d-z]*x{index}$")})).collect();
    json!({"type": "object", "properties": members, "prefixItems": patterns})
}

async fn define(caller: Caller, index: usize) -> Result<Reply> {
    let body = json!({"event_type": format!("t{index}"), "schema": schema(index)});
    caller.rest().send(Method::POST, &caller.path("event-types"), body.to_string()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checks_of_schemas_take_turns() {
    let scenario = async || {
        let outrider = start(Shape::Sqlite, json!({}))?;
        let outcome = async {
            let Callers { greedy, others } = Callers::new(&outrider).await?;
            let flood = Flood::of(&greedy, 60, define);
            lined_up(&outrider, "schema-checks-line", 30).await?;
            let before = flood.done();
            once(&others, define).await?;
            let meanwhile = flood.done() - before;
            ensure!(
                meanwhile <= 20,
                "{meanwhile} of the greedy key came before one of each of the others"
            );
            let (answered, refused) = flood.end().await?;
            ensure!(answered == 60, "{refused:?}");
            returned(&outrider, "schema-checks").await
        };
        outcome.await.map_err(|error| with_logs(&error, &outrider))
    };
    run_with_shares(2, scenario).await;
}

/// Each definition refers to the next one twice, so that validation uses up all steps.
async fn publish_long(caller: Caller, _: usize) -> Result<Reply> {
    let data = format!("{}1{}", "{\"x\":".repeat(60), "}".repeat(60));
    let body = format!("{{\"event_type\": \"long\", \"data\": {data}}}");
    caller.rest().send(Method::POST, &caller.path("events"), body).await
}

async fn define_long(caller: &Caller) -> Result<()> {
    let definition = |n: usize| {
        let next = json!({"properties": {"x": {"$ref": format!("#/$defs/d{}", n + 1)}}});
        (format!("d{n}"), json!({"anyOf": [next, next]}))
    };
    let mut definitions: serde_json::Map<_, _> = (0..60).map(definition).collect();
    definitions.insert("d60".to_owned(), json!({"type": "null"}));
    let schema = json!({"$ref": "#/$defs/d0", "$defs": definitions});
    let body = json!({"event_type": "long", "schema": schema}).to_string();
    caller.rest().send(Method::POST, &caller.path("event-types"), body).await?.success()?;
    let warn = json!({"schema_validation": "SCHEMA_VALIDATION_WARN"}).to_string();
    caller
        .rest()
        .send(Method::PATCH, &format!("/v1/projects/{}", caller.project), warn)
        .await?
        .success()?;
    wait_until("it is validated", BOUND, async || {
        let reply = publish_long(caller.clone(), 0).await.ok()?;
        reply.json().ok()?["warnings"]
            .as_array()
            .is_some_and(|warnings| !warnings.is_empty())
            .then_some(())
    })
    .await
}

async fn long_validations(shape: Shape) -> Result<()> {
    let outrider = start(shape, json!({"ingest": {"validation_steps": 100_000}}))?;
    let outcome = async {
        let Callers { greedy, others } = Callers::new(&outrider).await?;
        // One of the others belongs to the same project.
        for caller in &others {
            define_long(caller).await?;
        }
        let flood = Flood::of(&greedy, 40, publish_long);
        lined_up(&outrider, "long-validations-line", 20).await?;
        ensure!(
            of_resource(&outrider, "held", "long-validations").await? == 1.0,
            "a lone key has one of four"
        );
        let before = flood.done();
        once(&others, publish_long).await?;
        let meanwhile = flood.done() - before;
        ensure!(
            meanwhile <= 12,
            "{meanwhile} of the greedy key came before one of each of the others"
        );
        let (answered, refused) = flood.end().await?;
        ensure!(answered == 40, "{refused:?}");
        returned(&outrider, "long-validations").await
    };
    outcome.await.map_err(|error| with_logs(&error, &outrider))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_validations_take_turns() {
    run_with_shares(2, async || long_validations(Shape::Sqlite).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_validations_take_turns_over_six_processes() {
    run_with_shares(2, async || long_validations(Shape::Mesh).await).await;
}
