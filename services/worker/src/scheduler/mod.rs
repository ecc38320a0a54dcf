//! Gives out one of the worker's bounded resources (slots, bytes of payloads) by the fair shares of
//! [`outrider_model::shares`], and keeps the jobs that have to wait.
//!
//! A share is decided at the moment of the grant. When something becomes free, the waiting job goes
//! first whose organisation holds least, then whose project, then whose endpoint; the jobs of one
//! endpoint keep their order. Nothing here waits: who releases a grant wakes one task of the
//! worker, which takes the jobs whose turn has come.

mod line;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use outrider_model::{EndpointId, Heard, Recipient, Timestamp, Windows};
use tokio::sync::Notify;

use line::Line;

/// A bounded resource and the jobs that wait for a part of it.
pub(crate) struct Scheduler<J> {
    line: Mutex<Line<J>>,
    freed: Notify,
}

/// What was heard of an endpoint, and what its window has to do with it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct News {
    pub(crate) heard: Heard,
    /// The endpoint's limit of requests under way.
    pub(crate) most: u32,
    pub(crate) at: Timestamp,
}

/// How much a job takes of the resource.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Amount {
    /// While its endpoint answers, and where there are no windows.
    answering: u32,
    /// While its endpoint has not answered lately, or its last request timed out.
    silent: u32,
}

impl Amount {
    /// The same for every endpoint.
    pub(crate) fn always(amount: u32) -> Self {
        Self { answering: amount, silent: amount }
    }

    /// 1 while its endpoint answers, and `silent` while it does not.
    pub(crate) fn one_or(silent: u32) -> Self {
        Self { answering: 1, silent }
    }

    fn at_most(self, most: u32) -> Self {
        Self { answering: self.answering.min(most), silent: self.silent.min(most) }
    }
}

/// The right to a part of the resource, given back when it is dropped.
pub(crate) struct Grant<J> {
    scheduler: Arc<Scheduler<J>>,
    who: Recipient,
    amount: u32,
    news: Option<News>,
}

/// What became of a job that asked for its share.
pub(crate) enum Asked<J> {
    /// It may go on at once.
    Granted(J, Grant<J>),
    /// It waits; [`Scheduler::next`] hands it out in its turn.
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

    /// Asks for a share of `amount`; a larger one than anybody can have counts as the largest.
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

    /// A share of `amount`, if it is free now; of more than anybody can have, none.
    pub(crate) fn try_grant(self: &Arc<Self>, who: Recipient, amount: u32) -> Option<Grant<J>> {
        let mut line = self.line();
        let taken = if amount <= line.largest_amount() {
            line.try_take(&who, Amount::always(amount))
        } else {
            None
        };
        taken.map(|amount| self.grant(who, amount))
    }

    /// Lets a job wait for its turn even if its share is free. Gives it back when the scheduler is
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

    /// The next jobs whose turn has come, up to `most`.
    pub(crate) fn next(self: &Arc<Self>, most: usize) -> Vec<(J, Grant<J>)> {
        let mut line = self.line();
        let turns = std::iter::from_fn(|| line.pop(u32::MAX)).take(most);
        turns.map(|(who, amount, job)| (job, self.grant(who, amount))).collect()
    }

    /// The next jobs whose turn has come and which ask for at most `most` together; one job may ask
    /// for more alone.
    pub(crate) fn batch(self: &Arc<Self>, most: u32) -> Vec<(J, Grant<J>)> {
        let mut line = self.line();
        let (mut batch, mut room) = (Vec::new(), u32::MAX);
        while let Some((who, amount, job)) = line.pop(room) {
            room = room.min(most).saturating_sub(amount);
            batch.push((job, self.grant(who, amount)));
        }
        batch
    }

    /// Returns when jobs wait and something was given back or another job lined up. To be awaited
    /// by one task.
    pub(crate) async fn freed(&self) {
        self.freed.notified().await;
    }

    /// Hands out the jobs that wait, and takes no more.
    pub(crate) fn close(&self) -> Vec<J> {
        self.line().close()
    }

    /// Takes out the waiting jobs that `is` picks.
    pub(crate) fn remove(&self, is: impl Fn(&J) -> bool) -> Vec<J> {
        self.line().remove(is)
    }

