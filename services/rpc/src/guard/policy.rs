//! The destination policy that is in force in a process. Admin, which checks what is saved, and the
//! egress, which checks what is dialed, share it, so that a new policy takes effect everywhere at
//! once.

use std::sync::Arc;

use outrider_model::address::Policy;
use tokio::sync::watch;

/// The policy in force. Clones share it.
#[derive(Debug, Clone)]
pub struct PolicyInForce(watch::Sender<Arc<Policy>>);

impl PolicyInForce {
    /// Returns the current policy. Do not keep it: a later policy may refuse what this one permits.
    #[must_use]
    pub fn get(&self) -> Arc<Policy> {
        Arc::clone(&self.0.borrow())
    }

    /// Puts a policy in force. Returns whether it differs from the previous one.
    pub fn replace(&self, policy: Policy) -> bool {
        self.0.send_if_modified(|current| {
            let differs = **current != policy;
            if differs {
                *current = Arc::new(policy);
            }
            differs
        })
    }

    /// Returns a receiver of later policies.
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
    fn clones_see_a_new_policy_and_an_equal_one_is_not_announced() {
        let policy = PolicyInForce::default();
        let (other, mut follower) = (policy.clone(), policy.follow());
        assert!(!policy.replace(Policy::default()) && !follower.has_changed().unwrap());
        assert!(policy.replace(Policy { allow_loopback: true, ..Policy::default() }));
        assert!(other.get().allow_loopback);
        assert!(follower.has_changed().unwrap() && follower.borrow_and_update().allow_loopback);
    }
}
