//! Conditions that scenarios under load wait for.

use std::time::Duration;

use anyhow::Result;
use outrider_tests::wait_until;

use crate::scenario::Scenario;

/// Waits until no delivery of the project is pending.
pub async fn all_settled(scenario: &Scenario, bound: Duration) -> Result<()> {
    let pending = scenario.path("deliveries?status=DELIVERY_STATUS_PENDING&page_size=1");
    wait_until("no delivery is pending", bound, async || {
        let page = scenario.rest.get(&pending).await.ok()?;
        page["deliveries"].as_array().is_none_or(Vec::is_empty).then_some(())
    })
    .await
}
