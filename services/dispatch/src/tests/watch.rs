//! What the watch asks the ledger, and when.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use outrider_model::Timestamp;

use super::{Bench, ledger::Booked};
use crate::{Options, chores::QueueWatch, shared::Shared};

/// Runs a watch over a recording ledger for this long.
async fn watched(ledger: Booked, time: Duration) -> Arc<Booked> {
    let bench = Bench::still(Options::default()).await;
    let ledger = Arc::new(ledger);
    let shared = Shared { ledger: Arc::clone(&ledger) as _, ..bench.dispatch.shared.clone() };
    let watch = QueueWatch::new(shared, bench.dispatch.handoff.clone());
    tokio::time::pause();
    assert!(tokio::time::timeout(time, watch.run()).await.is_err(), "it watches for ever");
    ledger
}

/// If the clock jumps by more days than there are partitions, nothing is committed until the next
/// preparation.
#[tokio::test]
async fn partitions_are_looked_after_all_the_time() {
    let ledger = watched(Booked::default(), Duration::from_secs(60)).await;
    assert!(ledger.prepared.load(Ordering::SeqCst) >= 6);
}

/// On PostgreSQL, a search scans all rows that ended since the oldest transaction began. So the
/// frequent searches cover only new rows, and those at the start and now and then cover everything.
#[tokio::test]
async fn what_was_looked_through_is_looked_through_again_in_part() {
    const REACH: i64 = 300_000_000;
    let ledger = watched(
        Booked { failing: AtomicU64::new(4), ..Booked::default() },
        Duration::from_secs(60),
    )
    .await;
    let looks = std::mem::take(&mut *ledger.looks.lock().unwrap());
    let (older, recent): (Vec<_>, Vec<_>) =
        looks.into_iter().partition(|(after, _)| *after == Timestamp(0));
    assert!(older.len() >= 12 && recent.len() >= 12, "{} and {}", older.len(), recent.len());
    // The first searches were not answered, so the next one covers their range.
    let began = recent[0].0;
    assert!(recent[..3].iter().all(|(after, _)| *after == began), "{recent:?}");
    let overlap = |looks: &[(Timestamp, Timestamp)]| looks[0].1.0 - looks[1].0.0;
    assert!(
        recent[2..].windows(2).map(overlap).all(|micros| (REACH..2 * REACH).contains(&micros)),
        "{recent:?}"
    );
    // The two ranges meet, and the other begins where this one began.
    assert!(older[0].1 >= began);
}
