//! Shared resources and their division among callers: places for streams, bytes of a buffer.
//!
//! The rule: a *project* may hold half of what others leave of the total, and an *API key* half of
//! what the other keys of its project leave of that. However much somebody takes, half of the rest
//! is there for the next. So that an organisation gains nothing by having many projects, it may
//! hold three quarters of what other organisations leave, and each of its projects two thirds of
//! what the others leave of that: for a single project that is the same half. Every limit is at
//! least a minimum, as long as so much is left. See docs/decisions/0061-shares.md.

mod count;
mod holder;
#[cfg(test)]
mod tests;
mod turns;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use outrider_model::Error;
use outrider_telemetry::{
    catalogue::shares::{HELD, REFUSED, SECTION, TOTAL, WAITED},
    metrics,
};
use tokio::sync::Notify;

pub use self::{
    count::Level,
    holder::Holder,
    turns::{Gate, Turn, Turns},
};
use count::Counts;

/// Between two attempts of a caller that waits: what others give back meanwhile wakes it once, not
/// each time.
const PACE: Duration = Duration::from_millis(20);

/// What is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resource {
    /// The label of its metrics.
    pub name: &'static str,
    /// What it is, in the plural, as messages to callers say it.
    pub noun: &'static str,
    /// What every share is at least, as long as so much is left; at least 1.
    pub least: usize,
}

/// A bounded resource of this process. A cheap handle.
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
        let awaited = counts.waiting > 0;
        drop(counts);
        if awaited {
            self.given_back.notify_waiters();
        }
    }
}

impl Shares {
    /// Divides a total, and shows its metrics for as long as a handle lives.
    #[must_use]
    pub fn new(resource: Resource, total: usize) -> Self {
        let counts = Counts::new(total, resource.least);
        let inner =
            Arc::new(Inner { resource, counts: Mutex::new(counts), given_back: Notify::new() });
        let shown = Arc::downgrade(&inner);
        show(resource, total, move || Some(shown.upgrade()?.counts().held()));
        Self(inner)
    }

    /// What all callers hold together.
    #[must_use]
    pub fn held(&self) -> usize {
        self.0.counts().held()
    }

    /// The largest share that a caller can have: that of a key while nobody else holds anything.
    #[must_use]
    pub fn most(&self) -> usize {
        self.0.counts().most()
    }

    /// A share of this caller that holds nothing yet.
    #[must_use]
    pub fn share(&self, holder: Holder) -> Share {
        Share { shares: self.clone(), holder, amount: 0 }
    }

    /// A share of so much, or nothing.
    pub fn take(&self, holder: Holder, amount: usize) -> Result<Share, Exhausted> {
        let mut share = self.share(holder);
        share.grow(amount)?;
        Ok(share)
    }

    /// The same, but waits until the caller may have so much. More than the largest share counts as
    /// that.
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

    /// Waits until the caller may have anything more, and takes nothing.
    pub async fn room(&self, holder: Holder) {
        self.until(|counts| counts.check(&holder, 1).ok()).await;
    }

    /// Whether the caller may have anything more.
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
            // From here on nothing that is given back is missed.
            given_back.as_mut().enable();
            if attempt(&mut self.0.counts()).is_some() {
                return;
            }
            given_back.await;
            tokio::time::sleep(PACE).await;
        }
    }
}

/// Shows the metrics of a resource until nobody can tell any more how much of it is held.
fn show(
    resource: Resource,
    total: usize,
    held: impl Fn() -> Option<usize> + Send + Sync + 'static,
) {
    let number = |amount| i64::try_from(amount).unwrap_or(i64::MAX);
    metrics::expose(&SECTION);
    for level in Level::ALL {
        REFUSED.with_label_values(&[resource.name, level.as_str()]);
    }
    WAITED.with_label_values(&[resource.name]);
    TOTAL.with_label_values(&[resource.name]).set(number(total));
    metrics::before_scrape(move || {
        let Some(held) = held() else { return false };
        HELD.with_label_values(&[resource.name]).set(number(held));
        true
    });
}

/// Counts a refusal, and says why.
fn refused(resource: Resource, level: Level) -> Exhausted {
    REFUSED.with_label_values(&[resource.name, level.as_str()]).inc();
    Exhausted { level, noun: resource.noun }
}

/// A caller that waits, until it is dropped.
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

/// What a caller holds of a resource, until it is dropped.
#[derive(Debug)]
pub struct Share {
    shares: Shares,
    holder: Holder,
    amount: usize,
}

impl Share {
    /// How much it is.
    #[must_use]
    pub fn amount(&self) -> usize {
        self.amount
    }

    /// Takes so much more, or nothing.
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

    /// Counts so much more, whatever the limits: it is in memory already, and others shall know.
    /// The caller bounds how often.
    pub fn exceed(&mut self, more: usize) {
        self.shares.0.counts().add(&self.holder, more);
        self.amount += more;
    }

    /// Gives so much back, at most all.
    pub fn shrink(&mut self, less: usize) {
        let less = less.min(self.amount);
        self.amount -= less;
        self.shares.0.give_back(&self.holder, less);
    }

    /// Takes over what another share of the same caller and resource holds.
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

/// Why a caller gets no more of a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exhausted {
    /// Whose share is used up.
    pub level: Level,
    noun: &'static str,
}

impl fmt::Display for Exhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let noun = self.noun;
        match self.level {
            Level::Key => write!(f, "the API key has used up its share of this server's {noun}"),
            Level::Project => {
                write!(f, "the project has used up its share of this server's {noun}")
            }
            Level::Organization => {
                write!(f, "the organization has used up its share of this server's {noun}")
            }
            Level::Server => write!(f, "all of this server's {noun} are used up"),
        }
    }
}

impl std::error::Error for Exhausted {}

impl From<Exhausted> for Error {
    fn from(exhausted: Exhausted) -> Self {
        match exhausted.level {
            Level::Server => Self::overloaded(exhausted.to_string()),
            _ => Self::share_exhausted(exhausted.to_string()),
        }
    }
}
