//! The audit on both backends: an intact ledger adds up, and each kind of damage is found with its
//! id.

mod broken;
mod whole;

use std::collections::BTreeMap;

use outrider_model::ProjectId;
use uuid::Uuid;

use super::{AuditScope, Discrepancy, Finding, ProjectAudit};
use crate::{Backend, Store, testing::world::World};

/// All steps of a scope, added up.
async fn audit(
    store: &Store,
    scope: AuditScope,
) -> (BTreeMap<ProjectId, ProjectAudit>, Vec<Finding>) {
    let (mut projects, mut findings, mut scope) =
        (BTreeMap::<ProjectId, ProjectAudit>::new(), Vec::new(), scope);
    while scope.from < scope.until {
        let audited = store.audit(scope).await.unwrap();
        assert!(audited.until > scope.from, "a step goes on");
        scope.from = audited.until;
        for (project, tally) in &audited.projects {
            projects.entry(*project).or_default().add(tally);
        }
        findings.extend(audited.findings);
    }
    (projects, findings)
}

/// The findings in the world's project, in the order of ids: their kinds and ids.
async fn findings(world: &World) -> Vec<(Discrepancy, Uuid)> {
    let (projects, found) = audit(&world.store, AuditScope::ALL).await;
    let small = audit(&world.store, AuditScope { rows: 1, ..AuditScope::ALL }).await;
    assert_eq!((&projects, &found), (&small.0, &small.1), "the size of steps changes nothing");
    let counted: u64 = projects.values().flat_map(|project| project.discrepancies.values()).sum();
    assert_eq!(counted, found.iter().map(|finding| finding.count).sum::<u64>());
    assert!(found.iter().all(|finding| finding.project == world.project));
    found.into_iter().map(|finding| (finding.kind, finding.id)).collect()
}

/// An id as a literal in the backend's SQL.
fn sql(world: &World, id: Uuid) -> String {
    match world.store.backend() {
        Backend::Postgres => format!("'{id}'::uuid"),
        Backend::Sqlite => format!("x'{}'", id.simple()),
    }
}

/// Deletes the row with an id.
async fn delete(world: &World, table: &str, id: Uuid) {
    let (before, id) = (world.rows(table).await, sql(world, id));
    world.execute(&format!("DELETE FROM {table} WHERE id = {id}")).await;
    assert_eq!(world.rows(table).await, before - 1, "{table}");
}
