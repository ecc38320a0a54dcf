//! The order in which endpoints are fed, and how much at a time. Organizations take turns, then the
//! projects of an organization, then the endpoints of a project.

use std::collections::{BTreeMap, VecDeque};

use outrider_model::{OrganizationId, ProjectId, Recipient};

use crate::jobs::JobEndpoint;

/// How many rows of one endpoint are claimed at a time. The first are queued while the next are
/// claimed, and others have their turn in between.
const TURN: u32 = 128;

/// An endpoint with due deliveries and room in the window.
#[derive(Debug)]
pub struct Candidate {
    pub who: Recipient,
    /// How many of its jobs the queue takes.
    pub limit: u32,
    /// How many of these are not queued yet.
    pub room: u32,
    pub epoch: i64,
}

impl Candidate {
    pub fn endpoint(&self) -> JobEndpoint {
        JobEndpoint { organization: self.who.organization, limit: self.limit }
    }
}

/// Members that take turns, each with its waiting items.
type Ring<K, V> = VecDeque<(K, V)>;

/// The endpoints that wait to be fed.
pub struct FeedOrder {
    organizations: Ring<OrganizationId, Ring<ProjectId, VecDeque<Candidate>>>,
}

impl FeedOrder {
    pub fn of(candidates: Vec<Candidate>) -> Self {
        let mut organizations: BTreeMap<OrganizationId, BTreeMap<ProjectId, VecDeque<Candidate>>> =
            BTreeMap::new();
        for candidate in candidates {
            let projects = organizations.entry(candidate.who.organization).or_default();
            projects.entry(candidate.who.project).or_default().push_back(candidate);
        }
        let ring = |(id, projects): (_, BTreeMap<_, _>)| (id, projects.into_iter().collect());
        Self { organizations: organizations.into_iter().map(ring).collect() }
    }

    /// Returns the next batch of at most `limit` rows. It has each endpoint at most once, with one
    /// turn.
    pub fn next(&mut self, limit: u32) -> Option<Vec<(Candidate, u32)>> {
        let mut batch = Vec::new();
        let mut left = limit;
        while let Some((organization, mut projects)) = self.organizations.pop_front() {
            let Some((project, mut endpoints)) = projects.pop_front() else { continue };
            let Some(candidate) = endpoints.pop_front() else {
                self.organizations.push_front((organization, projects));
                continue;
            };
            let want = candidate.room.min(TURN).min(limit);
            if want > left {
                endpoints.push_front(candidate);
                projects.push_front((project, endpoints));
                self.organizations.push_front((organization, projects));
                break;
            }
            left -= want;
            batch.push((candidate, want));
            projects.push_back((project, endpoints));
            self.organizations.push_back((organization, projects));
        }
        (!batch.is_empty()).then_some(batch)
    }

    /// Puts an endpoint that got all that it asked for in line again, while it has room.
    pub fn again(&mut self, candidate: Candidate, got: u32) {
        let candidate = Candidate { room: candidate.room - got, ..candidate };
        if candidate.room > 0 {
            let projects = member(&mut self.organizations, candidate.who.organization);
            member(projects, candidate.who.project).push_back(candidate);
        }
    }
}

/// Returns the waiting items of a member. A new member has the last turn.
fn member<K: PartialEq, V: Default>(ring: &mut Ring<K, V>, key: K) -> &mut V {
    let index = ring.iter().position(|(known, _)| *known == key).unwrap_or_else(|| {
        ring.push_back((key, V::default()));
        ring.len() - 1
    });
    &mut ring[index].1
}

#[cfg(test)]
mod tests {
    use outrider_model::{EndpointId, Timestamp};

    use super::*;

    fn candidate(organization: u64, project: u64, endpoint: u64, room: u32) -> Candidate {
        let who = Recipient {
            organization: OrganizationId::new(Timestamp(0), organization),
            project: ProjectId::new(Timestamp(0), project),
            endpoint: EndpointId::new(Timestamp(0), endpoint),
        };
        Candidate { who, limit: 64, room, epoch: 1 }
    }

    fn wants(turns: &mut FeedOrder, limit: u32) -> Option<Vec<u32>> {
        Some(turns.next(limit)?.into_iter().map(|(_, want)| want).collect())
    }

    #[test]
    fn organizations_and_projects_take_turns_and_batches_stay_within_the_limit() {
        let mut candidates: Vec<Candidate> =
            (0..100).map(|n| candidate(1, n % 50, n, 64)).collect();
        candidates.push(candidate(1, 1_000, 1_000, 64));
        candidates.push(candidate(2, 2_000, 2_000, 64));
        let mut turns = FeedOrder::of(candidates);
        let first = turns.next(128).expect("a batch");
        let second = OrganizationId::new(Timestamp(0), 2);
        assert!(
            first.iter().any(|(candidate, _)| candidate.who.organization == second),
            "the small one is in the first batch"
        );
        let mut fed = first.len();
        while let Some(wants) = wants(&mut turns, 128) {
            assert!(wants.iter().sum::<u32>() <= 128);
            fed += wants.len();
        }
        assert_eq!(fed, 102);
    }

    #[test]
    fn much_room_is_used_in_turns_and_a_room_above_the_limit_is_cut_to_it() {
        let mut turns = FeedOrder::of(vec![candidate(1, 1, 1, 300), candidate(1, 1, 2, 1)]);
        let mut batches = Vec::new();
        while let Some(batch) = turns.next(1_000) {
            batches.push(batch.iter().map(|(_, want)| *want).collect::<Vec<_>>());
            for (candidate, got) in batch {
                turns.again(candidate, got);
            }
        }
        assert_eq!(batches, [vec![128, 1], vec![128], vec![44]]);
        let mut turns = FeedOrder::of(vec![candidate(1, 1, 1, 1_000), candidate(1, 1, 2, 1)]);
        assert_eq!(
            [wants(&mut turns, 10), wants(&mut turns, 10), wants(&mut turns, 10)],
            [Some(vec![10]), Some(vec![1]), None]
        );
        assert_eq!(wants(&mut FeedOrder::of(Vec::new()), 10), None);
    }
}
