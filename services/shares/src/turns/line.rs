//! The line of callers that wait for their turn, in the order in which they get it.

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::{
    count::{Account, Counts, Level, accounts},
    holder::Holder,
};

/// A unique number of a node or of a waiter.
type Number = u64;

/// The parent of the organizations. Their children are projects, whose children are keys.
const ROOT: Number = 0;

/// The waiting callers. Each organization, project and key with a waiting caller has a node.
///
/// Among the children of one node, the one that holds least goes first. Among those that hold the
/// same, the one goes first whose last turn, or else whose arrival, was earliest.
#[derive(Debug)]
pub(super) struct Line<W> {
    last: Number,
    nodes: HashMap<Account, Node<W>>,
    /// Nodes in order, grouped by parent.
    order: BTreeMap<Rank, Account>,
}

/// The position of a node among the children of its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    parent: Number,
    held: usize,
    /// Number at the last turn, or else at the arrival.
    since: Number,
}

#[derive(Debug)]
struct Node<W> {
    number: Number,
    rank: Rank,
    holder: Holder,
    /// Number of callers that wait at this node and below.
    waiting: usize,
    /// Waiters of a key, the next one in front.
    waiters: VecDeque<(Number, W)>,
}

impl<W> Line<W> {
    pub fn new() -> Self {
        Self { last: ROOT, nodes: HashMap::new(), order: BTreeMap::new() }
    }

    fn number(&mut self) -> Number {
        self.last += 1;
        self.last
    }

    /// Adds a waiter. Returns the number by which it can leave.
    pub fn join(&mut self, holder: Holder, counts: &Counts, waiter: W) -> Number {
        let mut parent = ROOT;
        for account in accounts(&holder) {
            if !self.nodes.contains_key(&account) {
                let (number, since) = (self.number(), self.number());
                let rank = Rank { parent, held: counts.held_at(account), since };
                let node = Node { number, rank, holder, waiting: 0, waiters: VecDeque::new() };
                self.nodes.insert(account, node);
                self.order.insert(rank, account);
            }
            if let Some(node) = self.nodes.get_mut(&account) {
                node.waiting += 1;
                parent = node.number;
            }
        }
        let number = self.number();
        let [.., key] = accounts(&holder);
        if let Some(node) = self.nodes.get_mut(&key) {
            node.waiters.push_back((number, waiter));
        }
        number
    }

    /// Removes a waiter, if it still waits.
    pub fn leave(&mut self, holder: &Holder, number: Number) -> Option<W> {
        let [.., key] = accounts(holder);
        let waiters = &mut self.nodes.get_mut(&key)?.waiters;
        let at = waiters.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        let (_, waiter) = waiters.remove(at)?;
        self.one_less(holder);
        Some(waiter)
    }

    /// Removes and returns the next waiter that may have a slot.
    pub fn next(&mut self, counts: &Counts) -> Option<(Holder, W)> {
        let holder = self.first(counts)?;
        for account in accounts(&holder) {
            let since = self.number();
            self.move_to(account, |rank| Rank { since, ..rank });
        }
        let [.., key] = accounts(&holder);
        let (_, waiter) = self.nodes.get_mut(&key)?.waiters.pop_front()?;
        self.one_less(&holder);
        Some((holder, waiter))
    }

    /// Updates the order after the holder's counts have changed.
    pub fn held_changed(&mut self, holder: &Holder, counts: &Counts) {
        for account in accounts(holder) {
            self.move_to(account, |rank| Rank { held: counts.held_at(account), ..rank });
        }
    }

    /// Returns the first key that may have one more slot.
    fn first(&self, counts: &Counts) -> Option<Holder> {
        for organization in self.children(ROOT) {
            'projects: for project in self.children(organization.number) {
                for key in self.children(project.number) {
                    match counts.check(&key.holder, 1) {
                        Ok(()) => return Some(key.holder),
                        Err(Level::Server) => return None,
                        Err(Level::Organization) => break 'projects,
                        Err(Level::Project) => continue 'projects,
                        Err(Level::Key) => {}
                    }
                }
            }
        }
        None
    }

    /// Returns the children of a node in order.
    fn children(&self, parent: Number) -> impl Iterator<Item = &Node<W>> {
        let from = Rank { parent, held: 0, since: 0 };
        let children = self.order.range(from..).take_while(move |(rank, _)| rank.parent == parent);
        children.filter_map(|(_, account)| self.nodes.get(account))
    }

    fn move_to(&mut self, account: Account, change: impl FnOnce(Rank) -> Rank) {
        let Some(node) = self.nodes.get_mut(&account) else { return };
        self.order.remove(&node.rank);
        node.rank = change(node.rank);
        self.order.insert(node.rank, account);
    }

    fn one_less(&mut self, holder: &Holder) {
        for account in accounts(holder) {
            let Some(node) = self.nodes.get_mut(&account) else { continue };
            node.waiting -= 1;
            if node.waiting == 0 {
                self.order.remove(&node.rank);
                self.nodes.remove(&account);
            }
        }
    }

    #[cfg(test)]
    pub fn entries(&self) -> (usize, usize) {
        (self.nodes.len(), self.order.len())
    }
}
