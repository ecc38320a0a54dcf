//! Processes and servers end, freeze, lose data or refuse work while events are published. Accepted
//! events are delivered, and no more than was in flight is sent twice. See docs/testing.md.
//!
//! `OUTRIDER_TEST_SEED` changes data and moments. `OUTRIDER_TEST_FAULT_SECONDS` is the length of
//! cases whose length can vary.

mod clocks;
mod disks;
mod files;
mod fronts;
mod kills;
pub mod ledger;
mod overload;
mod points;
mod postgres;
mod redis;
mod terminations;
pub mod trial;
mod verdict;
mod zombie;

/// Tests named after the fault: its place and its cause.
macro_rules! cases {
    ($($name:ident: $setting:expr, $fault:expr;)+) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            $crate::faults::trial::run(stringify!($name), $setting, $fault).await;
        }
    )+};
}
use cases;
