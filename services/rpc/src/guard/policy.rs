//! The policy of destinations that a process has in force. Admin, which judges what is saved, and
//! the egress, which judges what is dialed, hold the same one, so that a new policy is everywhere
//! at once.

use std::sync::Arc;

use outrider_model::address::Policy;
use tokio::sync::watch;

/// The policy in force. Clones share it.
#[derive(Debug, Clone)]
pub struct PolicyInForce(watch::Sender<Arc<Policy>>);

impl PolicyInForce {
    /// What it is now. It must not be kept: a later one may refuse what this one permits.
    #[must_use]
    pub fn get(&self) -> Arc<Policy> {
        Arc::clone(&self.0.borrow())
    }

    /// Puts another policy in force. Whether it is another.
    pub fn replace(&self, policy: Policy) -> bool {
        self.0.send_if_modified(|current| {
            let differs = **current != policy;
            if differs {
                *current = Arc::new(policy);
            }
            differs
        })
    }

    /// Tells of every later policy.
    #[must_use]
    pub fn follow(&self) -> watch::Receiver<Arc<Policy>> {
        self.0.subscribe()
    }
}

impl From<Policy> for PolicyInForce {
    fn from(policy: Policy) -> Self {
        Self(watch::Sender::new(Arc::new(policy)))
    }
}

impl Default for PolicyInForce {
    fn default() -> Self {
        Policy::default().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_who_share_it_see_a_new_policy_and_the_same_one_is_no_news() {
        let policy = PolicyInForce::default();
        let (other, mut follower) = (policy.clone(), policy.follow());
        assert!(!policy.replace(Policy::default()) && !follower.has_changed().unwrap());
        assert!(policy.replace(Policy { allow_loopback: true, ..Policy::default() }));
        assert!(other.get().allow_loopback);
        assert!(follower.has_changed().unwrap() && follower.borrow_and_update().allow_loopback);
    }
}
