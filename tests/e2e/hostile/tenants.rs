//! Tenants whose endpoints hang.

use std::time::Duration;

use anyhow::Result;
use outrider_tests::{Limits, attacker::TO_GROW};
use tokio::time::sleep;

use super::foe::Foe;

/// The time until most hanging requests have timed out.
const ROUND: Duration = Duration::from_secs(29);

/// Creates pairs with the highest limits, each a second before the requests of the last one time
/// out.
pub async fn repeated_pairs(foe: Foe) -> Result<()> {
    foe.tenant.hanging(1, 2, Limits::HIGHEST, foe.of(550, 200), 100).await?;
    foe.hit();
    sleep(ROUND).await;
    Ok(())
}

/// Creates forty endpoints with the default limits.
pub async fn many(foe: Foe) -> Result<()> {
    foe.tenant.hanging(1, foe.of(40, 20), Limits::DEFAULT, foe.of(100, 40), 100).await?;
    foe.hit();
    sleep(ROUND).await;
    Ok(())
}

/// Makes endpoints hang with large payloads.
pub async fn payloads(foe: Foe) -> Result<()> {
    foe.tenant.hanging(1, 5, Limits::DEFAULT, foe.of(70, 20), foe.of(1_000_000, 300_000)).await?;
    foe.hit();
    sleep(ROUND).await;
    Ok(())
}

/// Creates a hundred endpoints in twenty projects.
pub async fn projects(foe: Foe) -> Result<()> {
    foe.at_once(foe.of(20, 5), |foe, _| async move {
        foe.tenant.hanging(1, foe.of(5, 2), Limits::DEFAULT, foe.of(100, 10), 100).await?;
        foe.hit();
        sleep(ROUND).await;
        Ok(())
    })
    .await
}

/// Creates a pair that answers until its windows have grown, and then hangs.
pub async fn turncoats(foe: Foe) -> Result<()> {
    let events = foe.of(TO_GROW, 100);
    let pair = foe.tenant.faithful_pair(events).await?;
    foe.hit();
    foe.tenant.turn(&pair, events).await?;
    sleep(ROUND).await;
    Ok(())
}
