//! The edges of commits and acknowledgements at which the fault suite ends a process. One list, so
//! that a test can go through all of it.
//!
//! Without the feature `on`, [`pass`] is empty and nothing is linked; with it, a release build is
//! refused. A point must never change what a process does other than by ending it.

#[cfg(all(feature = "on", not(debug_assertions)))]
compile_error!("fail points are for debug builds: a release must not have them");

/// Writes the list.
macro_rules! points {
    ($($(#[doc = $doc:literal])* $point:ident = $role:literal, $name:literal;)*) => {
        /// A place that a process passes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Point {$($(#[doc = $doc])* $point,)*}

        impl Point {
            /// Every place.
            pub const ALL: &[Self] = &[$(Self::$point,)*];

            /// What `OUTRIDER_FAIL_POINT` calls it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$point => concat!($role, ".", $name),)*
                }
            }

            /// The role whose process passes it.
            #[must_use]
            pub const fn role(self) -> &'static str {
                match self {
                    $(Self::$point => $role,)*
                }
            }
        }
    };
}

points! {
    /// Events are valid; dispatch was not called.
    BeforeAccept = "ingest", "before_accept";
    /// Dispatch has answered; the caller has not been.
    AfterAccept = "ingest", "after_accept";
    /// A batch of events is about to be committed.
    BeforeCommit = "dispatch", "before_commit";
    /// SQLite: all is written, nothing is committed.
    BeforeSqliteCommit = "dispatch", "before_sqlite_commit";
    /// SQLite: it is committed, nobody was answered.
    AfterSqliteCommit = "dispatch", "after_sqlite_commit";
    /// A batch of events is committed; nobody was answered, nothing was queued.
    AfterCommit = "dispatch", "after_commit";
    /// Marked jobs are about to be queued.
    BeforeEnqueue = "dispatch", "before_enqueue";
    /// They are queued; what the queue answered was not looked at.
    AfterEnqueue = "dispatch", "after_enqueue";
    /// The queue refused jobs whose rows are marked as queued.
    BeforeUnmark = "dispatch", "before_unmark";
    /// Their marks are taken back.
    AfterUnmark = "dispatch", "after_unmark";
    /// The feeder is about to mark rows as queued.
    BeforeClaim = "dispatch", "before_claim";
    /// It has marked them; their jobs are not queued.
    AfterClaim = "dispatch", "after_claim";
    /// It has queued their jobs.
    AfterFeed = "dispatch", "after_feed";
    /// Reports are about to be committed.
    BeforeSettle = "dispatch", "before_settle";
    /// They are committed; the worker was not answered.
    AfterSettle = "dispatch", "after_settle";
    /// Settled jobs are about to be removed from the queue.
    BeforeFinish = "dispatch", "before_finish";
    /// They are removed.
    AfterFinish = "dispatch", "after_finish";
    /// The queue has a new epoch; rows still bear the old one.
    BeforeEpochRepair = "dispatch", "before_epoch_repair";
    /// The rows were put right; the feeder was not woken.
    AfterEpochRepair = "dispatch", "after_epoch_repair";
    /// The queue lacks jobs that it should have; their rows are still marked.
    BeforeLostRepair = "dispatch", "before_lost_repair";
    /// Their marks are taken back; the feeder was not woken.
    AfterLostRepair = "dispatch", "after_lost_repair";
    /// Overdue jobs are still in the queue; their rows are to be looked at later.
    BeforeExtend = "dispatch", "before_extend";
    /// Deliveries of what was deleted are about to be cancelled.
    BeforeCancel = "dispatch", "before_cancel";
    /// They are cancelled.
    AfterCancel = "dispatch", "after_cancel";
    /// Jobs were read; none is in hand.
    AfterRead = "worker", "after_read";
    /// Jobs of a worker that is gone were taken over; none is in hand.
    AfterReclaim = "worker", "after_reclaim";
    /// A request is about to be sent.
    BeforeSend = "worker", "before_send";
    /// It was answered; nothing was reported.
    AfterSend = "worker", "after_send";
    /// Reports are about to go to dispatch.
    BeforeReport = "worker", "before_report";
    /// Dispatch has answered them; the jobs are still in hand.
    AfterReport = "worker", "after_report";
    /// Leases of jobs in hand are about to be renewed.
    BeforeRenew = "worker", "before_renew";
    /// They are renewed.
    AfterRenew = "worker", "after_renew";
    /// An address is about to be dialed.
    BeforeDial = "egress", "before_dial";
    /// It was dialed; the worker has no connection yet.
    AfterDial = "egress", "after_dial";
}

/// Passes a point.
#[inline]
pub fn pass(point: Point) {
    #[cfg(feature = "on")]
    fail::fail_point!(point.name());
    #[cfg(not(feature = "on"))]
    let _ = point;
}

/// Arms what `OUTRIDER_FAIL_POINT` says, `NAME:N`: the process ends by SIGABRT, without unwinding,
/// when it passes the point for the N-th time. Nothing to do without the variable. Errors: another
/// form, or no such point.
#[cfg(feature = "on")]
pub fn arm() -> Result<(), String> {
    use std::sync::atomic::{AtomicU64, Ordering};

    let Ok(text) = std::env::var("OUTRIDER_FAIL_POINT") else { return Ok(()) };
    let wrong = || format!("OUTRIDER_FAIL_POINT is \"{text}\", which is not NAME:N");
    let (name, number) = text.split_once(':').ok_or_else(wrong)?;
    let number: u64 = number.parse().map_err(|_| wrong())?;
    if !Point::ALL.iter().any(|point| point.name() == name) {
        return Err(format!("OUTRIDER_FAIL_POINT names {name}, which is no fail point"));
    }
    let (passed, told) = (AtomicU64::new(0), name.to_owned());
    fail::cfg_callback(name, move || {
        if passed.fetch_add(1, Ordering::SeqCst) + 1 == number {
            eprintln!("fail point {told} was passed {number} times: this process ends");
            std::process::abort();
        }
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_and_begin_with_the_role() {
        let names: HashSet<_> = Point::ALL.iter().map(|point| point.name()).collect();
        assert_eq!(names.len(), Point::ALL.len());
        assert!(Point::ALL.iter().all(|point| point.name().starts_with(point.role())));
    }
}
