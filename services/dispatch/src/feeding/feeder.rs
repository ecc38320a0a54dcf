//! The feeder moves due deliveries from the database into the window of the queue as settlements
//! free room, fairly between projects.
//!
//! It takes a few due rows of each endpoint, never one global order that a dead endpoint could
//! fill.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use outrider_failpoints::{Point, pass};
use outrider_model::{
    DeliveryReason, DeliveryStatus, EndpointId, EndpointState, ProjectId, Recipient, Result,
};
use outrider_queue::NewJob;
use outrider_store::{Backlog, CancelScope, Claim, LedgerError};
use outrider_telemetry::catalog::dispatch::{FEED_CLAIMED, FEED_ROUNDS};
use tokio::time::{Instant, sleep_until};

use super::feed_order::{Candidate, FeedOrder};
use crate::{
    handoff::Handoff,
    jobs::{self, JobEndpoint},
    measure,
    shared::Shared,
};

/// How many endpoints one query reads.
const PAGE: u32 = 1_000;
/// The feeder rests this many times as long as it searched, so 100,000 endpoints whose retries are
/// hours ahead use a tenth of a connection. It never rests longer than the second value, because a
/// search may also have been slow while the database hung.
const REST: u32 = 9;
const LONGEST_REST: Duration = Duration::from_secs(5);

/// How many deliveries are canceled at once because their endpoint or project is gone. Few, because
/// other writes wait for them, and nobody waits for these.
const CANCELLED_AT_ONCE: u32 = 250;

/// The part of dispatch that feeds the queue.
pub struct Feeder {
    shared: Shared,
    handoff: Handoff,
}

impl Feeder {
    pub fn new(shared: Shared, handoff: Handoff) -> Self {
        Self { shared, handoff }
    }

    /// Feeds all endpoints at each period, and some whenever they get room, until the task is
    /// aborted.
    pub async fn run(&self) {
        let mut next = Instant::now();
        loop {
            let outcome = tokio::select! {
                () = sleep_until(next) => {
                    let looked = self.feed_all().await;
                    let rest = looked.as_ref().map_or(Duration::ZERO,
                        |looked| (*looked * REST).min(LONGEST_REST));
                    next = Instant::now() + self.shared.options.feed_period.max(rest);
                    looked.map(drop)
                }
                wish = self.handoff.feeder_woken() => match wish.all {
                    true => self.feed_all().await.map(drop),
                    false => self.feed_some(wish.endpoints).await,
                },
            };
            if let Err(why) = outcome {
                tracing::warn!(%why, "feeding the queue failed; it goes on at the next period");
            }
        }
    }

    /// Makes one pass over all endpoints that have unqueued deliveries. Returns how long it took to
    /// find them.
    async fn feed_all(&self) -> Result<Duration, LedgerError> {
        let (mut after, mut looked) = (None, Duration::ZERO);
        loop {
            let (now, begin) = (self.shared.store.clock().now(), Instant::now());
            let page = self.shared.ledger.backlog(after, PAGE).await?;
            looked += begin.elapsed();
            let due: Vec<Backlog> =
                page.iter().filter(|backlog| backlog.earliest_due <= now).copied().collect();
            self.feed(&due).await?;
            match page.last() {
                Some(last) if page.len() == PAGE as usize => after = Some(last.endpoint),
                _ => return Ok(looked),
            }
        }
    }

    /// Makes one pass over these endpoints.
    async fn feed_some(&self, endpoints: HashSet<EndpointId>) -> Result<(), LedgerError> {
        let now = self.shared.store.clock().now();
        let mut due = Vec::with_capacity(endpoints.len());
        for endpoint in endpoints {
            // Deleted endpoints are left to the next pass over all endpoints.
            if let Ok(Some(entry)) = self.shared.directory.endpoint(endpoint).await {
                due.push(Backlog {
                    endpoint,
                    project: entry.endpoint.fixed.project,
                    earliest_due: now,
                });
            }
        }
        for page in due.chunks(PAGE as usize) {
            self.feed(page).await?;
        }
        Ok(())
    }

    async fn feed(&self, due: &[Backlog]) -> Result<(), LedgerError> {
        if due.is_empty() {
            return Ok(());
        }
        FEED_ROUNDS.inc();
        let (candidates, gone) = self.candidates(due).await;
        let mut order = FeedOrder::of(candidates);
        while let Some(batch) = order.next(self.shared.options.feed_batch) {
            for (candidate, wanted) in self.feed_batch(batch).await? {
                order.again(candidate, wanted);
            }
        }
        // These come last, one batch at a time, because nobody waits for deliveries that are not
        // sent.
        for (scope, reason) in gone {
            self.cancel(scope, reason).await;
        }
        Ok(())
    }

