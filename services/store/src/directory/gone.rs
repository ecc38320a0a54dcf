//! Projects that were deleted, until what is cached of them is forgotten.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use outrider_model::ProjectId;

/// Between two times that the cache is gone through: it may have 100,000 entries.
const EVERY: Duration = Duration::from_secs(10);
/// Projects that are noted. With more, the entries of all projects are forgotten: they are loaded
/// again when they are used.
const MOST: usize = 10_000;

#[derive(Default)]
pub(super) struct Gone(Mutex<Noted>);

#[derive(Default)]
struct Noted {
    projects: HashSet<ProjectId>,
    too_many: bool,
    forgotten: Option<Instant>,
}

/// The projects of which entries are to be forgotten.
pub(super) enum Projects {
    All,
    These(HashSet<ProjectId>),
}

impl Gone {
    /// Notes a project that was deleted.
    pub fn add(&self, project: ProjectId) {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if noted.projects.len() < MOST {
            noted.projects.insert(project);
        } else {
            noted.too_many = true;
        }
    }

    /// All that were noted, when there are some and it is time.
    pub fn due(&self, now: Instant) -> Option<Projects> {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let rests = noted.forgotten.is_some_and(|at| now.saturating_duration_since(at) < EVERY);
        if noted.projects.is_empty() || rests {
            return None;
        }
        noted.forgotten = Some(now);
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
        let (gone, start) = (Gone::default(), Instant::now());
        let [first, second, other] = [1, 2, 3].map(|number| ProjectId::new(Timestamp(0), number));
        assert!(gone.due(start).is_none());
        gone.add(first);
        let due = gone.due(start).unwrap();
        assert!(due.has(first) && !due.has(other));
        gone.add(second);
        assert!(gone.due(start + EVERY / 2).is_none());
        let due = gone.due(start + EVERY).unwrap();
        assert!(due.has(second) && !due.has(first));
        assert!(gone.due(start + 2 * EVERY).is_none());
    }

    #[test]
    fn more_than_are_noted_means_all() {
        let gone = Gone::default();
        let project = |number: usize| ProjectId::new(Timestamp(0), u64::try_from(number).unwrap());
        (0..=MOST).for_each(|number| gone.add(project(number)));
        assert!(gone.due(Instant::now()).unwrap().has(project(MOST + 7)));
    }
}
