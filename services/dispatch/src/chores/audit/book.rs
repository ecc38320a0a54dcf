//! The discrepancies that are known.

use std::{collections::BTreeMap, ops::Bound};

use outrider_model::{
    ProjectId, Timestamp,
    id::{time_of, uuid_bound},
};
use outrider_store::{Audited, Discrepancy, Finding};
use uuid::Uuid;

/// How many findings are kept. Further ones are reported when these are resolved.
const KEPT: usize = 10_000;
/// How many projects, and how many ids of each, are logged at once.
const LOGGED_PROJECTS: usize = 20;
const LOGGED_IDS: usize = 5;

/// The findings, by subject. A new check replaces the earlier findings about its range.
#[derive(Debug, Default)]
pub struct Book {
    findings: BTreeMap<(Uuid, Discrepancy), Finding>,
    /// The finding that was checked again last.
    rechecked: Option<(Uuid, Discrepancy)>,
}

impl Book {
    pub fn is_empty(&self) -> bool {
        self.findings.is_empty()
    }

    /// Returns the number of missing or surplus rows of a kind.
    pub fn count(&self, kind: Discrepancy) -> u64 {
        self.findings
            .values()
            .filter(|finding| finding.kind == kind)
            .map(|finding| finding.count)
            .sum()
    }

    /// Records the audit of a range, which replaces what was known about it.
    pub fn enter(&mut self, from: Uuid, audited: &Audited) {
        self.findings.retain(|(id, _), _| *id < from || *id >= audited.until);
        for finding in &audited.findings {
            if self.findings.len() >= KEPT {
                return;
            }
            self.findings.insert((finding.id, finding.kind), *finding);
        }
    }

    /// Returns the ranges (of one millisecond) of some findings, in turn.
    pub fn due_again(&mut self, limit: usize) -> Vec<(Uuid, Uuid)> {
        let after = self.rechecked.map_or(Bound::Unbounded, Bound::Excluded);
        let next: Vec<_> = self
            .findings
            .range((after, Bound::Unbounded))
            .take(limit)
            .map(|(key, _)| *key)
            .collect();
        // After the last finding, start again with the first.
        self.rechecked = next.last().copied().filter(|_| next.len() == limit);
        let mut ranges: Vec<(Uuid, Uuid)> = next
            .into_iter()
            .map(|(id, _)| {
                (
                    uuid_bound(time_of(id)),
                    uuid_bound(Timestamp(time_of(id).0.saturating_add(1_000))),
                )
            })
            .collect();
        ranges.dedup();
        ranges
    }

    /// Returns, for the log, some projects with the counts of each kind and the first ids.
    pub fn projects(&self) -> Vec<(ProjectId, BTreeMap<&'static str, u64>, Vec<String>)> {
        let mut projects: BTreeMap<ProjectId, (BTreeMap<&'static str, u64>, Vec<String>)> =
            BTreeMap::new();
        for finding in self.findings.values() {
            if projects.len() >= LOGGED_PROJECTS && !projects.contains_key(&finding.project) {
                continue;
            }
            let (kinds, ids) = projects.entry(finding.project).or_default();
            *kinds.entry(finding.kind.name()).or_default() += finding.count;
            if ids.len() < LOGGED_IDS {
                ids.push(finding.public_id());
            }
        }
        projects.into_iter().map(|(project, (kinds, ids))| (project, kinds, ids)).collect()
    }
}

#[cfg(test)]
mod tests {
    use outrider_model::EventId;

    use super::*;

    fn finding(milli: i64, project: u64) -> Finding {
        let at = Timestamp(milli * 1_000);
        Finding {
            kind: Discrepancy::MissingDelivery,
            project: ProjectId::new(Timestamp(0), project),
            id: EventId::new(at, 1).0,
            count: 2,
        }
    }

    fn audited(until: i64, findings: Vec<Finding>) -> Audited {
        Audited { until: uuid_bound(Timestamp(until * 1_000)), projects: BTreeMap::new(), findings }
    }

    #[test]
    fn what_is_audited_again_replaces_what_was_known_of_it() {
        let mut book = Book::default();
        book.enter(Uuid::nil(), &audited(100, (1..10).map(|milli| finding(milli, 1)).collect()));
        assert_eq!(book.count(Discrepancy::MissingDelivery), 18);
        book.enter(uuid_bound(Timestamp(4_000)), &audited(7, vec![finding(5, 2)]));
        assert_eq!(
            (book.count(Discrepancy::MissingDelivery), book.count(Discrepancy::DoubledDelivery)),
            (14, 0)
        );
        assert_eq!(book.projects().len(), 2);
        assert_eq!(book.projects()[0].2.len(), LOGGED_IDS);
        book.enter(Uuid::nil(), &audited(100, Vec::new()));
        assert!(book.is_empty());
    }

    #[test]
    fn all_findings_are_looked_at_again_in_turn() {
        let mut book = Book::default();
        book.enter(Uuid::nil(), &audited(100, (1..=5).map(|milli| finding(milli, 1)).collect()));
        let turns: Vec<usize> = (0..4).map(|_| book.due_again(2).len()).collect();
        assert_eq!(turns, [2, 2, 1, 2]);
        let (from, until) = book.due_again(2)[0];
        assert_eq!((time_of(from), time_of(until)), (Timestamp(3_000), Timestamp(4_000)));
    }

    #[test]
    fn the_book_is_bounded() {
        let mut book = Book::default();
        for begin in 0..20 {
            let findings = (0..1_000).map(|index| finding(begin * 1_000 + index, 1)).collect();
            book.enter(
                uuid_bound(Timestamp(begin * 1_000_000)),
                &audited((begin + 1) * 1_000, findings),
            );
        }
        assert_eq!(book.count(Discrepancy::MissingDelivery), 2 * KEPT as u64);
    }
}
