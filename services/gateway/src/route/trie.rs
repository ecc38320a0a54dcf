//! The tree of path segments in which the path of a request is looked up.

use std::collections::{BTreeMap, BTreeSet, HashMap, btree_map::Entry};

use crate::route::template::{Segment, Template};

/// A node: what may follow, and what ends here. Values are indices into the caller's list of
/// routes.
#[derive(Debug, Default)]
pub(crate) struct Trie {
    literals: HashMap<String, Trie>,
    one: Option<Box<Trie>>,
    ends: Ends,
    rests: Ends,
}

/// By verb (empty for none), then by HTTP method.
type Ends = HashMap<String, BTreeMap<String, usize>>;

impl Trie {
    /// Adds a route. Returns the index of the other route if the same method and form of path is
    /// taken.
    pub(crate) fn insert(
        &mut self,
        template: &Template,
        method: &str,
        index: usize,
    ) -> Result<(), usize> {
        let mut node = self;
        let mut rest = false;
        for segment in &template.segments {
            match segment {
                Segment::Literal(text) => node = node.literals.entry(text.clone()).or_default(),
                Segment::One => node = node.one.get_or_insert_default(),
                Segment::Rest => rest = true,
            }
        }
        let ends = if rest { &mut node.rests } else { &mut node.ends };
        match ends.entry(template.verb.clone()).or_default().entry(method.to_owned()) {
            Entry::Vacant(entry) => {
                entry.insert(index);
                Ok(())
            }
            Entry::Occupied(entry) => Err(*entry.get()),
        }
    }

    /// Finds the most literal route for a path and method. Adds the methods that the path has to
    /// `allowed`.
    pub(crate) fn find<'t>(
        &'t self,
        segments: &[impl AsRef<str>],
        verb: &str,
        method: &str,
        allowed: &mut BTreeSet<&'t str>,
    ) -> Option<usize> {
        if let [first, others @ ..] = segments {
            let literal = self
                .literals
                .get(first.as_ref())
                .and_then(|node| node.find(others, verb, method, allowed));
            let wild = || self.one.as_ref().filter(|_| !first.as_ref().is_empty());
            if let Some(index) =
                literal.or_else(|| wild().and_then(|node| node.find(others, verb, method, allowed)))
            {
                return Some(index);
            }
        } else if let Some(index) = ended(&self.ends, verb, method, allowed) {
            return Some(index);
        }
        ended(&self.rests, verb, method, allowed)
    }
}

fn ended<'t>(
    ends: &'t Ends,
    verb: &str,
    method: &str,
    allowed: &mut BTreeSet<&'t str>,
) -> Option<usize> {
    let methods = ends.get(verb)?;
    allowed.extend(methods.keys().map(String::as_str));
    methods.get(method).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trie(routes: &[(&str, &str)]) -> Trie {
        let mut trie = Trie::default();
        for (index, (method, path)) in routes.iter().enumerate() {
            trie.insert(&Template::parse(path).unwrap(), method, index).unwrap();
        }
        trie
    }

    #[test]
    fn literals_go_before_wildcards_unless_only_the_wildcard_has_the_method() {
        let trie = trie(&[
            ("GET", "/a/{x}"),
            ("GET", "/a/b"),
            ("POST", "/a/{x}"),
            ("GET", "/a/{x}:v"),
            ("GET", "/f/{x=**}"),
        ]);
        let find = |path: &[&str], verb: &str, method: &str| {
            let mut allowed = BTreeSet::new();
            let found = trie.find(path, verb, method, &mut allowed);
            (found, allowed.into_iter().collect::<Vec<_>>())
        };
        assert_eq!(find(&["a", "b"], "", "GET").0, Some(1));
        assert_eq!(find(&["a", "c"], "", "GET").0, Some(0));
        assert_eq!(find(&["a", "b"], "", "POST").0, Some(2));
        assert_eq!(find(&["a", "b"], "v", "GET").0, Some(3));
        assert_eq!(find(&["a", "b"], "", "PUT"), (None, vec!["GET", "POST"]));
        assert_eq!(find(&["a", ""], "", "GET"), (None, vec![]));
        assert_eq!(find(&["f"], "", "GET").0, Some(4));
        assert_eq!(find(&["f", "1", "2"], "", "GET").0, Some(4));
        assert_eq!(find(&["a"], "", "GET"), (None, vec![]));
    }

    #[test]
    fn the_same_shape_conflicts() {
        let mut trie = trie(&[("GET", "/a/{x}")]);
        assert_eq!(trie.insert(&Template::parse("/a/{y}").unwrap(), "GET", 9), Err(0));
        assert_eq!(trie.insert(&Template::parse("/a/{y}").unwrap(), "PUT", 9), Ok(()));
    }
}