    /// Endpoints of which jobs wait.
    pub(crate) fn endpoints(&self) -> Vec<EndpointId> {
        self.line().endpoints()
    }

    /// Takes out what waits of an endpoint.
    pub(crate) fn remove_of(&self, endpoint: EndpointId) -> Vec<J> {
        self.line().remove_of(endpoint)
    }

    fn grant(self: &Arc<Self>, who: Recipient, amount: u32) -> Grant<J> {
        Grant { scheduler: Arc::clone(self), who, amount, news: None }
    }

    /// What is in use of the resource.
    pub(crate) fn used(&self) -> u32 {
        self.line().used()
    }

    /// How many jobs wait.
    pub(crate) fn waiting(&self) -> usize {
        self.line().waiting()
    }

    /// How many endpoints have a window that is known, and how many of these a smaller one than a
    /// new endpoint has.
    pub(crate) fn windows(&self) -> (usize, usize) {
        self.line().windows()
    }
}

impl<J> Grant<J> {
    /// Notes what was heard of the endpoint, for its window.
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
mod tests {
    use outrider_model::{OrganizationId, ProjectId, WindowRules};

    use super::*;

    fn who(organization: u64, project: u64, endpoint: u64) -> Recipient {
        Recipient {
            organization: OrganizationId::new(Timestamp(0), organization),
            project: ProjectId::new(Timestamp(0), project),
            endpoint: EndpointId::new(Timestamp(0), endpoint),
        }
    }

    fn windows(initial: u32) -> Option<Windows> {
        let memory = std::time::Duration::from_secs(60);
        Some(Windows::new(WindowRules { initial, least: 1, capacity: 100, memory }))
    }

    fn news(heard: Heard) -> News {
        News { heard, most: 64, at: Timestamp(1) }
    }

    /// Asks for one job after the other until one waits; the grants.
    fn fill(scheduler: &Arc<Scheduler<u32>>, who: Recipient) -> Vec<Grant<u32>> {
        let mut grants = Vec::new();
        while let Asked::Granted(_, grant) = scheduler.ask(who, Amount::always(1), 0) {
            grants.push(grant);
        }
        grants
    }

    #[test]
    fn a_new_endpoint_has_a_small_window_that_grows_with_its_answers_and_shrinks_on_timeouts() {
        let scheduler = Scheduler::new(8_192, windows(8));
        let endpoint = who(1, 1, 1);
        let mut grants = fill(&scheduler, endpoint);
        assert_eq!((grants.len(), scheduler.waiting()), (8, 1));
        for _ in 1..132 {
            scheduler.line().push(endpoint, Amount::always(1), 0);
        }
        for expected in [16, 32, 64, 20] {
            grants.iter_mut().for_each(|grant| grant.heard(news(Heard::Answered)));
            grants.clear();
            grants = scheduler.next(1_000).into_iter().map(|(_, grant)| grant).collect();
            assert_eq!(grants.len(), expected);
        }
        grants.iter_mut().for_each(|grant| grant.heard(news(Heard::Nothing)));
        drop(grants);
        assert_eq!((scheduler.used(), scheduler.windows()), (0, (1, 1)));
    }

    #[test]
    fn what_is_freed_goes_to_the_organization_that_holds_least() {
        let scheduler = Scheduler::new(64, windows(64));
        let mut greedy = fill(&scheduler, who(1, 1, 1));
        greedy.extend(fill(&scheduler, who(1, 1, 2)));
        greedy.extend(fill(&scheduler, who(1, 2, 3)));
        let modest = fill(&scheduler, who(2, 3, 4));
        let held = [greedy.len(), modest.len()];
        assert!(held[0] > held[1] && held[1] > 0, "{held:?}");
        assert_eq!(scheduler.waiting(), 4);
        assert!(scheduler.next(10).is_empty(), "each has its share");
        // A grant of the modest one is given back: it goes to the modest one's own job.
        drop(modest);
        let turns = scheduler.next(1);
        assert_eq!(turns[0].1.who, who(2, 3, 4));
    }

