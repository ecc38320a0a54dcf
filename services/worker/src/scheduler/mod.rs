//! Divides one of the worker's bounded resources (slots, payload bytes) by the fair shares of
//! [`outrider_model::shares`], and keeps the jobs that must wait.
//!
//! Shares are decided at the moment of the grant. When something becomes free, the next job is that
//! of the organization that holds least, then of the project, then of the endpoint that holds
//! least. The jobs of an endpoint keep their order. Nothing here waits: releasing a grant wakes one
//! task of the worker, which takes the jobs whose turn has come.

mod amount;
mod line;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use outrider_model::{EndpointId, Recipient, Windows};
use tokio::sync::Notify;

pub(crate) use amount::{Amount, News};
use line::Line;

/// A bounded resource and the jobs that wait for a part of it.
pub(crate) struct Scheduler<J> {
    line: Mutex<Line<J>>,
    freed: Notify,
}

/// The right to a part of the resource. It is given back on drop.
pub(crate) struct Grant<J> {
    scheduler: Arc<Scheduler<J>>,
    who: Recipient,
    amount: u32,
    news: Option<News>,
}

/// The result of asking for a share.
pub(crate) enum Asked<J> {
    /// The job may continue at once.
    Granted(J, Grant<J>),
    /// The job waits. [`Scheduler::next`] returns it in its turn.
    Waits,
    /// The scheduler is closed.
    Closed(J),
}

impl<J> Scheduler<J> {
    /// Divides `total`. With `windows`, an endpoint holds no more than its window.
    pub(crate) fn new(total: u32, windows: Option<Windows>) -> Arc<Self> {
        Arc::new(Self { line: Mutex::new(Line::new(total, windows)), freed: Notify::new() })
    }

    fn line(&self) -> MutexGuard<'_, Line<J>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a share of `amount`. More than the largest possible share counts as the largest.
    pub(crate) fn ask(self: &Arc<Self>, who: Recipient, amount: Amount, job: J) -> Asked<J> {
        let mut line = self.line();
        let amount = amount.at_most(line.largest_amount());
        if line.is_closed() {
            Asked::Closed(job)
        } else if let Some(amount) = line.try_take(&who, amount) {
            Asked::Granted(job, self.grant(who, amount))
        } else {
            line.push(who, amount, job);
            Asked::Waits
        }
    }

    /// Returns a share of `amount` if it is free now. Returns `None` for more than the largest
    /// possible share.
    pub(crate) fn try_grant(self: &Arc<Self>, who: Recipient, amount: u32) -> Option<Grant<J>> {
        let mut line = self.line();
        let taken = if amount <= line.largest_amount() {
            line.try_take(&who, Amount::always(amount))
        } else {
            None
        };
        taken.map(|amount| self.grant(who, amount))
    }

    /// Lets a job wait for its turn even if its share is free. Returns the job if the scheduler is
    /// closed.
    pub(crate) fn line_up(&self, who: Recipient, amount: u32, job: J) -> Result<(), J> {
        let mut line = self.line();
        if line.is_closed() {
            return Err(job);
        }
        let amount = Amount::always(amount).at_most(line.largest_amount());
        line.push(who, amount, job);
        self.freed.notify_one();
        Ok(())
    }

    /// Returns the next jobs whose turn has come, up to `most`.
    pub(crate) fn next(self: &Arc<Self>, most: usize) -> Vec<(J, Grant<J>)> {
        let mut line = self.line();
        let turns = std::iter::from_fn(|| line.pop(u32::MAX)).take(most);
        turns.map(|(who, amount, job)| (job, self.grant(who, amount))).collect()
    }

    /// Returns the next jobs whose turn has come and that ask for at most `most` together. One job
    /// may ask for more alone.
    pub(crate) fn batch(self: &Arc<Self>, most: u32) -> Vec<(J, Grant<J>)> {
        let mut line = self.line();
        let (mut batch, mut room) = (Vec::new(), u32::MAX);
        while let Some((who, amount, job)) = line.pop(room) {
            room = room.min(most).saturating_sub(amount);
            batch.push((job, self.grant(who, amount)));
        }
        batch
    }

    /// Returns when jobs wait and something was given back or another job lined up. Must be awaited
    /// by one task only.
    pub(crate) async fn freed(&self) {
        self.freed.notified().await;
    }

    /// Returns the waiting jobs, and accepts no more.
    pub(crate) fn close(&self) -> Vec<J> {
        self.line().close()
    }

    /// Removes and returns the waiting jobs that `is` selects.
    pub(crate) fn remove(&self, is: impl Fn(&J) -> bool) -> Vec<J> {
        self.line().remove(is)
    }

    /// Returns the endpoints with waiting jobs.
    pub(crate) fn endpoints(&self) -> Vec<EndpointId> {
        self.line().endpoints()
    }

    /// Removes and returns the waiting jobs of an endpoint.
    pub(crate) fn remove_of(&self, endpoint: EndpointId) -> Vec<J> {
        self.line().remove_of(endpoint)
    }

    fn grant(self: &Arc<Self>, who: Recipient, amount: u32) -> Grant<J> {
        Grant { scheduler: Arc::clone(self), who, amount, news: None }
    }

    /// Returns the amount of the resource in use.
    pub(crate) fn used(&self) -> u32 {
        self.line().used()
    }

    /// Returns the number of waiting jobs.
    pub(crate) fn waiting(&self) -> usize {
        self.line().waiting()
    }

    /// Returns the number of known windows, and the number of those smaller than the window of a
    /// new endpoint.
    pub(crate) fn windows(&self) -> (usize, usize) {
        self.line().windows()
    }
}

impl<J> Grant<J> {
    /// Records what the request showed about the endpoint, for its window.
    pub(crate) fn heard(&mut self, news: News) {
        self.news = Some(news);
    }
}

impl<J> Drop for Grant<J> {
    fn drop(&mut self) {
        let mut line = self.scheduler.line();
        line.give_back(&self.who, self.amount, self.news);
        if line.waiting() > 0 {
            self.scheduler.freed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests;
