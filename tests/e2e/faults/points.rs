//! Every fail point, in every shape that passes it. The process dies there and is restarted, and
//! nothing is lost.

use std::{
    os::unix::process::ExitStatusExt,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use outrider_failpoints::Point;
use outrider_tests::{Answer, Shape, wait_until};
use serde_json::json;
use tokio::task::block_in_place;

use super::{
    ledger::{Book, Door, publish_some},
    trial::{Setting, World, goals, mesh, seed, single, sqlite},
    verdict::{self, Terms},
};
use crate::scenario::{self, Scenario, run_with_shares};

/// How many events a case publishes at once.
const EVENTS: usize = 12;
/// The limit of each endpoint, which is less than is published, so that the feeder has work.
const WINDOW: usize = 4;
/// The time within which a point must be passed.
const BOUND: Duration = Duration::from_secs(30);
/// How many lines of logs an error shows.
const LINES: usize = 100;
/// SIGABRT.
const ABORT: i32 = 6;

/// How a process is made to pass a point.
#[derive(Debug, Clone, Copy)]
enum Provocation {
    /// Publishing.
    Publish,
    /// Publishing to endpoints that answer more slowly than the period of checks.
    PublishSlowly,
    /// Redis is emptied while deliveries are in flight.
    Flush,
    /// The process dies at another point first.
    After(Point),
    /// An endpoint is deleted while its deliveries wait.
    Delete,
    /// The process starts.
    Start,
}

/// Where a process dies: when it passes the point for the N-th time.
#[derive(Debug, Clone, Copy)]
struct Death {
    point: Point,
    passing: u64,
    provocation: Provocation,
}

/// Returns how each point is passed, and how often at least. Omits points that the shape never
/// passes.
fn deaths(shape: Shape) -> Vec<Death> {
    let embedded = shape == Shape::Sqlite;
    let mut deaths = Vec::new();
    for point in Point::ALL.iter().copied() {
        let (most, provocation) = match point {
            Point::BeforeSqliteCommit | Point::AfterSqliteCommit if !embedded => continue,
            // The window ends with the process, so nothing of it can be taken over or lost
            // separately.
            Point::AfterReclaim | Point::BeforeLostRepair | Point::AfterLostRepair if embedded => {
                continue;
            }
            Point::AfterReclaim => (1, Provocation::After(Point::BeforeSend)),
            Point::BeforeLostRepair | Point::AfterLostRepair => {
                (1, Provocation::After(Point::AfterCommit))
            }
            Point::BeforeExtend => (1, Provocation::PublishSlowly),
            Point::BeforeRenew | Point::AfterRenew => (2, Provocation::PublishSlowly),
            Point::BeforeCancel | Point::AfterCancel => (1, Provocation::Delete),
            Point::BeforeEpochRepair | Point::AfterEpochRepair => (1, Provocation::Start),
            Point::BeforeAccept | Point::AfterAccept => (EVENTS as u64, Provocation::Publish),
            Point::BeforeSend | Point::AfterSend => (2 * EVENTS as u64, Provocation::Publish),
            Point::BeforeDial | Point::AfterDial => (2, Provocation::Publish),
            // All may be in one commit, and be refused together.
            Point::BeforeCommit | Point::AfterCommit | Point::BeforeUnmark | Point::AfterUnmark => {
                (1, Provocation::Publish)
            }
            _ => (2, Provocation::Publish),
        };
        // The writer of SQLite commits once at the start.
        let least = if [Point::BeforeSqliteCommit, Point::AfterSqliteCommit].contains(&point) {
            2
        } else {
            1
        };
        let passing = least + (seed().wrapping_sub(1)) % most;
        deaths.push(Death { point, passing, provocation });
        if matches!(provocation, Provocation::Start) && !embedded {
            deaths.push(Death { point, passing: 2, provocation: Provocation::Flush });
        }
    }
    deaths
}

/// Runs part `part` of `parts` of a shape's deaths, one after the other in one world.
async fn die_everywhere(setting: Setting, part: usize, parts: usize) {
    let setting = setting.with(json!({"dispatch": {"check_after": "1s"}}));
    run_with_shares(1, async || {
        let mut world = block_in_place(|| World::start(&setting, None, None))?;
        for death in deaths(setting.shape).into_iter().skip(part).step_by(parts) {
            let book = Arc::new(Book::new());
            let outcome = die(&mut world, &book, death, setting.recovery()).await;
            let told = outcome.map_err(|error| {
                let told = format!(
                    "{:?} {death:?}, OUTRIDER_TEST_SEED={}: {error:#}",
                    setting.shape,
                    seed()
                );
                scenario::with_logs(
                    &anyhow::anyhow!("{told}\n{}", book.timeline()),
                    &world.outrider,
                )
            })?;
            eprintln!("{:?} {}:{}: {told}", setting.shape, death.point.name(), death.passing);
        }
        crate::ledger::adds_up(&world.outrider)?;
        Ok(())
    })
    .await;
}

async fn die(
    world: &mut World,
    book: &Arc<Book>,
    death: Death,
    recovery: Duration,
) -> Result<String> {
    let Death { point, passing, provocation } = death;
    let scenario = Scenario::new(&world.outrider).await?;
    let goals = goals(&scenario, [WINDOW; 2]).await?;
    let doomed = match provocation {
        Provocation::Delete => {
            scenario.receiver.answer("/doomed", [Answer::After(Duration::from_millis(700), 200)]);
            Some(scenario.target("/doomed", &["load"], json!({"max_in_flight": 1})).await?)
        }
        _ => None,
    };
    if let Provocation::PublishSlowly = provocation {
        for target in &goals {
            scenario.receiver.answer(
                &target.target.path,
                (1..=target.requests).map(|request| {
                    Answer::After(
                        Duration::from_millis(1_800),
                        if request == target.requests { 200 } else { 500 },
                    )
                }),
            );
        }
    }
    let name = point.role();
    if let Provocation::After(first) = provocation {
        arm(world, book, name, Some((first, 1)))?;
    } else {
        arm(world, book, name, Some((point, passing)))?;
    }
    let door = Door::Rest(scenario.rest.clone());
    let publishing = {
        let (book, project) = (Arc::clone(book), scenario.project.clone());
        tokio::spawn(async move { publish_some(&book, &door, &project, 0..EVENTS).await })
    };
    match provocation {
        Provocation::After(first) => {
            await_death(world, book, name, first, 1)?;
            arm(world, book, name, Some((point, passing)))?;
        }
        Provocation::Flush => {
            let some = async || (scenario.receiver.distinct("/steady") >= 2).then_some(());
            wait_until("some have arrived", BOUND, some).await?;
            book.note("FLUSHALL");
            block_in_place(|| world.redis.as_ref().context("no Redis here")?.flush_all())?;
        }
        _ => {}
    }
    if let Some(doomed) = &doomed {
        wait_until("all are accepted", BOUND, async || (book.accepted() == EVENTS).then_some(()))
            .await?;
        book.note("an endpoint is deleted");
        scenario.rest.delete(&scenario.path(&format!("endpoints/{}", doomed.id))).await?;
    }
    await_death(world, book, name, point, passing)?;
    arm(world, book, name, None)?;
    let fault_ended = Instant::now();
    publishing.await?;
    let (excess, cut) = in_flight(world.outrider.shape(), point, provocation);
    let callers_harmed = world.outrider.shape() != Shape::Mesh;
    verdict::judge(
        &scenario,
        &goals,
        book,
        Terms { fault_ended, recovery, excess, cut, first_wait: None, callers_harmed },
    )
    .await
}

/// Returns how many requests may be sent twice, without a record of the first and with one. A
/// process that sends requests leaves some in flight, and so does an emptied Redis. A process that
/// carries them leaves some unanswered. If any other dies, nothing is sent twice.
fn in_flight(shape: Shape, point: Point, provocation: Provocation) -> (usize, usize) {
    let window = 2 * WINDOW;
    let deaths = if matches!(provocation, Provocation::After(_)) { 2 } else { 1 };
    let sends = shape != Shape::Mesh || point.role() == "worker";
    let of_deaths = if sends { deaths * window } else { 0 };
    let excess = of_deaths + if matches!(provocation, Provocation::Flush) { window } else { 0 };
    (excess, if point.role() == "egress" { deaths * window } else { 0 })
}

/// Restarts a process that dies at a point, or at none. Returns when it is ready or already dead.
fn arm(world: &mut World, book: &Book, name: &str, death: Option<(Point, u64)>) -> Result<()> {
    let variables = death
        .map(|(point, passing)| ("OUTRIDER_FAIL_POINT", format!("{}:{passing}", point.name())));
    book.note(format!("start {name} {variables:?}"));
    block_in_place(|| {
        world.outrider.kill(name)?;
        world.outrider.set_environment(name, variables.as_slice())?;
        world.outrider.restart(name)?;
        let ready = world.outrider.ready();
        // It may die before it is ready.
        if death.is_some() { Ok(()) } else { ready }
    })
}

fn await_death(
    world: &mut World,
    book: &Book,
    name: &str,
    point: Point,
    passing: u64,
) -> Result<()> {
    let ended = block_in_place(|| world.outrider.wait_for_end(name, BOUND));
    let status = ended.with_context(|| format!("{} was not passed", point.name()))?;
    ensure!(status.signal() == Some(ABORT), "{name} ended with {status}, not at {}", point.name());
    let words = format!("fail point {} was passed {passing} times", point.name());
    ensure!(
        world.outrider.logs(LINES).contains(&words),
        "{name} died, and does not say of {}",
        point.name()
    );
    book.note(format!("{name} died at {}", point.name()));
    Ok(())
}

/// Tests that each cover a part of the points.
macro_rules! parts {
    ($($name:ident: $setting:expr, $part:expr, $parts:expr;)+) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            die_everywhere($setting, $part, $parts).await;
        }
    )+};
}

parts! {
    mesh_dies_at_every_point_1: mesh(), 0, 3;
    mesh_dies_at_every_point_2: mesh(), 1, 3;
    mesh_dies_at_every_point_3: mesh(), 2, 3;
    postgres_dies_at_every_point_1: single(), 0, 3;
    postgres_dies_at_every_point_2: single(), 1, 3;
    postgres_dies_at_every_point_3: single(), 2, 3;
    sqlite_dies_at_every_point: sqlite(), 0, 1;
}
