//! On PostgreSQL every page is read from an index, in its order. No table is scanned, and only a
//! few rows are sorted.

use std::time::Duration;

use outrider_model::{
    AttemptOutcome, DeliveryId, DeliveryStatus, EventId, PageRequest, Timestamp,
    id::uuid_bound,
    page::{AttemptPosition, Cursor},
};
use sea_orm::{ConnectionTrait, DbBackend, QueryTrait, Statement, TransactionTrait};
use uuid::Uuid;

use crate::{
    AttemptFilter, DeliveryFilter, EventFilter,
    history::queries::{
        attempts,
        deliveries::{Candidates, DeliveryQuery, select_ended, select_pending},
        events,
    },
    testing::{scene::Scene, world::World},
};

/// 40,000 rows of each table from the last 22 hours. 4,000 in the middle belong to the project,
/// which has been inactive for hours, so that a scan by id would reach it late. Half of them belong
/// to the endpoint. One in forty was not delivered.
const FILL: [&str; 6] = [
    "CREATE TEMPORARY TABLE seed AS SELECT n,
        (lpad(to_hex($MILLIS - n * 2000), 12, '0') || '70008000'
            || lpad(to_hex(n), 12, '0'))::uuid AS id,
        CASE WHEN n BETWEEN 18001 AND 22000 THEN '$PROJECT'::uuid
            ELSE ('00000000-0000-7000-8000-00000000000' || n % 10)::uuid END AS project,
        CASE WHEN n BETWEEN 18001 AND 22000 AND n % 2 = 0 THEN '$ENDPOINT'::uuid
            ELSE ('00000000-0000-7000-9000-0000000000' || lpad((n % 100)::text, 2, '0'))::uuid
            END AS endpoint
        FROM generate_series(1, 40000) n",
    "INSERT INTO events SELECT id, project, 'type.' || n % 7, 'text/plain', '', 0, NULL, '{}',
        '{}', NULL, NULL, 1, '{}', 0
        FROM seed",
    "INSERT INTO pending_deliveries SELECT id, project, id, 'type.' || n % 7, endpoint, '', 0, 1,
        0, NULL, 0, 0, NULL, 0
        FROM seed",
    "INSERT INTO deliveries SELECT id, project, id, 'type.' || n % 7, endpoint, '', 0,
        CASE WHEN n % 40 = 0 THEN 3 ELSE 2 END, 5, 1, 200, 0, 0 FROM seed",
    "INSERT INTO attempts SELECT id, id, id, endpoint, project, 1,
        CASE WHEN n % 40 = 0 THEN 2 ELSE 1 END, 200,
        ($MILLIS - n * 2000) * 1000, 0, '[]', '', FALSE, NULL FROM seed",
    "ANALYZE",
];

