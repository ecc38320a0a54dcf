//! The rule that divides a total, and its counts: no waiting, no clock, no metrics.

use std::collections::{HashMap, hash_map::Entry};

use outrider_model::{OrganizationId, ProjectId, principal::Actor};

use crate::holder::Holder;

/// The level whose share a request for more exceeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Level {
    /// The share of the API key.
    Key,
    /// The share of the project, all of its keys together.
    Project,
    /// The share of the organization, all of its projects together.
    Organization,
    /// No share: all callers together hold the total.
    Server,
}

impl Level {
    /// All levels.
    pub const ALL: [Self; 4] = [Self::Key, Self::Project, Self::Organization, Self::Server];

    /// Returns the label in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Project => "project",
            Self::Organization => "organization",
            Self::Server => "server",
        }
    }
}

/// The parts of the rest that an organization, a project and a key may hold. Together they give a
/// lone project half of the total, and a lone key a quarter.
const ORGANIZATION: (usize, usize) = (3, 4);
const PROJECT: (usize, usize) = (2, 3);
const KEY: (usize, usize) = (1, 2);

/// A count of what is held: by a key, a project or an organization.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Account {
    Organization(OrganizationId),
    Project(OrganizationId, Option<ProjectId>),
    Key(OrganizationId, Option<ProjectId>, Actor),
}

/// Counts who holds how much of a total. Only accounts that hold something have an entry.
#[derive(Debug)]
pub struct Counts {
    total: usize,
    /// Minimum of every limit, as long as that much is left.
    least: usize,
    held: usize,
    held_by: HashMap<Account, usize>,
    /// Number of callers that wait for an amount to be given back.
    pub waiting: usize,
}

impl Counts {
    pub fn new(total: usize, least: usize) -> Self {
        Self { total, least: least.max(1), held: 0, held_by: HashMap::new(), waiting: 0 }
    }

    pub fn held(&self) -> usize {
        self.held
    }

    /// Returns what a key may hold while nobody else holds anything.
    pub fn most(&self) -> usize {
        [ORGANIZATION, PROJECT, KEY]
            .into_iter()
            .fold(self.total, |left, part| self.limit(left, part))
    }

    /// Checks whether the holder may have `more`. Fails with the widest share that this would
    /// exceed.
    pub fn check(&self, holder: &Holder, more: usize) -> Result<(), Level> {
        let [organization, project, key] = accounts(holder).map(|account| self.held_at(account));
        let mut left = self.total.saturating_sub(self.held - organization);
        if self.held.saturating_add(more) > self.total {
            return Err(Level::Server);
        }
        // Each level leaves to the next what its other members do not hold of its limit.
        let levels = [
            (Level::Organization, ORGANIZATION, organization, organization - project),
            (Level::Project, PROJECT, project, project - key),
            (Level::Key, KEY, key, 0),
        ];
        for (level, part, held, others) in levels {
            let limit = self.limit(left, part);
            if held.saturating_add(more) > limit {
                return Err(level);
            }
            left = limit.saturating_sub(others);
        }
        Ok(())
    }

    fn limit(&self, left: usize, (part, of): (usize, usize)) -> usize {
        // Exact, and without overflow.
        let share = left / of * part + left % of * part / of;
        share.max(self.least).min(left)
    }

    /// Adds an amount to the holder, whatever its share.
    pub fn add(&mut self, holder: &Holder, more: usize) {
        if more == 0 {
            return;
        }
        self.held += more;
        for account in accounts(holder) {
            *self.held_by.entry(account).or_insert(0) += more;
        }
    }

    /// Removes an amount that the holder gives back.
    pub fn remove(&mut self, holder: &Holder, less: usize) {
        if less == 0 {
            return;
        }
        self.held -= less;
        for account in accounts(holder) {
            if let Entry::Occupied(mut held) = self.held_by.entry(account) {
                *held.get_mut() -= less;
                if *held.get() == 0 {
                    held.remove();
                }
            }
        }
    }

    pub fn held_at(&self, account: Account) -> usize {
        self.held_by.get(&account).copied().unwrap_or(0)
    }

    #[cfg(test)]
    pub fn entries(&self) -> usize {
        self.held_by.len()
    }
}

/// Returns the accounts that count for a holder, the widest first.
pub fn accounts(holder: &Holder) -> [Account; 3] {
    let Holder { organization, project, actor } = *holder;
    [
        Account::Organization(organization),
        Account::Project(organization, project),
        Account::Key(organization, project, actor),
    ]
}
