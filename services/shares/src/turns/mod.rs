//! A fixed number of places that callers have in turns: statements of a database, work on threads
//! of its own.
//!
//! Places are divided by the rule of [`crate::Shares`]. A caller that finds none free, or whose
//! share is used up, waits in a line; a place that comes free goes to the organisation that holds
//! least, in it to the project that holds least, and in that to the key. The line is bounded and
//! divided as well, so that a caller with many requests leaves room in it. See
//! docs/decisions/0070-turns.md.

mod line;
#[cfg(test)]
mod tests;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use outrider_telemetry::catalogue::shares::WAITED;
use tokio::sync::oneshot;

use crate::{Exhausted, Holder, Resource, Share, Shares, count::Counts, refused, show};
use line::Line;

/// What a line is, beside the places for which it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gate {
    /// The places.
    pub places: Resource,
    /// The places in the line.
    pub line: Resource,
}

/// The places of a gate of this process. A cheap handle.
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

    /// Who gets a place next, if one is free and may be had.
    fn next(&mut self) -> Option<(Holder, oneshot::Sender<Turn>)> {
        let (holder, pass) = self.line.next(&self.counts)?;
        self.add(&holder);
        Some((holder, pass))
    }
}

impl Turns {
    /// So many places, at least one, and so many in the line for them. Shows their metrics for as
    /// long as a handle lives.
    #[must_use]
    pub fn new(gate: Gate, places: usize, line: usize) -> Self {
        let (resource, places) = (gate.places, places.max(1));
        let state = State { counts: Counts::new(places, resource.least), line: Line::new() };
        let line = Shares::new(gate.line, line);
        let inner = Arc::new(Inner { resource, line, state: Mutex::new(state) });
        let shown = Arc::downgrade(&inner);
        show(resource, places, move || Some(shown.upgrade()?.state().counts.held()));
        Self(inner)
    }

    /// A place, as soon as it is this caller's turn. Refused when the line, or the caller's share
    /// of it, is full. Dropped while it waits, it gives its place in the line up.
    pub async fn take(&self, holder: Holder) -> Result<Turn, Exhausted> {
        if let Some(turn) = self.at_once(holder) {
            return Ok(turn);
        }
        let in_line = self.0.line.take(holder, 1)?;
        Ok(self.in_line(holder, in_line).await)
    }

    /// The same for a limited time, after which it is refused.
    pub async fn take_within(&self, holder: Holder, patience: Duration) -> Result<Turn, Exhausted> {
        let taken = tokio::time::timeout(patience, self.take(holder)).await;
        taken.unwrap_or_else(|_| {
            let level =
                self.0.state().counts.check(&holder, 1).err().unwrap_or(crate::Level::Server);
            Err(refused(self.0.resource, level))
        })
    }

    /// A place, as soon as it is this caller's turn. It is never refused: for callers whose number
    /// is bounded and divided by something else that they hold.
    pub async fn wait(&self, holder: Holder) -> Turn {
        if let Some(turn) = self.at_once(holder) {
            return turn;
        }
        let mut in_line = self.0.line.share(holder);
        in_line.exceed(1);
        self.in_line(holder, in_line).await
    }

    /// How many places are taken, and how many callers wait.
    #[must_use]
    pub fn held(&self) -> (usize, usize) {
        (self.0.state().counts.held(), self.0.line.held())
    }

    /// Nobody who may have a place waits while there is one, so that none is passed over.
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
        // The line, which this handle keeps, drops nobody who waits.
        turn.unwrap_or_else(|_| {
            self.0.state().add(&holder);
            self.turn(holder)
        })
    }

    /// Joins the line, unless a place came free meanwhile.
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

    /// A place comes free: it goes to whoever is next, and so do those of callers that are gone.
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
                    // Here and not by its own end, which would go deeper with each that is gone.
                    turn.inner = None;
                    free.push(holder);
                }
            }
        }
    }
}

/// A caller in the line, until it has its turn or is gone.
struct Waiting<'a> {
    inner: &'a Inner,
    holder: Holder,
    number: Option<u64>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            // Where it is not there any more, its turn is on the way, and is given back unseen.
            drop(self.inner.state().line.leave(&self.holder, number));
        }
    }
}

/// A place that a caller has, until it is dropped.
#[derive(Debug)]
pub struct Turn {
    /// None once it was given back.
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
