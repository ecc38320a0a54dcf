//! The rule by which a total is divided, and the counts that it needs: no waiting, no clock, no
//! metrics.

use std::collections::{HashMap, hash_map::Entry};

use outrider_model::{OrganizationId, ProjectId, principal::Actor};

use super::Holder;

/// Whose share a request for more exceeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Level {
    /// The API key's.
    Key,
    /// The project's, all of its keys together.
    Project,
    /// The organisation's, all of its projects together.
    Organization,
    /// Nobody's: all together hold the total.
    Server,
}

impl Level {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Key, Self::Project, Self::Organization, Self::Server];

    /// As metrics name it.
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

/// Parts of what is left to an organisation, to a project and to a key. Together they give a
/// project that is alone half of the total, and a key that is alone a quarter.
const ORGANIZATION: (usize, usize) = (3, 4);
const PROJECT: (usize, usize) = (2, 3);
const KEY: (usize, usize) = (1, 2);

/// Who has a count: a holder, or those that it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    Organization(OrganizationId),
    Project(OrganizationId, Option<ProjectId>),
    Key(OrganizationId, Option<ProjectId>, Actor),
}

/// How a total is held. There is an entry for whoever holds something, and none for others.
#[derive(Debug)]
pub struct Counts {
    total: usize,
    /// What every limit is at least, as long as so much is left.
    least: usize,
    held: usize,
    held_by: HashMap<Place, usize>,
    /// Callers that wait for something to be given back.
    pub waiting: usize,
}

impl Counts {
    pub fn new(total: usize, least: usize) -> Self {
        Self { total, least: least.max(1), held: 0, held_by: HashMap::new(), waiting: 0 }
    }

    pub fn held(&self) -> usize {
        self.held
    }

    /// What a key may hold while nobody else holds anything.
    pub fn most(&self) -> usize {
        [ORGANIZATION, PROJECT, KEY]
            .into_iter()
            .fold(self.total, |left, part| self.limit(left, part))
    }

    /// Whether the holder may have so much more; if not, the widest share that this would exceed.
    pub fn check(&self, holder: &Holder, more: usize) -> Result<(), Level> {
        let [organization, project, key] = places(holder).map(|place| self.held_at(place));
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
        // Without overflow, and exact.
        let share = left / of * part + left % of * part / of;
        share.max(self.least).min(left)
    }

    /// The holder has so much more, whatever its share.
    pub fn add(&mut self, holder: &Holder, more: usize) {
        if more == 0 {
            return;
        }
        self.held += more;
        for place in places(holder) {
            *self.held_by.entry(place).or_insert(0) += more;
        }
    }

    /// The holder gives back so much of what it has.
    pub fn remove(&mut self, holder: &Holder, less: usize) {
        if less == 0 {
            return;
        }
        self.held -= less;
        for place in places(holder) {
            if let Entry::Occupied(mut held) = self.held_by.entry(place) {
                *held.get_mut() -= less;
                if *held.get() == 0 {
                    held.remove();
                }
            }
        }
    }

    pub fn held_at(&self, place: Place) -> usize {
        self.held_by.get(&place).copied().unwrap_or(0)
    }

    #[cfg(test)]
    pub fn entries(&self) -> usize {
        self.held_by.len()
    }
}

/// The widest first.
pub fn places(holder: &Holder) -> [Place; 3] {
    let Holder { organization, project, actor } = *holder;
    [
        Place::Organization(organization),
        Place::Project(organization, project),
        Place::Key(organization, project, actor),
    ]
}
