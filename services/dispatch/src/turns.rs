//! In which order endpoints are fed, and how much at a time: projects take turns, and within a project its endpoints.

use std::collections::{BTreeMap, VecDeque};

use outrider_model::{EndpointId, ProjectId};

/// Rows of one endpoint in one go: the first are on their way while the next are claimed, and others have their turn between.
const TURN: u32 = 128;

/// An endpoint with due deliveries and room in its window.
pub struct Candidate {
    pub endpoint: EndpointId,
    pub project: ProjectId,
    pub window: u32,
    pub room: u32,
    pub epoch: i64,
}

/// Who waits to be fed: projects by turns, and within a project its endpoints.
pub struct Turns {
    projects: VecDeque<(ProjectId, VecDeque<Candidate>)>,
}

impl Turns {
    pub fn of(candidates: Vec<Candidate>) -> Self {
        let mut projects: BTreeMap<ProjectId, VecDeque<Candidate>> = BTreeMap::new();
        for candidate in candidates {
            projects.entry(candidate.project).or_default().push_back(candidate);
        }
        Self { projects: projects.into_iter().collect() }
    }

    /// The next batch of at most so many rows: each endpoint at most once, and a turn of it.
    pub fn next(&mut self, limit: u32) -> Option<Vec<(Candidate, u32)>> {
        let mut batch = Vec::new();
        let mut left = limit;
        while let Some((project, mut waiting)) = self.projects.pop_front() {
            let Some(candidate) = waiting.pop_front() else { continue };
            let want = candidate.room.min(TURN).min(limit);
            if want > left {
                waiting.push_front(candidate);
                self.projects.push_front((project, waiting));
                break;
            }
            left -= want;
            batch.push((candidate, want));
            self.projects.push_back((project, waiting));
        }
        (!batch.is_empty()).then_some(batch)
    }

    /// An endpoint that got what it wanted waits for its next turn, while it has room.
    pub fn again(&mut self, candidate: Candidate, got: u32) {
        let candidate = Candidate { room: candidate.room - got, ..candidate };
        if candidate.room == 0 {
            return;
        }
        match self.projects.iter_mut().find(|(project, _)| *project == candidate.project) {
            Some((_, waiting)) => waiting.push_back(candidate),
            None => self.projects.push_back((candidate.project, VecDeque::from([candidate]))),
        }
    }
}

#[cfg(test)]
mod tests {
    use outrider_model::Timestamp;

    use super::*;

    fn candidate(project: u64, endpoint: u64, room: u32) -> Candidate {
        Candidate {
            endpoint: EndpointId::new(Timestamp(0), endpoint),
            project: ProjectId::new(Timestamp(0), project),
            window: 64,
            room,
            epoch: 1,
        }
    }

    fn wants(turns: &mut Turns, limit: u32) -> Option<Vec<u32>> {
        Some(turns.next(limit)?.into_iter().map(|(_, want)| want).collect())
    }

    #[test]
    fn projects_take_turns_and_batches_stay_within_the_limit() {
        let mut candidates: Vec<Candidate> = (0..100).map(|n| candidate(1, n, 64)).collect();
        candidates.push(candidate(2, 1_000, 64));
        let mut turns = Turns::of(candidates);
        let first = turns.next(128).expect("a batch");
        let second = ProjectId::new(Timestamp(0), 2);
        assert!(first.iter().any(|(candidate, _)| candidate.project == second), "the small project is in the first batch");
        let mut fed = first.len();
        while let Some(wants) = wants(&mut turns, 128) {
            assert!(wants.iter().sum::<u32>() <= 128);
            fed += wants.len();
        }
        assert_eq!(fed, 101);
    }

    #[test]
    fn much_room_is_used_in_turns_and_a_room_above_the_limit_is_cut_to_it() {
        let mut turns = Turns::of(vec![candidate(1, 1, 300), candidate(1, 2, 1)]);
        let mut batches = Vec::new();
        while let Some(batch) = turns.next(1_000) {
            batches.push(batch.iter().map(|(_, want)| *want).collect::<Vec<_>>());
            for (candidate, got) in batch {
                turns.again(candidate, got);
            }
        }
        assert_eq!(batches, [vec![128, 1], vec![128], vec![44]]);
        let mut turns = Turns::of(vec![candidate(1, 1, 1_000), candidate(1, 2, 1)]);
        assert_eq!([wants(&mut turns, 10), wants(&mut turns, 10), wants(&mut turns, 10)], [Some(vec![10]), Some(vec![1]), None]);
        assert_eq!(wants(&mut Turns::of(Vec::new()), 10), None);
    }
}
