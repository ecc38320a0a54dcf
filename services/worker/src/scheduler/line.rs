//! The waiting jobs in the order of their turns, and the accounts of the resource.
//!
//! The ordered sets only contain endpoints that can continue. An endpoint whose window is used up
//! is removed until it has room again. So a grant costs a few lookups, regardless of the number of
//! waiting jobs.

use std::collections::{BTreeSet, HashMap, VecDeque};

use outrider_model::{
    EndpointId, FairShares, OrganizationId, ProjectId, Recipient, Windows, shares,
};

use super::amount::{Amount, News};

/// Maximum number of organizations, projects of one, and endpoints of one that are considered for a
/// grant. Those that hold least come first, so more than the first is only considered if the shares
/// of their parts differ, or if it asks for more than it may have.
const LOOKED_AT: [usize; 3] = [64, 16, 8];

/// A line of jobs.
pub(super) struct Line<J> {
    shares: FairShares,
    windows: Option<Windows>,
    waiting: usize,
    closed: bool,
    endpoints: HashMap<EndpointId, Waiting<J>>,
    /// For each project, its ready endpoints, ordered by the amount that they hold.
    projects: HashMap<ProjectId, BTreeSet<(u32, EndpointId)>>,
    /// For each organization, its ready projects, ordered by the amount that they hold.
    organizations: HashMap<OrganizationId, BTreeSet<(u32, ProjectId)>>,
    /// Organizations with a ready project, ordered by the amount that they hold.
    ready: BTreeSet<(u32, OrganizationId)>,
}

/// The waiting jobs of an endpoint in their order. Never empty.
struct Waiting<J> {
    who: Recipient,
    jobs: VecDeque<(Amount, J)>,
}

impl<J> Line<J> {
    pub(super) fn new(total: u32, windows: Option<Windows>) -> Self {
        Self {
            shares: FairShares::new(total),
            windows,
            waiting: 0,
            closed: false,
            endpoints: HashMap::new(),
            projects: HashMap::new(),
            organizations: HashMap::new(),
            ready: BTreeSet::new(),
        }
    }

    pub(super) fn largest_amount(&self) -> u32 {
        self.shares.largest_amount()
    }

