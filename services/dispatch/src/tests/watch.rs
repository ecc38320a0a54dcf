//! What the watch asks of the ledger, and when.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::{Bench, ledger::Booked};
use crate::{Options, Shared, watch::Watch};

/// A watch over a ledger that books, after so long.
async fn watched(ledger: Booked, time: Duration) -> Arc<Booked> {
    let bench = Bench::still(Options::default()).await;
    let ledger = Arc::new(ledger);
    let shared = Shared { ledger: Arc::clone(&ledger) as _, ..bench.dispatch.shared.clone() };
    let watch = Watch::new(shared, bench.dispatch.handoff.clone());
    tokio::time::pause();
    assert!(tokio::time::timeout(time, watch.run()).await.is_err(), "it watches for ever");
    ledger
}

/// After a jump of the clock by more days than there are partitions nothing is committed until then.
#[tokio::test]
async fn partitions_are_looked_after_all_the_time() {
    let ledger = watched(Booked::default(), Duration::from_secs(60)).await;
    assert!(ledger.prepared.load(Ordering::SeqCst) >= 6);
}
