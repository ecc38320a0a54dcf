//! Processes and servers that end, freeze, forget or refuse while events are published: what was
//! accepted is delivered, and no more than was in flight is sent twice. See docs/testing.md.
//!
//! `OUTRIDER_TEST_SEED` makes other data and moments, `OUTRIDER_TEST_FAULT_SECONDS` is how long a
//! case goes on that can go on.

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

/// Tests named after the fault: where it happens, and what does it.
macro_rules! cases {
    ($($name:ident: $setting:expr, $fault:expr;)+) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            $crate::faults::trial::run(stringify!($name), $setting, $fault).await;
        }
    )+};
}
use cases;
