//! Max-min fair shares of one bounded resource on the way to endpoints: between organizations,
//! between the projects of an organization, and between the endpoints of a project.
//!
//! The rule at each of the three levels: *after a grant, nobody holds more than what is left for
//! the others.* With a total of 8,192 and no other holder, an organization may hold 4,096, each of
//! its projects 2,048 of these, and each endpoint of such a project 1,024. A second holder of the
//! same kind finds half of the rest. Grants are never revoked, so this headroom lets a new holder
//! begin at once. If little is left, those who hold little are served first.

use std::collections::{HashMap, hash_map::Entry};

use crate::{EndpointId, OrganizationId, ProjectId};

/// The smallest useful total. With less, the rule grants nothing.
pub const SMALLEST_TOTAL: u32 = 8;

/// An endpoint with its project and organization, for which a part of a resource is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Recipient {
    pub organization: OrganizationId,
    pub project: ProjectId,
    pub endpoint: EndpointId,
}

/// The amounts held at each level on the way to one endpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    pub organization: u32,
    pub project: u32,
    pub endpoint: u32,
}

/// The accounts of a resource. Only those who hold something have an entry, so memory is bounded.
#[derive(Debug)]
pub struct FairShares {
    total: u32,
    used: u32,
    organizations: HashMap<OrganizationId, Organization>,
}

#[derive(Debug)]
struct Organization {
    used: u32,
    projects: HashMap<ProjectId, Project>,
}

#[derive(Debug)]
struct Project {
    used: u32,
    endpoints: HashMap<EndpointId, u32>,
}

/// Whether a holder of `used` may take `amount` of the rest `left`. A holder of nothing may take
/// the last.
fn fits(used: u32, amount: u32, left: u32) -> bool {
    amount <= left && (used == 0 || u64::from(used) + 2 * u64::from(amount) <= u64::from(left))
}

/// Returns what is left to the members of a holder of `used`, if `left` is left to all. Any member
/// of one who holds nothing may take the last.
fn left_within(used: u32, left: u32) -> u32 {
    if used == 0 { left } else { left.saturating_sub(used) / 2 }
}

/// The rule: whether an endpoint with these amounts on each level may take `amount` of the rest
/// `left`.
#[must_use]
pub fn may_take(held: Held, amount: u32, left: u32) -> bool {
    let of_organization = left_within(held.organization, left);
    let of_project = left_within(held.project, of_organization);
    fits(held.organization, amount, left)
        && fits(held.project, amount, of_organization)
        && fits(held.endpoint, amount, of_project)
}

/// Returns how many grants of 1 an endpoint with these amounts on each level may get of the rest
/// `left`.
#[must_use]
pub fn room(held: Held, left: u32) -> u32 {
    if !may_take(held, 1, left) {
        return 0;
    }
    // After the first grant, all levels shrink alike.
    let left = left - 1;
    let of_organization = left_within(held.organization + 1, left);
    let of_project = left_within(held.project + 1, of_organization);
    let levels =
        [(held.organization, left), (held.project, of_organization), (held.endpoint, of_project)];
    1 + levels.into_iter().map(|(used, left)| left.saturating_sub(used + 1) / 2).min().unwrap_or(0)
}

impl FairShares {
    /// Returns empty accounts. A total below [`SMALLEST_TOTAL`] is raised to it.
    #[must_use]
    pub fn new(total: u32) -> Self {
        Self { total: total.max(SMALLEST_TOTAL), used: 0, organizations: HashMap::new() }
    }

    /// Returns the maximum of one grant, which is what a lone endpoint can have.
    #[must_use]
    pub fn largest_amount(&self) -> u32 {
        self.total / 8
    }

    /// Returns the sum of all amounts.
    #[must_use]
    pub fn used(&self) -> u32 {
        self.used
    }

    /// Returns the rest.
    #[must_use]
    pub fn left(&self) -> u32 {
        self.total - self.used
    }

    /// Returns the amounts held on the way to this endpoint.
    #[must_use]
    pub fn held(&self, who: &Recipient) -> Held {
        let Some(organization) = self.organizations.get(&who.organization) else {
            return Held::default();
        };
        let project = organization.projects.get(&who.project);
        Held {
            organization: organization.used,
            project: project.map_or(0, |project| project.used),
            endpoint: project
                .and_then(|project| project.endpoints.get(&who.endpoint))
                .copied()
                .unwrap_or(0),
        }
    }

    /// Whether the endpoint may take this much more.
    #[must_use]
    pub fn may_take(&self, who: &Recipient, amount: u32) -> bool {
        may_take(self.held(who), amount, self.left())
    }

    /// Returns how many grants of 1 the endpoint may get if nobody else gets any.
    #[must_use]
    pub fn room(&self, who: &Recipient) -> u32 {
        room(self.held(who), self.left())
    }

    /// Takes `amount` for the endpoint if the rule permits it.
    #[must_use]
    pub fn try_take(&mut self, who: &Recipient, amount: u32) -> bool {
        let may = self.may_take(who, amount);
        if may && amount > 0 {
            self.used += amount;
            let new = || Organization { used: 0, projects: HashMap::new() };
            let organization = self.organizations.entry(who.organization).or_insert_with(new);
            organization.used += amount;
            let new = || Project { used: 0, endpoints: HashMap::new() };
            let project = organization.projects.entry(who.project).or_insert_with(new);
            project.used += amount;
            *project.endpoints.entry(who.endpoint).or_default() += amount;
        }
        may
    }

