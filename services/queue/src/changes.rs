//! Announces changes to those who wait for them in one process.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Wakes callers that wait for a change. If nobody waits, the announcement is kept for the next
/// caller that does, so a caller that waits, looks and waits again misses none. Several
/// announcements are kept as one.
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
    /// Announces a change.
    pub(crate) fn announce(&self) {
        let mut state = self.locked();
        if state.waiting == 0 {
            state.missed = true;
        } else {
            self.notify.notify_waiters();
        }
    }

    /// Returns at the next announcement, or at once if one was missed. The future may be dropped.
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
        // `notify_waiters` wakes every `Notified` that exists, even if it was not polled. This one
        // was created before the lock was taken.
        notified.await;
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts one waiting caller until it is dropped.
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
        // The caller that gave up no longer waits, so the next announcement is kept again.
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
