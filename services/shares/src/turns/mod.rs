//! A fixed number of slots that callers use in turns, such as statements of a database or work on
//! separate threads.
//!
//! Slots are divided by the rule of [`crate::Shares`]. A caller waits in a line if no slot is free
//! or if its share is used up. A free slot goes to the organization that holds least, within it to
//! the project that holds least, and within that to the key that holds least. The line is bounded
//! and divided as well, so that a caller with many requests leaves room in it. See
//! docs/decisions/0070-turns.md.

mod line;
#[cfg(test)]
mod tests;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use outrider_telemetry::catalog::shares::WAITED;
use tokio::sync::oneshot;

use crate::{
    count::{Counts, Level},
    holder::Holder,
    resource::{Exhausted, Resource, refused, show},
    share::{Share, Shares},
};
use line::Line;

/// The two resources of turns: the slots, and the line for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TurnResources {
    /// The slots.
    pub slots: Resource,
    /// The line of waiting callers.
    pub line: Resource,
}

/// A handle to the slots of this process. It is cheap to clone.
#[derive(Debug, Clone)]
pub struct Turns(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    resource: Resource,
    line: Shares,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    counts: Counts,
    line: Line<oneshot::Sender<Turn>>,
}

impl State {
    fn add(&mut self, holder: &Holder) {
        self.counts.add(holder, 1);
        self.line.held_changed(holder, &self.counts);
    }

    fn remove(&mut self, holder: &Holder) {
        self.counts.remove(holder, 1);
        self.line.held_changed(holder, &self.counts);
    }

    /// Returns who gets a slot next, if a slot is free and a waiter may have it.
    fn next(&mut self) -> Option<(Holder, oneshot::Sender<Turn>)> {
        let (holder, pass) = self.line.next(&self.counts)?;
        self.add(&holder);
        Some((holder, pass))
    }
}

impl Turns {
    /// Creates `slots`, at least one, and a line for `line` callers. Exposes their metrics for as
    /// long as a handle exists.
    #[must_use]
    pub fn new(resources: TurnResources, slots: usize, line: usize) -> Self {
        let (resource, slots) = (resources.slots, slots.max(1));
        let state = State { counts: Counts::new(slots, resource.least), line: Line::new() };
        let line = Shares::new(resources.line, line);
        let inner = Arc::new(Inner { resource, line, state: Mutex::new(state) });
        let shown = Arc::downgrade(&inner);
        show(resource, slots, move || Some(shown.upgrade()?.state().counts.held()));
        Self(inner)
    }

    /// Returns a slot when it is this caller's turn. Refuses if the line, or the caller's share of
    /// it, is full. If the future is dropped while it waits, the caller leaves the line.
    pub async fn take(&self, holder: Holder) -> Result<Turn, Exhausted> {
        if let Some(turn) = self.at_once(holder) {
            return Ok(turn);
        }
        let in_line = self.0.line.take(holder, 1)?;
        Ok(self.in_line(holder, in_line).await)
    }

    /// Like [`Self::take`], but refuses after `patience`.
    pub async fn take_within(&self, holder: Holder, patience: Duration) -> Result<Turn, Exhausted> {
        let taken = tokio::time::timeout(patience, self.take(holder)).await;
        taken.unwrap_or_else(|_| {
            let level = self.0.state().counts.check(&holder, 1).err().unwrap_or(Level::Server);
            Err(refused(self.0.resource, level))
        })
    }

    /// Returns a slot when it is this caller's turn, and never refuses. For callers that are
    /// bounded and divided by something else that they hold.
    pub async fn wait(&self, holder: Holder) -> Turn {
        if let Some(turn) = self.at_once(holder) {
            return turn;
        }
        let mut in_line = self.0.line.share(holder);
        in_line.exceed(1);
        self.in_line(holder, in_line).await
    }

    /// Returns how many slots are taken and how many callers wait.
    #[must_use]
    pub fn held(&self) -> (usize, usize) {
        (self.0.state().counts.held(), self.0.line.held())
    }

    /// Returns a slot if the caller may have one now. This passes over nobody, because no caller
    /// that may have a slot ever waits while one is free.
    fn at_once(&self, holder: Holder) -> Option<Turn> {
        let mut state = self.0.state();
        state.counts.check(&holder, 1).ok()?;
        state.add(&holder);
        Some(self.turn(holder))
    }

    async fn in_line(&self, holder: Holder, _in_line: Share) -> Turn {
        WAITED.with_label_values(&[self.0.resource.name]).inc();
        let (pass, mut passed) = oneshot::channel();
        let mut waiting = match self.join(holder, pass) {
            Ok(waiting) => waiting,
            Err(turn) => return turn,
        };
        let turn = (&mut passed).await;
        waiting.number = None;
        // This handle keeps the line alive, and the line drops no waiter.
        turn.unwrap_or_else(|_| {
            self.0.state().add(&holder);
            self.turn(holder)
        })
    }

    /// Joins the line, unless a slot has become free in the meantime.
    fn join(&self, holder: Holder, pass: oneshot::Sender<Turn>) -> Result<Waiting<'_>, Turn> {
        let mut state = self.0.state();
        if state.counts.check(&holder, 1).is_ok() {
            state.add(&holder);
            return Err(self.turn(holder));
        }
        let State { counts, line } = &mut *state;
        let number = Some(line.join(holder, counts, pass));
        Ok(Waiting { inner: &self.0, holder, number })
    }

    fn turn(&self, holder: Holder) -> Turn {
        Turn { inner: Some(Arc::clone(&self.0)), holder }
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Frees a slot and passes it to the next waiter. If that waiter is gone, passes the slot on.
    fn give_back(self: &Arc<Self>, holder: Holder) {
        let mut free = vec![holder];
        while !free.is_empty() {
            let mut next = Vec::new();
            let mut state = self.state();
            free.drain(..).for_each(|holder| state.remove(&holder));
            while let Some((holder, pass)) = state.next() {
                next.push((holder, pass));
            }
            drop(state);
            for (holder, pass) in next {
                let turn = Turn { inner: Some(Arc::clone(self)), holder };
                if let Err(mut turn) = pass.send(turn) {
                    // In this loop and not by the turn's drop, which would recurse deeper with each
                    // waiter that is gone.
                    turn.inner = None;
                    free.push(holder);
                }
            }
        }
    }
}

/// A caller in the line, until it gets its turn or is dropped.
struct Waiting<'a> {
    inner: &'a Inner,
    holder: Holder,
    number: Option<u64>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            // If the caller is no longer in the line, its turn is on the way, and is given back on
            // drop.
            drop(self.inner.state().line.leave(&self.holder, number));
        }
    }
}

/// A slot that a caller holds until the turn is dropped.
#[derive(Debug)]
pub struct Turn {
    /// `None` once the slot was given back.
    inner: Option<Arc<Inner>>,
    holder: Holder,
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(inner) = self.inner.take() {
            inner.give_back(self.holder);
        }
    }
}