    #[test]
    fn jobs_of_an_endpoint_keep_their_order_and_are_handed_out_at_the_close() {
        let scheduler = Scheduler::new(64, windows(1));
        let Asked::Granted(_, grant) = scheduler.ask(who(1, 1, 1), Amount::always(1), 0) else {
            panic!("granted")
        };
        for number in 1..5 {
            assert!(matches!(scheduler.ask(who(1, 1, 1), Amount::always(1), number), Asked::Waits));
        }
        assert!(scheduler.next(10).is_empty());
        drop(grant);
        let mut turns = scheduler.next(10);
        assert_eq!(turns.len(), 1);
        let (number, _grant) = turns.remove(0);
        assert_eq!(number, 1);
        assert_eq!(scheduler.close(), [2, 3, 4]);
        assert!(matches!(scheduler.ask(who(1, 1, 2), Amount::always(1), 9), Asked::Closed(9)));
    }

    #[test]
    fn jobs_that_line_up_go_in_batches_by_what_their_organizations_hold() {
        let scheduler = Scheduler::new(1_000, None);
        for number in 0..4 {
            assert_eq!(scheduler.line_up(who(1, 1, 1), 60, number), Ok(()));
        }
        assert_eq!(
            (scheduler.used(), scheduler.batch(100).len()),
            (0, 1),
            "a second one would exceed the batch"
        );
        // The first one was given back; now somebody holds something.
        let first = scheduler.batch(100);
        for number in [10, 11] {
            assert_eq!(scheduler.line_up(who(2, 2, 2), 40, number), Ok(()));
        }
        let second: Vec<u32> = scheduler.batch(100).into_iter().map(|(number, _)| number).collect();
        assert_eq!((first[0].0, second), (1, vec![10, 11]));
        assert_eq!(scheduler.line_up(who(3, 3, 3), 125, 20), Ok(()));
        assert_eq!(scheduler.batch(100).len(), 1, "one that is larger than a batch goes alone");
        assert_eq!(scheduler.close(), [2, 3]);
        assert_eq!(scheduler.line_up(who(1, 1, 1), 1, 30), Err(30));
    }

    #[test]
    fn an_endpoint_that_does_not_answer_takes_more_for_what_is_large() {
        let scheduler = Scheduler::new(8_192, windows(8));
        let endpoint = who(1, 1, 1);
        let mut grants = Vec::new();
        for number in 0..20 {
            if let Asked::Granted(_, grant) = scheduler.ask(endpoint, Amount::one_or(4), number) {
                grants.push(grant);
            }
        }
        assert_eq!((grants.len(), scheduler.used()), (2, 8));
        // It answers: what waits takes 1 from now on.
        grants.remove(0).heard(news(Heard::Answered));
        grants.extend(scheduler.next(100).into_iter().map(|(_, grant)| grant));
        assert_eq!(
            (grants.len(), scheduler.used()),
            (6, 9),
            "a window of 9, of which 4 are held since before"
        );
        // And now it does not.
        grants.remove(0).heard(news(Heard::Nothing));
        assert_eq!((scheduler.used(), scheduler.next(100).len()), (5, 0), "a window of 4");
        grants.drain(..3);
        let turns = scheduler.next(100);
        assert_eq!((turns.len(), scheduler.used()), (1, 6));
    }

    #[test]
    fn a_large_demand_does_not_hold_up_small_ones() {
        let scheduler = Scheduler::new(64, None);
        let mut grants = Vec::new();
        for (organization, amount) in
            [(1, 8), (2, 8), (3, 8), (4, 8), (5, 8), (6, 8), (7, 8), (8, 4)]
        {
            let Asked::Granted(_, grant) =
                scheduler.ask(who(organization, 1, 1), Amount::always(amount), 0)
            else {
                panic!("granted")
            };
            grants.push(grant);
        }
        assert!(matches!(scheduler.ask(who(9, 1, 9), Amount::always(8), 99), Asked::Waits));
        let Asked::Granted(_, small) = scheduler.ask(who(10, 1, 10), Amount::always(1), 10) else {
            panic!("granted")
        };
        drop(small);
        assert!(scheduler.next(10).is_empty());
        grants.pop();
        assert_eq!(scheduler.next(10).first().map(|(number, _)| *number), Some(99));
    }
}
