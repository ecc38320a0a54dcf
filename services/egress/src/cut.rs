//! Cuts connections that a later policy refuses.

use std::{net::SocketAddr, sync::Arc};

use outrider_model::address::{Judged, Policy};
use tokio::sync::watch;

/// Resolves when a policy that is newer than the connection refuses it.
pub(crate) async fn refused(
    mut policies: watch::Receiver<Arc<Policy>>,
    host: String,
    target: SocketAddr,
) {
    while policies.changed().await.is_ok() {
        let policy = Arc::clone(&policies.borrow_and_update());
        if let Some(rule) = rule(&policy, &host, target) {
            tracing::info!(
                host,
                port = target.port(),
                rule,
                "a connection is cut: the egress policy refuses it now"
            );
            return;
        }
    }
    // No other policy can come into force any more.
    std::future::pending().await
}

/// Returns the rule by which a policy refuses a host with this address.
fn rule(policy: &Policy, host: &str, target: SocketAddr) -> Option<&'static str> {
    let judged = match policy.judge(host, target.port()) {
        Ok(Judged::Name(name)) => {
            policy.judge_address(Some(&name), target.ip(), target.port()).map(drop)
        }
        Ok(Judged::Address(..)) => Ok(()),
        Err(refused) => Err(refused),
    };
    judged.err().map(|refused| refused.rule)
}
