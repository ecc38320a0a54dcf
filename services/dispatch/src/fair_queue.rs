//! The order in which published events go into commits and jobs go to the queue. Organizations take
//! turns by the weight that each has had, and so do the projects within an organization. Callers
//! with few items go with the next batch, however much others have waiting.
//!
//! This is start-time fair queueing (Goyal, Vin and Cheng, 1996): a member that returns begins
//! where the others are now, or where its own last turn ended.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    hash::Hash,
};

use outrider_model::{OrganizationId, ProjectId};
use uuid::Uuid;

/// How many idle members, whose last turn ended later than the current time, are remembered before
/// the obsolete ones are removed, and the most that are remembered after that.
const RESTED: usize = 1_024;

/// The owner of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    pub organization: OrganizationId,
    pub project: ProjectId,
}

impl Owner {
    /// One owner for all items, which then keep the order in which they arrived.
    pub const ANYBODY: Self =
        Self { organization: OrganizationId(Uuid::nil()), project: ProjectId(Uuid::nil()) };
}

/// Waiting items by owner. It is not bounded; the code that fills it must bound it.
pub struct FairQueue<T> {
    organizations: Level<OrganizationId, Level<ProjectId, VecDeque<(u64, T)>>>,
    weight: u64,
}

impl<T> FairQueue<T> {
    pub fn new() -> Self {
        Self { organizations: Level::default(), weight: 0 }
    }

    /// Adds an item that weighs 1 or more.
    pub fn push(&mut self, owner: Owner, weight: usize, value: T) {
        let weight = u64::try_from(weight).unwrap_or(u64::MAX).max(1);
        self.weight = self.weight.saturating_add(weight);
        self.organizations
            .member(owner.organization)
            .member(owner.project)
            .push_back((weight, value));
    }

    /// Takes the next item in turn, with its organization.
    pub fn pop(&mut self) -> Option<(OrganizationId, T)> {
        let organization = self.next_organizations().next()?;
        Some((organization, self.pop_of(organization)?))
    }

    /// Takes the next item of this organization.
    pub fn pop_of(&mut self, organization: OrganizationId) -> Option<T> {
        let projects = self.organizations.waiting(organization)?;
        let project = projects.in_turn().next()?;
        let groups = projects.waiting(project)?;
        let (weight, value) = groups.pop_front()?;
        let last = groups.is_empty();
        projects.served(project, weight, last);
        let last = projects.is_empty();
        self.organizations.served(organization, weight, last);
        self.weight -= weight;
        Some(value)
    }

    /// Returns the organizations that have waiting items, in turn.
    pub fn next_organizations(&self) -> impl Iterator<Item = OrganizationId> {
        self.organizations.in_turn()
    }

    pub fn weight(&self) -> u64 {
        self.weight
    }

    pub fn is_empty(&self) -> bool {
        self.organizations.is_empty()
    }
}

/// Members that take turns, each with its waiting items.
struct Level<K, V> {
    /// When the latest turn began, measured in the weight that a member had had by then.
    now: u64,
    /// Orders turns that begin at the same time by arrival.
    arrivals: u64,
    members: HashMap<K, Member<V>>,
    order: BTreeSet<(u64, u64, K)>,
    /// When the turns of idle members ended.
    rested: HashMap<K, u64>,
}

struct Member<V> {
    turn: (u64, u64),
    waiting: V,
}

impl<K, V> Default for Level<K, V> {
    fn default() -> Self {
        Self {
            now: 0,
            arrivals: 0,
            members: HashMap::new(),
            order: BTreeSet::new(),
            rested: HashMap::new(),
        }
    }
}

impl<K: Copy + Ord + Hash, V: Default> Level<K, V> {
    fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Returns the waiting items of a member, which has a turn from now on.
    fn member(&mut self, key: K) -> &mut V {
        let Self { now, arrivals, members, order, rested } = self;
        let member = members.entry(key).or_insert_with(|| {
            let begin = rested.remove(&key).map_or(*now, |end| end.max(*now));
            *arrivals += 1;
            order.insert((begin, *arrivals, key));
            Member { turn: (begin, *arrivals), waiting: V::default() }
        });
        &mut member.waiting
    }

    fn in_turn(&self) -> impl Iterator<Item = K> {
        self.order.iter().map(|(_, _, key)| *key)
    }

    fn waiting(&mut self, key: K) -> Option<&mut V> {
        Some(&mut self.members.get_mut(&key)?.waiting)
    }

