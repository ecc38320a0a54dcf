//! The report of the audit, as a table and as JSON.

use std::collections::BTreeMap;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use outrider_model::ProjectId;
use outrider_store::{Audited, AuditedKeys, Discrepancy, Finding, ProjectAudit};
use serde_json::{Value, json};

/// Everything found so far: a few hundred bytes per project, and the findings to list.
pub struct LedgerReport {
    projects: BTreeMap<ProjectId, ProjectAudit>,
    findings: Vec<Finding>,
    listed: usize,
    keys: u64,
}

impl LedgerReport {
    /// Creates a report that lists this many findings.
    pub fn new(listed: usize) -> Self {
        Self { projects: BTreeMap::new(), findings: Vec::new(), listed, keys: 0 }
    }

    pub fn add(&mut self, audited: Audited) {
        for (project, audit) in &audited.projects {
            self.projects.entry(*project).or_default().add(audit);
        }
        self.list(audited.findings);
    }

    pub fn add_keys(&mut self, audited: AuditedKeys) {
        self.keys += audited.keys.values().sum::<u64>();
        for finding in &audited.findings {
            let project = self.projects.entry(finding.project).or_default();
            *project.discrepancies.entry(finding.kind).or_default() += finding.count;
        }
        self.list(audited.findings);
    }

    fn list(&mut self, findings: Vec<Finding>) {
        let room = self.listed.saturating_sub(self.findings.len());
        self.findings.extend(findings.into_iter().take(room));
    }

    pub fn events(&self) -> u64 {
        self.projects.values().map(|project| project.events).sum()
    }

    pub fn keys(&self) -> u64 {
        self.keys
    }

    fn total(&self) -> ProjectAudit {
        let mut total = ProjectAudit::default();
        self.projects.values().for_each(|project| total.add(project));
        total
    }

    /// Returns a line about what does not add up, or `None` if everything does.
    pub fn verdict(&self) -> Option<String> {
        let kinds = self.total().discrepancies;
        let kinds: Vec<String> =
            kinds.iter().map(|(kind, count)| format!("{} {count}", kind.name())).collect();
        (!kinds.is_empty()).then(|| format!("the ledger does not add up: {}", kinds.join(", ")))
    }

    pub fn json(&self) -> String {
        let project = |(id, audit): (&ProjectId, &ProjectAudit)| {
            let mut numbers = numbers(audit);
            numbers["project_id"] = id.to_string().into();
            numbers
        };
        let findings = self.findings.iter().map(|finding| {
            json!({"kind": finding.kind.name(), "project_id": finding.project.to_string(),
                "id": finding.public_id(), "count": finding.count})
        });
        let report = json!({
            "ok": self.verdict().is_none(),
            "total": numbers(&self.total()),
            "idempotency_keys": self.keys,
            "projects": self.projects.iter().map(project).collect::<Vec<_>>(),
            "findings": findings.collect::<Vec<_>>(),
        });
        format!("{report}\n")
    }

    pub fn text(&self) -> String {
        let mut table = Table::new();
        table
            .load_preset(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Disabled)
            .force_no_tty();
        table.set_header([
            "PROJECT",
            "EVENTS",
            "UNROUTED",
            "OWED",
            "REPLAYS",
            "DELIVERED",
            "FAILED",
            "CANCELLED",
            "QUEUED",
            "WAITING",
            "HELD",
            "UNACCOUNTED",
            "DOUBLED",
            "OTHER",
        ]);
        for (project, audit) in &self.projects {
            table.add_row(row(project.to_string(), audit));
        }
        if self.projects.len() != 1 {
            table.add_row(row("all".to_owned(), &self.total()));
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let mut text = format!("{}\n", table.trim_fmt());
        for finding in &self.findings {
            let Finding { kind, project, count, .. } = finding;
            text += &format!("{}  {}  of {project}: {count}\n", kind.name(), finding.public_id());
        }
        if self.verdict().is_none() {
            text += &format!(
                "Every delivery is accounted for; {} idempotency keys point at their events.\n",
                self.keys
            );
        }
        text
    }
}

fn row(name: String, audit: &ProjectAudit) -> Vec<String> {
    let cancelled = audit.endpoint_deleted + audit.project_deleted + audit.other_ended;
    let other = audit.discrepancies.values().sum::<u64>() - audit.unaccounted() - audit.doubled();
    let numbers = [
        audit.events,
        audit.unrouted,
        audit.owed,
        audit.replays,
        audit.delivered,
        audit.failed,
        cancelled,
        audit.queued,
        audit.waiting,
        audit.held,
        audit.unaccounted(),
        audit.doubled(),
        other,
    ];
    [name].into_iter().chain(numbers.map(|number| number.to_string())).collect()
}

fn numbers(audit: &ProjectAudit) -> Value {
    let discrepancies: BTreeMap<&str, u64> = Discrepancy::ALL
        .iter()
        .map(|kind| (kind.name(), audit.discrepancies.get(kind).copied().unwrap_or(0)))
        .collect();
    json!({
        "events": audit.events,
        "unrouted": audit.unrouted,
        "owed": audit.owed,
        "replays": audit.replays,
        "delivered": audit.delivered,
        "failed": audit.failed,
        "cancelled": {
            "endpoint_deleted": audit.endpoint_deleted,
            "project_deleted": audit.project_deleted,
            "other": audit.other_ended,
        },
        "pending": {"queued": audit.queued, "waiting": audit.waiting, "held": audit.held},
        "unaccounted": audit.unaccounted(),
        "doubled": audit.doubled(),
        "discrepancies": discrepancies,
    })
}

#[cfg(test)]
mod tests {
    use outrider_model::{EventId, Timestamp};
    use uuid::Uuid;

    use super::*;

    fn audited(missing: u64) -> Audited {
        let project = ProjectId::new(Timestamp(0), 1);
        let mut audit =
            ProjectAudit { events: 2, owed: 3, delivered: 3 - missing, ..ProjectAudit::default() };
        let mut findings = Vec::new();
        if missing > 0 {
            audit.discrepancies.insert(Discrepancy::MissingDelivery, missing);
            let id = EventId::new(Timestamp(0), 9).0;
            findings.push(Finding {
                kind: Discrepancy::MissingDelivery,
                project,
                id,
                count: missing,
            });
        }
        Audited { until: Uuid::max(), projects: [(project, audit)].into(), findings }
    }

    #[test]
    fn what_adds_up_says_so() {
        let mut report = LedgerReport::new(20);
        report.add(audited(0));
        report.add(audited(0));
        assert_eq!(report.verdict(), None);
        assert!(report.text().ends_with(
            "Every delivery is accounted for; 0 idempotency keys point at their events.\n"
        ));
        let json: Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!((json["ok"].as_bool(), json["total"]["owed"].as_u64()), (Some(true), Some(6)));
    }

    #[test]
    fn what_does_not_is_counted_and_listed_up_to_a_number() {
        let mut report = LedgerReport::new(1);
        report.add(audited(1));
        report.add(audited(2));
        assert_eq!(report.verdict().unwrap(), "the ledger does not add up: missing-delivery 3");
        assert_eq!(report.text().matches("evt_").count(), 1);
        let json: Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!(json["projects"][0]["unaccounted"], 3);
        assert_eq!(json["findings"].as_array().unwrap().len(), 1);
    }
}