    /// Gives back an amount. More than the endpoint holds counts as all of it.
    pub fn give_back(&mut self, who: &Recipient, amount: u32) {
        let Entry::Occupied(mut organization) = self.organizations.entry(who.organization) else {
            return;
        };
        let Entry::Occupied(mut project) = organization.get_mut().projects.entry(who.project)
        else {
            return;
        };
        let Entry::Occupied(mut endpoint) = project.get_mut().endpoints.entry(who.endpoint) else {
            return;
        };
        let amount = amount.min(*endpoint.get());
        *endpoint.get_mut() -= amount;
        if *endpoint.get() == 0 {
            endpoint.remove();
        }
        project.get_mut().used -= amount;
        if project.get().used == 0 {
            project.remove();
        }
        organization.get_mut().used -= amount;
        if organization.get().used == 0 {
            organization.remove();
        }
        self.used -= amount;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Timestamp;

    fn who(organization: u64, project: u64, endpoint: u64) -> Recipient {
        Recipient {
            organization: OrganizationId::new(Timestamp(0), organization),
            project: ProjectId::new(Timestamp(0), organization << 32 | project),
            endpoint: EndpointId::new(Timestamp(0), endpoint),
        }
    }

    /// How many single grants it gets before it is refused.
    fn fill(shares: &mut FairShares, who: Recipient) -> u32 {
        let mut granted = 0;
        while shares.try_take(&who, 1) {
            granted += 1;
        }
        granted
    }

    #[test]
    fn nobody_holds_more_than_what_is_left_to_others() {
        let mut shares = FairShares::new(8_192);
        let of_project: Vec<_> =
            (0..4).map(|endpoint| fill(&mut shares, who(1, 1, endpoint))).collect();
        assert_eq!(of_project, [1_024, 512, 256, 128]);
        assert_eq!(
            fill(&mut shares, who(1, 2, 0)),
            544,
            "another project finds a quarter of the rest"
        );
        let other = fill(&mut shares, who(2, 1, 0));
        assert!(other >= 700, "another organization is as if it were alone with the rest: {other}");
    }

    #[test]
    fn a_flood_of_projects_counts_as_its_organization() {
        let mut shares = FairShares::new(8_192);
        for project in 0..100 {
            for endpoint in 0..100 {
                fill(&mut shares, who(1, project, endpoint));
            }
        }
        assert!(shares.used() <= 4_096, "{}", shares.used());
        assert!(fill(&mut shares, who(2, 1, 1)) >= 500);
    }

    #[test]
    fn when_little_is_left_those_who_hold_nothing_are_served() {
        let mut shares = FairShares::new(64);
        for organization in 0..4 {
            fill(&mut shares, who(organization, 1, 1));
        }
        let mut newcomers = 0;
        while shares.try_take(&who(100 + newcomers, 1, 1), 1) {
            newcomers += 1;
        }
        assert!(newcomers >= 10, "{newcomers}");
        assert!(!shares.may_take(&who(0, 1, 1), 1));
    }

    #[test]
    fn room_is_what_is_granted_one_by_one() {
        let mut shares = FairShares::new(1_000);
        for (organization, project, endpoint) in
            [(1, 1, 1), (1, 1, 2), (1, 2, 1), (2, 1, 1), (2, 1, 1), (3, 1, 1), (4, 1, 1)]
        {
            let who = who(organization, project, endpoint);
            let room = shares.room(&who);
            assert_eq!(fill(&mut shares, who), room, "{who:?}");
        }
    }

    #[test]
    fn the_smallest_total_grants_one_and_the_largest_amount_is_granted() {
        let mut shares = FairShares::new(0);
        assert!(shares.try_take(&who(1, 1, 1), 1));
        let mut shares = FairShares::new(1_000);
        assert!(shares.try_take(&who(1, 1, 1), shares.largest_amount()));
        assert_eq!(
            shares.held(&who(1, 1, 1)),
            Held { organization: 125, project: 125, endpoint: 125 }
        );
        shares.give_back(&who(1, 1, 1), u32::MAX);
        assert_eq!((shares.used(), shares.organizations.len()), (0, 0));
    }

    proptest! {
        #[test]
        fn books_add_up_and_newcomers_find_room(
            steps in prop::collection::vec((0..3_u64, 0..3_u64, 0..3_u64, 1..40_u32,
                any::<bool>()), 1..400)
        ) {
            let mut shares = FairShares::new(4_096);
            let mut granted: Vec<(Recipient, u32)> = Vec::new();
            for (organization, project, endpoint, amount, take) in steps {
                let who = who(organization, project, endpoint);
                if take && shares.try_take(&who, amount) {
                    let held = shares.held(&who);
                    prop_assert!(held.endpoint <= held.project);
                        prop_assert!(held.project <= held.organization);
                    prop_assert!(held.organization == amount || held.organization <= shares.left());
                    granted.push((who, amount));
                } else if !take && let Some((who, amount)) = granted.pop() {
                    shares.give_back(&who, amount);
                }
                prop_assert_eq!(shares.used(), granted.iter().map(|(_,
                    amount)| amount).sum::<u32>());
            }
            // Three organizations leave an eighth; a newcomer may have a quarter of it.
            prop_assert!(shares.may_take(&who(9, 9, 9), 4_096 / 8 / 8));
            for (who, amount) in granted {
                shares.give_back(&who, amount);
            }
            prop_assert!(shares.used() == 0 && shares.organizations.is_empty());
        }
    }
}
