//! The line of those who wait for their turn, in the order in which they go.

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::{
    Holder,
    count::{Counts, Level, Place, places},
};

/// What nobody else has: of a place in the line, or of one who waits.
type Number = u64;

/// The organisations. Their children are projects, and the children of these are keys.
const ROOT: Number = 0;

/// Those who wait. There is a node for each organisation, project and key of somebody who waits,
/// and none for others.
///
/// Among children of one node the one that holds least goes first, and of those that hold as much
/// the one whose last turn, or whose coming, was first.
#[derive(Debug)]
pub(super) struct Line<W> {
    last: Number,
    nodes: HashMap<Place, Node<W>>,
    /// By the number of the parent.
    order: BTreeMap<Rank, Place>,
}

/// Where a node stands among the children of its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    parent: Number,
    held: usize,
    /// From the last turn, or else from the coming.
    since: Number,
}

#[derive(Debug)]
struct Node<W> {
    number: Number,
    rank: Rank,
    holder: Holder,
    /// How many wait here or below.
    waiting: usize,
    /// Those of a key, the first to go in front.
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

    /// One more waits. Gives the number by which it leaves.
    pub fn join(&mut self, holder: Holder, counts: &Counts, waiter: W) -> Number {
        let mut parent = ROOT;
        for place in places(&holder) {
            if !self.nodes.contains_key(&place) {
                let (number, since) = (self.number(), self.number());
                let rank = Rank { parent, held: counts.held_at(place), since };
                let node = Node { number, rank, holder, waiting: 0, waiters: VecDeque::new() };
                self.nodes.insert(place, node);
                self.order.insert(rank, place);
            }
            if let Some(node) = self.nodes.get_mut(&place) {
                node.waiting += 1;
                parent = node.number;
            }
        }
        let number = self.number();
        let [.., key] = places(&holder);
        if let Some(node) = self.nodes.get_mut(&key) {
            node.waiters.push_back((number, waiter));
        }
        number
    }

    /// One gives up, if it still waits.
    pub fn leave(&mut self, holder: &Holder, number: Number) -> Option<W> {
        let [.., key] = places(holder);
        let waiters = &mut self.nodes.get_mut(&key)?.waiters;
        let at = waiters.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        let (_, waiter) = waiters.remove(at)?;
        self.one_less(holder);
        Some(waiter)
    }

    /// The next who may have a place, if there is one. It waits no more.
    pub fn next(&mut self, counts: &Counts) -> Option<(Holder, W)> {
        let holder = self.first(counts)?;
        for place in places(&holder) {
            let since = self.number();
            self.move_to(place, |rank| Rank { since, ..rank });
        }
        let [.., key] = places(&holder);
        let (_, waiter) = self.nodes.get_mut(&key)?.waiters.pop_front()?;
        self.one_less(&holder);
        Some((holder, waiter))
    }

    /// What somebody holds has changed.
    pub fn held_changed(&mut self, holder: &Holder, counts: &Counts) {
        for place in places(holder) {
            self.move_to(place, |rank| Rank { held: counts.held_at(place), ..rank });
        }
    }

    /// The first key of those that may have one more.
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

    /// In the order in which they go.
    fn children(&self, parent: Number) -> impl Iterator<Item = &Node<W>> {
        let from = Rank { parent, held: 0, since: 0 };
        let children = self.order.range(from..).take_while(move |(rank, _)| rank.parent == parent);
        children.filter_map(|(_, place)| self.nodes.get(place))
    }

    fn move_to(&mut self, place: Place, change: impl FnOnce(Rank) -> Rank) {
        let Some(node) = self.nodes.get_mut(&place) else { return };
        self.order.remove(&node.rank);
        node.rank = change(node.rank);
        self.order.insert(node.rank, place);
    }

    fn one_less(&mut self, holder: &Holder) {
        for place in places(holder) {
            let Some(node) = self.nodes.get_mut(&place) else { continue };
            node.waiting -= 1;
            if node.waiting == 0 {
                self.order.remove(&node.rank);
                self.nodes.remove(&place);
            }
        }
    }

    #[cfg(test)]
    pub fn entries(&self) -> (usize, usize) {
        (self.nodes.len(), self.order.len())
    }
}