    pub(super) fn used(&self) -> u32 {
        self.shares.used()
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    pub(super) fn windows(&self) -> (usize, usize) {
        self.windows.as_ref().map_or((0, 0), Windows::count)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Takes a part for a new job, unless jobs of its endpoint wait before it. Returns the amount
    /// taken.
    pub(super) fn try_take(&mut self, who: &Recipient, amount: Amount) -> Option<u32> {
        let first = !self.endpoints.contains_key(&who.endpoint);
        let amount = self.amount(who.endpoint, amount);
        let may = first && self.has_window(who.endpoint, self.shares.held(who).endpoint);
        (may && self.take(who, amount)).then_some(amount)
    }

    /// Returns the amount that a job of this endpoint takes now. Most jobs always take the same,
    /// which needs no look at the endpoint.
    fn amount(&self, endpoint: EndpointId, amount: Amount) -> u32 {
        let Amount { answering, silent } = amount;
        let answers = silent == answering
            || self.windows.as_ref().is_none_or(|windows| windows.answers(endpoint));
        if answers { answering } else { silent }
    }

    /// Lets a job wait behind the others of its endpoint.
    pub(super) fn push(&mut self, who: Recipient, amount: Amount, job: J) {
        self.waiting += 1;
        let waiting = self
            .endpoints
            .entry(who.endpoint)
            .or_insert_with(|| Waiting { who, jobs: VecDeque::new() });
        waiting.jobs.push_back((amount, job));
        let held = self.shares.held(&who);
        self.reorder(&who, held, held);
    }

    /// Removes and returns the next job that may continue, with its amount, unless that is more
    /// than `most`.
    pub(super) fn pop(&mut self, most: u32) -> Option<(Recipient, u32, J)> {
        let (who, amount) = self.candidate().filter(|(_, amount)| *amount <= most)?;
        let waiting = self.endpoints.get_mut(&who.endpoint)?;
        let (_, job) = waiting.jobs.pop_front()?;
        if waiting.jobs.is_empty() {
            self.endpoints.remove(&who.endpoint);
        }
        self.waiting -= 1;
        // Reorders too, because the endpoint may have no waiting jobs now.
        self.take(&who, amount).then_some((who, amount, job))
    }

    /// Removes and returns the jobs that `is` selects.
    pub(super) fn remove(&mut self, is: impl Fn(&J) -> bool) -> Vec<J> {
        let mut removed = Vec::new();
        let mut emptied = Vec::new();
        for waiting in self.endpoints.values_mut() {
            let (out, kept): (VecDeque<_>, VecDeque<_>) =
                std::mem::take(&mut waiting.jobs).into_iter().partition(|(_, job)| is(job));
            waiting.jobs = kept;
            removed.extend(out.into_iter().map(|(_, job)| job));
            if waiting.jobs.is_empty() {
                emptied.push(waiting.who);
            }
        }
        self.waiting -= removed.len();
        for who in emptied {
            self.endpoints.remove(&who.endpoint);
            let held = self.shares.held(&who);
            self.reorder(&who, held, held);
        }
        removed
    }

    /// Returns the endpoints with waiting jobs.
    pub(super) fn endpoints(&self) -> Vec<EndpointId> {
        self.endpoints.keys().copied().collect()
    }

    /// Removes and returns the waiting jobs of an endpoint.
    pub(super) fn remove_of(&mut self, endpoint: EndpointId) -> Vec<J> {
        let Some(Waiting { who, jobs }) = self.endpoints.remove(&endpoint) else {
            return Vec::new();
        };
        self.waiting -= jobs.len();
        let held = self.shares.held(&who);
        self.reorder(&who, held, held);
        jobs.into_iter().map(|(_, job)| job).collect()
    }

    /// Gives a part back, and updates the endpoint's window.
    pub(super) fn give_back(&mut self, who: &Recipient, amount: u32, news: Option<News>) {
        let before = self.shares.held(who);
        self.shares.give_back(who, amount);
        if let (Some(windows), Some(News { heard, most, at })) = (&mut self.windows, news) {
            windows.hear(who.endpoint, heard, most, at);
        }
        self.reorder(who, before, self.shares.held(who));
    }

    /// Accepts no more jobs, and returns those that wait.
    pub(super) fn close(&mut self) -> Vec<J> {
        self.closed = true;
        self.waiting = 0;
        self.projects.clear();
        self.organizations.clear();
        self.ready.clear();
        self.endpoints.drain().flat_map(|(_, waiting)| waiting.jobs).map(|(_, job)| job).collect()
    }

    fn has_window(&self, endpoint: EndpointId, held: u32) -> bool {
        self.windows.as_ref().is_none_or(|windows| held < windows.size(endpoint))
    }

    fn take(&mut self, who: &Recipient, amount: u32) -> bool {
        let before = self.shares.held(who);
        let taken = self.shares.try_take(who, amount);
        self.reorder(who, before, self.shares.held(who));
        taken
    }

    /// Returns the first recipient whose share permits the amount of its first job. At each level,
    /// the one that holds least comes first.
    fn candidate(&self) -> Option<(Recipient, u32)> {
        let left = self.shares.left();
        let able = self.ready.iter().take_while(|(used, _)| *used < left);
        let projects = able
            .take(LOOKED_AT[0])
            .filter_map(|(_, organization)| self.organizations.get(organization));
        projects
            .flat_map(|projects| projects.iter().take(LOOKED_AT[1]))
            .find_map(|(_, project)| self.of_project(*project, left))
    }

    fn of_project(&self, project: ProjectId, left: u32) -> Option<(Recipient, u32)> {
        // If one was refused, another that holds no less and asks for no less is refused too.
        let mut refused = u32::MAX;
        for (_, endpoint) in self.projects.get(&project)?.iter().take(LOOKED_AT[2]) {
            let Some(waiting) = self.endpoints.get(endpoint) else { continue };
            let Some((amount, _)) = waiting.jobs.front() else { continue };
            let amount = self.amount(*endpoint, *amount);
            if amount < refused && shares::may_take(self.shares.held(&waiting.who), amount, left) {
                return Some((waiting.who, amount));
            }
            refused = refused.min(amount);
        }
        None
    }

    /// Updates the position of an endpoint in the order, after its amount changed from `before` to
    /// `after`, or its waiting jobs changed.
    fn reorder(&mut self, who: &Recipient, before: shares::Held, after: shares::Held) {
        if self.waiting == 0 && self.ready.is_empty() {
            return;
        }
        let Recipient { organization, project, endpoint } = *who;
        let waits =
            self.endpoints.contains_key(&endpoint) && self.has_window(endpoint, after.endpoint);
        let endpoints = self.projects.entry(project).or_default();
        endpoints.remove(&(before.endpoint, endpoint));
        if waits {
            endpoints.insert((after.endpoint, endpoint));
        }
        let waits = !endpoints.is_empty();
        if !waits {
            self.projects.remove(&project);
        }
        let projects = self.organizations.entry(organization).or_default();
        projects.remove(&(before.project, project));
        if waits {
            projects.insert((after.project, project));
        }
        let waits = !projects.is_empty();
        if !waits {
            self.organizations.remove(&organization);
        }
        self.ready.remove(&(before.organization, organization));
        if waits {
            self.ready.insert((after.organization, organization));
        }
    }
}
