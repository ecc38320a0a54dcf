//! Waiting for the announcement of a change, in one process.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Wakes those who wait. An announcement that comes while nobody waits is kept for the next who
/// does, so that a caller who waits, looks, and waits again misses none; several are kept as one.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    state: Mutex<State>,
    notify: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: usize,
    missed: bool,
}

impl Changes {
    /// A change was announced.
    pub(crate) fn announce(&self) {
        let mut state = self.locked();
        if state.waiting == 0 {
            state.missed = true;
        } else {
            self.notify.notify_waiters();
        }
    }

    /// Returns at the next announcement, or at once when one was missed. May be dropped.
    pub(crate) async fn announced(&self) {
        let notified = self.notify.notified();
        let _waiting = {
            let mut state = self.locked();
            if std::mem::take(&mut state.missed) {
                return;
            }
            state.waiting += 1;
            Waiting(self)
        };
        // `notify_waiters` wakes every `Notified` that exists, polled or not: this one was made
        // before the lock was taken.
        notified.await;
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts one who waits, until it is dropped.
struct Waiting<'a>(&'a Changes);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.locked().waiting -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_missed_announcement_is_kept_once() {
        let changes = Changes::default();
        changes.announce();
        changes.announce();
        timeout(Duration::from_secs(20), changes.announced()).await.expect("kept");
        assert!(timeout(Duration::from_millis(50), changes.announced()).await.is_err());
        // The one that gave up waits no longer: the next announcement is kept again.
        changes.announce();
        timeout(Duration::from_secs(20), changes.announced()).await.expect("kept");
    }

    #[tokio::test]
    async fn all_who_wait_are_woken() {
        let changes = Arc::new(Changes::default());
        let waiters: Vec<_> = (0..3)
            .map(|_| {
                let changes = Arc::clone(&changes);
                tokio::spawn(async move { changes.announced().await })
            })
            .collect();
        while changes.locked().waiting < 3 {
            tokio::task::yield_now().await;
        }
        changes.announce();
        for waiter in waiters {
            timeout(Duration::from_secs(20), waiter).await.expect("woken").unwrap();
        }
    }
}