    /// Drops endpoints behind a gate, separates those to which nothing can ever be sent, and reads
    /// the room of the others from the queue.
    async fn candidates(&self, due: &[Backlog]) -> (Vec<Candidate>, Vec<Gone>) {
        let (mut open, mut gone) = (Vec::new(), Vec::new());
        for backlog in due {
            let Backlog { endpoint, project, .. } = *backlog;
            match self.gate(endpoint, project).await {
                Gate::Open(JobEndpoint { organization, limit }) => {
                    open.push((Recipient { organization, project, endpoint }, limit));
                }
                Gate::Closed => {}
                Gate::Gone(scope, reason) => gone.push((scope, reason)),
            }
        }
        if open.is_empty() {
            return (Vec::new(), gone);
        }
        let Ok(rooms) = self.shared.queue.room(&open).await else {
            // Without the queue there is nothing to feed. The watch logs it.
            self.handoff.set_unavailable();
            return (Vec::new(), gone);
        };
        let mut candidates = Vec::new();
        for ((who, limit), room) in open.into_iter().zip(rooms) {
            match self.handoff.epoch(who.endpoint) {
                Some(epoch) if room > 0 => candidates.push(Candidate { who, limit, room, epoch }),
                Some(_) => self.handoff.congest(who.endpoint),
                None => {}
            }
        }
        (candidates, gone)
    }

    async fn gate(&self, endpoint: EndpointId, project: ProjectId) -> Gate {
        let directory = &self.shared.directory;
        match (directory.project_exists(project).await, directory.endpoint(endpoint).await) {
            (Ok(false), _) => {
                Gate::Gone(CancelScope::Project(project), DeliveryReason::ProjectDeleted)
            }
            (Ok(true), Ok(None)) => {
                Gate::Gone(CancelScope::Endpoint(endpoint), DeliveryReason::EndpointDeleted)
            }
            (Ok(true), Ok(Some(entry))) if entry.endpoint.spec.state == EndpointState::Active => {
                Gate::Open(self.shared.windows.endpoint(&entry))
            }
            _ => Gate::Closed,
        }
    }

    /// Cancels a batch of deliveries that can never be sent. If there may be more, the feeder
    /// returns to them at once.
    async fn cancel(&self, scope: CancelScope, reason: DeliveryReason) {
        let now = self.shared.store.clock().now();
        let limit = CANCELLED_AT_ONCE;
        pass(Point::BeforeCancel);
        let outcome = self.shared.ledger.cancel(scope, reason, now, limit).await;
        pass(Point::AfterCancel);
        match outcome {
            Ok(cancelled) => {
                measure::ended(DeliveryStatus::Cancelled, cancelled);
                if cancelled >= u64::from(limit) {
                    self.handoff.feed_all();
                }
            }
            Err(why) => {
                tracing::warn!(%why, "deliveries without an endpoint are not cancelled yet")
            }
        }
    }

    /// Claims due deliveries of these endpoints and puts their jobs on the queue. Returns the
    /// endpoints that may have more.
    async fn feed_batch(
        &self,
        batch: Vec<(Candidate, u32)>,
    ) -> Result<Vec<(Candidate, u32)>, LedgerError> {
        let Shared { ledger, store, options, .. } = &self.shared;
        let now = store.clock().now();
        let claims: Vec<Claim> = batch
            .iter()
            .map(|(candidate, wanted)| Claim {
                endpoint: candidate.who.endpoint,
                limit: *wanted,
                epoch: candidate.epoch,
            })
            .collect();
        let inline = u32::try_from(options.inline_bytes).unwrap_or(u32::MAX);
        pass(Point::BeforeClaim);
        let claimed = ledger.claim(&claims, now, now.plus(options.check_after), inline).await?;
        FEED_CLAIMED.inc_by(claimed.len() as u64);
        let mut counts: BTreeMap<EndpointId, u32> = BTreeMap::new();
        let asked: BTreeMap<EndpointId, JobEndpoint> =
            batch.iter().map(|(c, _)| (c.who.endpoint, c.endpoint())).collect();
        let mut queue: Vec<NewJob> = Vec::with_capacity(claimed.len());
        for job in claimed {
            let endpoint = job.delivery.endpoint;
            *counts.entry(endpoint).or_default() += 1;
            // The claim returns only rows of these endpoints.
            queue.extend(
                asked.get(&endpoint).and_then(|endpoint| jobs::claimed(job, *endpoint, now)),
            );
        }
        let mut refused = HashSet::new();
        if !queue.is_empty() {
            pass(Point::AfterClaim);
            refused = self.handoff.enqueue(queue).await;
            pass(Point::AfterFeed);
        }
        let mut more = Vec::new();
        for (candidate, wanted) in batch {
            let endpoint = candidate.who.endpoint;
            if refused.contains(&endpoint) {
                // More of its jobs would also be refused. It waits until room is freed, or for the
                // next period.
                self.handoff.congest(endpoint);
            } else if counts.get(&endpoint).copied().unwrap_or(0) < wanted {
                // There were fewer rows than requested, so nothing more is due. New deliveries may
                // go directly to the queue again.
                self.handoff.relieve(endpoint);
            } else {
                self.handoff.congest(endpoint);
                more.push((candidate, wanted));
            }
        }
        Ok(more)
    }
}

/// What was deleted, and so the reason why its deliveries end.
type Gone = (CancelScope, DeliveryReason);

enum Gate {
    /// Deliveries may be sent.
    Open(JobEndpoint),
    /// Deliveries must wait.
    Closed,
    /// Deliveries are canceled.
    Gone(CancelScope, DeliveryReason),
}
