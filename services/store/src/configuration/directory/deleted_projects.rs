//! Deleted projects, until their cached entries are removed.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use outrider_model::ProjectId;

/// Minimum time between two passes over the cache, which may have 100,000 entries.
const EVERY: Duration = Duration::from_secs(10);
/// Maximum number of projects to note. With more, the entries of all projects are removed, and
/// loaded again when they are used.
const MOST: usize = 10_000;

#[derive(Default)]
pub(super) struct DeletedProjects(Mutex<Noted>);

#[derive(Default)]
struct Noted {
    projects: HashSet<ProjectId>,
    too_many: bool,
    removed_at: Option<Instant>,
}

/// The projects whose entries must be removed.
pub(super) enum Projects {
    All,
    These(HashSet<ProjectId>),
}

impl DeletedProjects {
    /// Notes a deleted project.
    pub fn add(&self, project: ProjectId) {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if noted.projects.len() < MOST {
            noted.projects.insert(project);
        } else {
            noted.too_many = true;
        }
    }

    /// All noted projects, if there are any and the last pass is long enough ago.
    pub fn due(&self, now: Instant) -> Option<Projects> {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let rests = noted.removed_at.is_some_and(|at| now.saturating_duration_since(at) < EVERY);
        if noted.projects.is_empty() || rests {
            return None;
        }
        noted.removed_at = Some(now);
        let projects = std::mem::take(&mut noted.projects);
        Some(if std::mem::take(&mut noted.too_many) {
            Projects::All
        } else {
            Projects::These(projects)
        })
    }
}

impl Projects {
    pub fn has(&self, project: ProjectId) -> bool {
        match self {
            Self::All => true,
            Self::These(projects) => projects.contains(&project),
        }
    }
}

#[cfg(test)]
mod tests {
    use outrider_model::Timestamp;

    use super::*;

    #[test]
    fn projects_are_forgotten_together_and_at_a_pace() {
        let (deleted, start) = (DeletedProjects::default(), Instant::now());
        let [first, second, other] = [1, 2, 3].map(|number| ProjectId::new(Timestamp(0), number));
        assert!(deleted.due(start).is_none());
        deleted.add(first);
        let due = deleted.due(start).unwrap();
        assert!(due.has(first) && !due.has(other));
        deleted.add(second);
        assert!(deleted.due(start + EVERY / 2).is_none());
        let due = deleted.due(start + EVERY).unwrap();
        assert!(due.has(second) && !due.has(first));
        assert!(deleted.due(start + 2 * EVERY).is_none());
    }

    #[test]
    fn more_than_are_noted_means_all() {
        let deleted = DeletedProjects::default();
        let project = |number: usize| ProjectId::new(Timestamp(0), u64::try_from(number).unwrap());
        (0..=MOST).for_each(|number| deleted.add(project(number)));
        assert!(deleted.due(Instant::now()).unwrap().has(project(MOST + 7)));
    }
}
