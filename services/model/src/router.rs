//! Routes events to endpoints.

use std::collections::HashMap;

use crate::{EndpointId, EventTypePattern, Subscription, SubscriptionId};

/// The compiled subscriptions of a project. Matching costs a lookup per part of the type,
/// regardless of the number of subscriptions.
#[derive(Debug, Default)]
pub struct Router {
    all: Vec<Entry>,
    exact: HashMap<String, Vec<Entry>>,
    under: HashMap<String, Vec<Entry>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    endpoint: EndpointId,
    subscription: SubscriptionId,
}

/// An endpoint that an event goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    pub endpoint: EndpointId,
    /// All matching subscriptions, in the order of their ids.
    pub subscriptions: Vec<SubscriptionId>,
}

impl Router {
    /// Compiles subscriptions. Ids are ordered by time, so the lowest is the oldest.
    #[must_use]
    pub fn new<'a>(subscriptions: impl IntoIterator<Item = &'a Subscription>) -> Self {
        let mut router = Self::default();
        for subscription in subscriptions {
            let entry =
                Entry { endpoint: subscription.fixed.endpoint, subscription: subscription.id };
            for pattern in &subscription.spec.event_types {
                match pattern {
                    EventTypePattern::All => router.all.push(entry),
                    EventTypePattern::Exactly(name) => {
                        router.exact.entry(name.to_string()).or_default().push(entry)
                    }
                    EventTypePattern::Under(name) => {
                        router.under.entry(name.to_string()).or_default().push(entry)
                    }
                }
            }
        }
        router
    }

    /// Returns one route per endpoint with a matching subscription, in the order of the endpoints'
    /// ids.
    #[must_use]
    pub fn route(&self, event_type: &str) -> Vec<Route> {
        let prefixes =
            event_type.match_indices('.').filter_map(|(dot, _)| self.under.get(&event_type[..dot]));
        let mut entries: Vec<Entry> = self
            .all
            .iter()
            .chain(self.exact.get(event_type).into_iter().chain(prefixes).flatten())
            .copied()
            .collect();
        entries.sort_unstable();
        entries.dedup();
        let mut routes: Vec<Route> = Vec::with_capacity(entries.len());
        for Entry { endpoint, subscription } in entries {
            match routes.last_mut() {
                Some(route) if route.endpoint == endpoint => route.subscriptions.push(subscription),
                _ => routes.push(Route { endpoint, subscriptions: vec![subscription] }),
            }
        }
        routes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{ProjectId, SubscriptionFixed, SubscriptionSpec, Timestamp};

    fn subscription(id: u64, endpoint: u64, patterns: &[&str]) -> Subscription {
        let now = Timestamp(0);
        let fixed = SubscriptionFixed {
            project: ProjectId::new(now, 1),
            endpoint: EndpointId::new(now, endpoint),
        };
        let event_types = patterns.iter().map(|pattern| pattern.parse().unwrap()).collect();
        let spec = SubscriptionSpec { name: String::new(), event_types };
        Subscription::new(SubscriptionId::new(now, id), fixed, spec, now)
    }

    #[test]
    fn an_endpoint_is_routed_to_once_and_all_matches_are_named_oldest_first() {
        let subscriptions = [
            subscription(3, 1, &["*", "a.b"]),
            subscription(2, 1, &["a.*"]),
            subscription(4, 2, &["b"]),
            subscription(5, 3, &["a.b"]),
        ];
        let routes = Router::new(&subscriptions).route("a.b");
        assert_eq!(routes.len(), 2);
        assert_eq!(routes[0].subscriptions, [subscriptions[1].id, subscriptions[0].id]);
        assert_eq!(routes[1].endpoint, subscriptions[3].fixed.endpoint);
        assert!(Router::new(&subscriptions[2..]).route("c").is_empty());
    }

    proptest! {
        #[test]
        fn agrees_with_matching_one_by_one(
            patterns in prop::collection::vec(
                prop::collection::vec("(\\*|[ab](\\.[ab]){0,2}(\\.\\*)?)", 1..3),
                0..8,
            ),
            event_type in "[ab](\\.[ab]){0,3}",
        ) {
            let subscriptions: Vec<_> = patterns
                .iter()
                .enumerate()
                .map(|(i, p)| subscription(i as u64 + 1, i as u64 % 3,
                    &p.iter().map(String::as_str).collect::<Vec<_>>()))
                .collect();
            let mut expected: Vec<_> = subscriptions
                .iter()
                .filter(|s| s.spec.event_types.iter().any(|pattern| pattern.matches(&event_type)))
                .map(|s| (s.fixed.endpoint, s.id))
                .collect();
            expected.sort_unstable();
            let routed: Vec<_> = Router::new(&subscriptions)
                .route(&event_type)
                .into_iter()
                .flat_map(|route| route.subscriptions.into_iter().map(move |id| (route.endpoint,
                    id)))
                .collect();
            prop_assert_eq!(routed, expected);
        }
    }
}