    /// Records that the member had its turn. `last` says that nothing of it waits any more.
    fn served(&mut self, key: K, weight: u64, last: bool) {
        let Some(member) = self.members.get_mut(&key) else { return };
        let (begin, arrival) = member.turn;
        self.order.remove(&(begin, arrival, key));
        // A member that goes before its turn does not change the turns of the others.
        self.now = self.order.first().map_or(begin, |(first, ..)| begin.min(*first)).max(self.now);
        let end = begin.saturating_add(weight);
        if last {
            self.members.remove(&key);
            self.rest(key, end);
        } else {
            self.arrivals += 1;
            member.turn = (end, self.arrivals);
            self.order.insert((end, self.arrivals, key));
        }
    }

    fn rest(&mut self, key: K, end: u64) {
        if self.members.is_empty() {
            // All members are equal again.
            self.rested.clear();
            self.now = 0;
            return;
        }
        self.rested.insert(key, end);
        if self.rested.len() > RESTED {
            let now = self.now;
            self.rested.retain(|_, end| *end > now);
            if self.rested.len() > RESTED {
                self.rested.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use outrider_model::Timestamp;

    use super::*;

    fn owner(organization: u64, project: u64) -> Owner {
        Owner {
            organization: OrganizationId::new(Timestamp(0), organization),
            project: ProjectId::new(Timestamp(0), project),
        }
    }

    /// Makes a queue of groups, each with its organization, project and weight.
    fn line(groups: &[(u64, u64, usize)]) -> FairQueue<u64> {
        let mut line = FairQueue::new();
        for (organization, project, weight) in groups {
            line.push(owner(*organization, *project), *weight, *organization);
        }
        line
    }

    fn next(line: &mut FairQueue<u64>) -> Option<u64> {
        line.pop().map(|(_, value)| value)
    }

    #[test]
    fn whoever_wants_little_waits_for_one_turn_of_each_other() {
        let mut line = line(&[(1, 1, 100); 50]);
        for _ in 0..10 {
            assert_eq!(next(&mut line), Some(1));
        }
        line.push(owner(2, 2), 1, 2);
        assert_eq!((next(&mut line), line.weight()), (Some(2), 4_000));
        // It returns repeatedly, and waits for at most one turn of the other.
        let mut turns = Vec::new();
        for _ in 0..40 {
            line.push(owner(2, 2), 1, 2);
            turns.extend([next(&mut line), next(&mut line)]);
        }
        let of_the_second = turns.iter().filter(|turn| **turn == Some(2)).count();
        assert!(of_the_second >= 39, "{turns:?}");
    }

    #[test]
    fn turns_are_counted_by_weight_and_projects_of_an_organization_count_as_one() {
        let mut groups = Vec::new();
        groups.extend([(1, 1, 10); 100]);
        groups.extend((10..60).flat_map(|project| [(2, project, 10); 4]));
        groups.extend([(3, 3, 1); 400]);
        let mut line = line(&groups);
        let mut weights = [0_usize; 4];
        for _ in 0..120 {
            let organization = next(&mut line).expect("all have something waiting") as usize;
            weights[organization] += if organization == 3 { 1 } else { 10 };
        }
        let [_, first, second, third] = weights;
        assert!(first.abs_diff(second) <= 10 && first.abs_diff(third) <= 10, "{weights:?}");
    }

    #[test]
    fn who_has_nothing_waiting_for_a_moment_gains_nothing() {
        let mut line = line(&[(1, 1, 1); 200]);
        line.push(owner(2, 2), 100, 2);
        let mut turns = 0;
        while line.weight() > 100 {
            if next(&mut line) == Some(2) {
                turns += 1;
                line.push(owner(2, 2), 100, 2);
            }
        }
        assert!((2..=4).contains(&turns), "{turns} turns of 100 beside 200 of 1");
    }

    #[test]
    fn groups_of_a_project_keep_their_order_and_nothing_is_kept_of_an_empty_line() {
        let mut line = FairQueue::new();
        for number in 0..10 {
            line.push(owner(1, number % 2), 1, number);
        }
        let even: Vec<u64> =
            std::iter::from_fn(|| next(&mut line)).filter(|number| number % 2 == 0).collect();
        assert_eq!(even, [0, 2, 4, 6, 8]);
        assert_eq!(
            (line.weight(), line.organizations.now, line.organizations.rested.len()),
            (0, 0, 0)
        );
    }

    #[test]
    fn what_is_remembered_of_those_who_rest_is_bounded() {
        let mut line = FairQueue::new();
        for organization in 0..10_000 {
            line.push(owner(u64::MAX >> 4, 0), 1, ());
            line.push(owner(organization, 0), 1, ());
            line.pop();
        }
        while !line.is_empty() {
            line.pop();
            assert!(line.organizations.rested.len() <= RESTED);
        }
    }
}
