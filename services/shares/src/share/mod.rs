//! Amounts of a resource that callers hold.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use outrider_telemetry::catalog::shares::WAITED;
use tokio::sync::Notify;

use crate::{
    count::Counts,
    holder::Holder,
    resource::{Exhausted, Resource, refused, show},
};

/// Pause between two attempts of a waiting caller. Amounts that others give back in the meantime
/// wake it once, not each time.
const PACE: Duration = Duration::from_millis(20);

/// A handle to a bounded resource of this process. It is cheap to clone.
#[derive(Debug, Clone)]
pub struct Shares(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    resource: Resource,
    counts: Mutex<Counts>,
    given_back: Notify,
}

impl Inner {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give_back(&self, holder: &Holder, amount: usize) {
        if amount == 0 {
            return;
        }
        let mut counts = self.counts();
        counts.remove(holder, amount);
        let has_waiters = counts.waiting > 0;
        drop(counts);
        if has_waiters {
            self.given_back.notify_waiters();
        }
    }
}

impl Shares {
    /// Divides a total, and exposes its metrics for as long as a handle exists.
    #[must_use]
    pub fn new(resource: Resource, total: usize) -> Self {
        let counts = Counts::new(total, resource.least);
        let inner =
            Arc::new(Inner { resource, counts: Mutex::new(counts), given_back: Notify::new() });
        let shown = Arc::downgrade(&inner);
        show(resource, total, move || Some(shown.upgrade()?.counts().held()));
        Self(inner)
    }

    /// Returns what all callers together hold.
    #[must_use]
    pub fn held(&self) -> usize {
        self.0.counts().held()
    }

    /// Returns the largest possible share: that of a key while nobody else holds anything.
    #[must_use]
    pub fn most(&self) -> usize {
        self.0.counts().most()
    }

    /// Returns an empty share of this caller.
    #[must_use]
    pub fn share(&self, holder: Holder) -> Share {
        Share { shares: self.clone(), holder, amount: 0 }
    }

    /// Takes a share of this amount, or nothing.
    pub fn take(&self, holder: Holder, amount: usize) -> Result<Share, Exhausted> {
        let mut share = self.share(holder);
        share.grow(amount)?;
        Ok(share)
    }

    /// Like [`Self::take`], but waits until the caller may have the amount. An amount above the
    /// largest share is reduced to it.
    pub async fn wait(&self, holder: Holder, amount: usize) -> Share {
        let mut share = self.share(holder);
        let amount = amount.min(self.most());
        let mut waited = false;
        self.until(|counts| {
            if counts.check(&holder, amount).is_err() {
                if !std::mem::replace(&mut waited, true) {
                    WAITED.with_label_values(&[self.0.resource.name]).inc();
                }
                return None;
            }
            counts.add(&holder, amount);
            Some(())
        })
        .await;
        share.amount = amount;
        share
    }

    /// Waits until the caller may have more. Takes nothing.
    pub async fn room(&self, holder: Holder) {
        self.until(|counts| counts.check(&holder, 1).ok()).await;
    }

    /// Whether the caller may have more.
    #[must_use]
    pub fn has_room(&self, holder: &Holder) -> bool {
        self.0.counts().check(holder, 1).is_ok()
    }

    /// Waits until an attempt succeeds.
    async fn until(&self, mut attempt: impl FnMut(&mut Counts) -> Option<()>) {
        if attempt(&mut self.0.counts()).is_some() {
            return;
        }
        let _waiting = Waiting::begin(&self.0);
        loop {
            let mut given_back = std::pin::pin!(self.0.given_back.notified());
            // From here on, no notification is missed.
            given_back.as_mut().enable();
            if attempt(&mut self.0.counts()).is_some() {
                return;
            }
            given_back.await;
            tokio::time::sleep(PACE).await;
        }
    }
}

/// A waiting caller. It stops waiting when dropped.
struct Waiting<'a>(&'a Inner);

impl<'a> Waiting<'a> {
    fn begin(inner: &'a Inner) -> Self {
        inner.counts().waiting += 1;
        Self(inner)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.counts().waiting -= 1;
    }
}

/// An amount of a resource that a caller holds until the share is dropped.
#[derive(Debug)]
pub struct Share {
    shares: Shares,
    holder: Holder,
    amount: usize,
}

impl Share {
    /// Returns the amount.
    #[must_use]
    pub fn amount(&self) -> usize {
        self.amount
    }

    /// Takes this much more, or nothing.
    pub fn grow(&mut self, more: usize) -> Result<(), Exhausted> {
        if more == 0 {
            return Ok(());
        }
        let mut counts = self.shares.0.counts();
        if let Err(level) = counts.check(&self.holder, more) {
            drop(counts);
            return Err(refused(self.shares.0.resource, level));
        }
        counts.add(&self.holder, more);
        self.amount += more;
        Ok(())
    }

    /// Adds this much regardless of limits, for what is in memory already and must count against
    /// others. The caller bounds how often this happens.
    pub fn exceed(&mut self, more: usize) {
        self.shares.0.counts().add(&self.holder, more);
        self.amount += more;
    }

    /// Gives back this much, at most the whole amount.
    pub fn shrink(&mut self, less: usize) {
        let less = less.min(self.amount);
        self.amount -= less;
        self.shares.0.give_back(&self.holder, less);
    }

    /// Adds the amount of another share of the same caller and resource.
    pub fn merge(&mut self, mut other: Self) {
        debug_assert!(self.holder == other.holder && Arc::ptr_eq(&self.shares.0, &other.shares.0));
        self.amount += std::mem::take(&mut other.amount);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.shares.0.give_back(&self.holder, self.amount);
    }
}

#[cfg(test)]
mod tests;