const DAY_MICROS: i64 = 86_400_000_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_are_ranges_of_indexes() {
    let Some(world) = World::postgres().await else { return };
    let mut scene = Scene::of(world).await;
    // Always at the same distance from midnight: the rows of the project are in yesterday's
    // partition, others in today's.
    scene.world.now =
        Timestamp(scene.world.now.0 / DAY_MICROS * DAY_MICROS).plus(Duration::from_secs(5 * 3600));
    fill(&scene).await;
    let first = PageRequest { size: 50, from: None };
    let middle = uuid_bound(scene.world.now.minus(Duration::from_secs(40_000)));
    let pages = [
        first,
        PageRequest { from: Some(Cursor::After(middle)), ..first },
        PageRequest { from: Some(Cursor::Before(middle)), ..first },
    ];
    for page in pages {
        for statement in
            event_statements(&scene, page).into_iter().chain(delivery_statements(&scene, page))
        {
            check(&scene, statement).await;
        }
        for statement in attempt_statements(&scene, of_attempts(page)) {
            check(&scene, statement).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_are_ranges_of_indexes_on_sqlite_too() {
    let scene = Scene::of(World::sqlite().await).await;
    let page = PageRequest { size: 50, from: Some(Cursor::After(uuid_bound(scene.world.now))) };
    let attempts = |scene: &Scene, page| attempt_statements(scene, of_attempts(page));
    for build in [event_statements, delivery_statements, attempts] {
        for statement in build(&scene, page) {
            // Both backends support numbered parameters.
            let explain = Statement {
                sql: format!("EXPLAIN QUERY PLAN {}", statement.sql),
                db_backend: DbBackend::Sqlite,
                ..statement
            };
            for row in scene.world.store.read().query_all_raw(explain.clone()).await.unwrap() {
                let step: String = row.try_get("", "detail").unwrap();
                let few =
                    explain.sql.contains(" IN (") || explain.sql.contains(r#""delivery_id" = "#);
                let by_ids = few && step.contains("TEMP B-TREE");
                let searched = step.starts_with("SEARCH")
                    && (step.contains("INDEX") || step.contains("PRIMARY KEY"));
                assert!(searched || by_ids, "{step}\n{}", explain.sql);
            }
        }
    }
}

async fn fill(scene: &Scene) {
    let database = scene.world.store.write().begin().await.unwrap();
    for statement in FILL {
        let statement = statement
            .replace("$MILLIS", &scene.world.now.millis().to_string())
            .replace("$PROJECT", &scene.world.project.0.to_string())
            .replace("$ENDPOINT", &scene.endpoint.0.to_string());
        database.execute_unprepared(&statement).await.unwrap();
    }
    database.commit().await.unwrap();
}

fn event_statements(scene: &Scene, page: PageRequest) -> Vec<Statement> {
    let start = Some(scene.world.now.minus(Duration::from_secs(42_000)));
    let typed = EventFilter { event_type: Some("type.0".to_owned()), ..EventFilter::default() };
    [
        EventFilter::default(),
        typed.clone(),
        EventFilter { start, end: Some(scene.world.now), ..typed },
    ]
    .iter()
    .map(|filter| events::select(scene.world.project, filter, page).build(DbBackend::Postgres))
    .collect()
}

fn delivery_statements(scene: &Scene, page: PageRequest) -> Vec<Statement> {
    let any = DeliveryFilter::default;
    let filters = [
        any(),
        DeliveryFilter { event_type: Some("type.0".to_owned()), ..any() },
        DeliveryFilter { endpoint: Some(scene.endpoint), ..any() },
        DeliveryFilter { status: Some(DeliveryStatus::Failed), ..any() },
        DeliveryFilter { status: Some(DeliveryStatus::Delivered), ..any() },
        DeliveryFilter {
            endpoint: Some(scene.endpoint),
            status: Some(DeliveryStatus::Failed),
            ..any()
        },
        DeliveryFilter { endpoint: Some(scene.endpoint), end: Some(scene.world.now), ..any() },
    ];
    let event = outrider_model::EventId::new(scene.world.now.minus(Duration::from_secs(41_000)), 0);
    let replay = DeliveryId::derive(scene.world.now, event, scene.endpoint, 1);
    let among = [Candidates::All, Candidates::Event(event), Candidates::Ids(vec![replay.0])];
    let mut statements = Vec::new();
    for filter in &filters {
        for among in &among {
            let wanted = DeliveryQuery {
                principal: &scene.principal,
                project: scene.world.project,
                filter,
                page,
            };
            statements.push(select_ended(wanted, among).build(DbBackend::Postgres));
            if filter.status.is_none() {
                statements.push(select_pending(wanted, among).build(DbBackend::Postgres));
            }
        }
    }
    statements
}

/// The same page for attempts that started at the time of their ids.
fn of_attempts(page: PageRequest) -> PageRequest<AttemptPosition> {
    let place = |id: Uuid| AttemptPosition { number: 1, started_at: EventId(id).time(), id };
    let from = page.from.map(|cursor| match cursor {
        Cursor::After(id) => Cursor::After(place(id)),
        Cursor::Before(id) => Cursor::Before(place(id)),
    });
    PageRequest { size: page.size, from }
}

fn attempt_statements(scene: &Scene, page: PageRequest<AttemptPosition>) -> Vec<Statement> {
    let any = AttemptFilter::default;
    let event = outrider_model::EventId::new(scene.world.now.minus(Duration::from_secs(41_000)), 0);
    let delivery = DeliveryId::derive(event.time(), event, scene.endpoint, 0);
    [
        any(),
        AttemptFilter { delivery: Some(delivery), ..any() },
        AttemptFilter { endpoint: Some(scene.endpoint), ..any() },
        AttemptFilter { outcome: Some(AttemptOutcome::Rejected), ..any() },
        AttemptFilter {
            outcome: Some(AttemptOutcome::Rejected),
            endpoint: Some(scene.endpoint),
            ..any()
        },
        AttemptFilter { outcome: Some(AttemptOutcome::Succeeded), ..any() },
        AttemptFilter {
            start: Some(scene.world.now.minus(Duration::from_secs(42_000))),
            end: Some(scene.world.now),
            ..any()
        },
    ]
    .iter()
    .map(|filter| {
        attempts::select(&scene.principal, scene.world.project, filter, page)
            .build(DbBackend::Postgres)
    })
    .collect()
}

/// Executes the statement and checks what it reads. A page of 51 rows takes an index entry and a
/// table page for each row, and a few pages of each partition. If few rows are within the bounds,
/// the planner may read all of them, skip some and sort the rest, which is cheap.
async fn check(scene: &Scene, statement: Statement) {
    let text =
        format!("EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF, BUFFERS) {}", statement.sql);
    let explain = Statement { sql: text, ..statement };
    let rows = scene.world.store.read().query_all_raw(explain.clone()).await.unwrap();
    let plan: Vec<String> = rows.iter().map(|row| row.try_get_by_index(0).unwrap()).collect();
    let (pages, dropped, sorted) = (pages_read(&plan), rows_dropped(&plan), rows_sorted(&plan));
    let plan = plan.join("\n");
    assert!(
        pages <= 300 && dropped <= 1_000 && sorted <= 4_000,
        "{pages} {dropped} {sorted}\n{}\n{plan}",
        explain.sql
    );
}

fn number_after(line: &str, before: &str) -> Option<u64> {
    line.split_once(before)?
        .1
        .split(|character: char| !character.is_ascii_digit())
        .next()?
        .parse()
        .ok()
}

/// The first line of this kind, which is for the whole statement. There is none if no partition is
/// within the bounds.
fn pages_read(plan: &[String]) -> u64 {
    let Some(buffers) = plan.iter().find(|line| line.contains("Buffers: shared")) else { return 0 };
    number_after(buffers, "hit=").unwrap_or(0) + number_after(buffers, "read=").unwrap_or(0)
}

fn rows_dropped(plan: &[String]) -> u64 {
    plan.iter().filter_map(|line| number_after(line, "Removed by Filter: ")).sum()
}

/// The numbers of rows that the nodes below a sort returned.
fn rows_sorted(plan: &[String]) -> u64 {
    let below = |at: usize| {
        plan[at + 1..]
            .iter()
            .find(|line| line.contains("->"))
            .and_then(|line| number_after(line, "rows="))
    };
    (0..plan.len())
        .filter(|at| plan[*at].contains("Sort  (") || plan[*at].contains("Sort ("))
        .filter_map(below)
        .max()
        .unwrap_or(0)
}
