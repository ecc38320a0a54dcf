//! The feeder: moves what is due from the database into the window of the queue, as settles free room, fairly between projects.
//!
//! It goes by endpoint, a few due rows of each, never by one global order that a dead endpoint could fill.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use outrider_failpoints::{Point, pass};
use outrider_model::{DeliveryReason, DeliveryStatus, EndpointId, EndpointState, ProjectId, Result};
use outrider_queue::NewJob;
use outrider_store::{Backlog, CancelScope, Claim, LedgerError};
use outrider_telemetry::catalogue::dispatch::{FEED_CLAIMED, FEED_ROUNDS};
use tokio::time::{Instant, sleep_until};

use crate::{Shared, handoff::Handoff, jobs, measure};

/// Endpoints looked at in one go.
const PAGE: u32 = 1_000;
/// The feeder rests so many times as long as it looked: a hundred thousand endpoints whose retries are hours ahead take a tenth of a
/// connection, not all of it. But never for longer than the second: that it took long may have been a database that stood still.
const REST: u32 = 9;
const LONGEST_REST: Duration = Duration::from_secs(5);

/// The part of dispatch that feeds the queue.
pub struct Feeder {
    shared: Shared,
    handoff: Handoff,
}

/// An endpoint with due deliveries and room in its window.
struct Candidate {
    endpoint: EndpointId,
    project: ProjectId,
    window: u32,
    room: u32,
    epoch: i64,
}

impl Feeder {
    pub fn new(shared: Shared, handoff: Handoff) -> Self {
        Self { shared, handoff }
    }

    /// Feeds for ever: all endpoints at each period, some whenever they got room.
    pub async fn run(&self) {
        let mut next = Instant::now();
        loop {
            let outcome = tokio::select! {
                () = sleep_until(next) => {
                    let looked = self.feed_all().await;
                    let rest = looked.as_ref().map_or(Duration::ZERO, |looked| (*looked * REST).min(LONGEST_REST));
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

    /// One pass over all endpoints that have unqueued deliveries; how long it took to find them.
    async fn feed_all(&self) -> Result<Duration, LedgerError> {
        let (mut after, mut looked) = (None, Duration::ZERO);
        loop {
            let (now, begin) = (self.shared.store.clock().now(), Instant::now());
            let page = self.shared.ledger.backlog(after, PAGE).await?;
            looked += begin.elapsed();
            let due: Vec<Backlog> = page.iter().filter(|backlog| backlog.earliest_due <= now).copied().collect();
            self.feed(&due).await?;
            match page.last() {
                Some(last) if page.len() == PAGE as usize => after = Some(last.endpoint),
                _ => return Ok(looked),
            }
        }
    }

    /// One pass over these endpoints.
    async fn feed_some(&self, endpoints: HashSet<EndpointId>) -> Result<(), LedgerError> {
        let now = self.shared.store.clock().now();
        let mut due = Vec::with_capacity(endpoints.len());
        for endpoint in endpoints {
            // Deleted endpoints are for the next pass over all.
            if let Ok(Some(entry)) = self.shared.directory.endpoint(endpoint).await {
                due.push(Backlog { endpoint, project: entry.endpoint.project, earliest_due: now });
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
        let candidates = self.candidates(due).await?;
        for batch in fair_batches(candidates, self.shared.options.feed_batch) {
            self.feed_batch(batch).await?;
        }
        Ok(())
    }

    /// Drops endpoints behind a gate, cancels what can never be sent, and asks the queue for the room of the others.
    async fn candidates(&self, due: &[Backlog]) -> Result<Vec<Candidate>, LedgerError> {
        let mut open = Vec::new();
        for backlog in due {
            let Backlog { endpoint, project, .. } = *backlog;
            match self.gate(endpoint, project).await {
                Gate::Open(window) => open.push((endpoint, project, window)),
                Gate::Closed => {}
                Gate::Gone(scope, reason) => self.cancel(scope, reason).await?,
            }
        }
        let wanted: Vec<(EndpointId, u32)> = open.iter().map(|(endpoint, _, window)| (*endpoint, *window)).collect();
        let Ok(rooms) = self.shared.queue.room(&wanted).await else {
            // Without the queue there is nothing to feed; the watch says so.
            self.handoff.set_unavailable();
            return Ok(Vec::new());
        };
        let mut candidates = Vec::new();
        for ((endpoint, project, window), room) in open.into_iter().zip(rooms) {
            match self.handoff.epoch(endpoint) {
                Some(epoch) if room > 0 => candidates.push(Candidate { endpoint, project, window, room, epoch }),
                Some(_) => self.handoff.congest(endpoint),
                None => {}
            }
        }
        Ok(candidates)
    }

    async fn gate(&self, endpoint: EndpointId, project: ProjectId) -> Gate {
        let directory = &self.shared.directory;
        match (directory.project_exists(project).await, directory.endpoint(endpoint).await) {
            (Ok(false), _) => Gate::Gone(CancelScope::Project(project), DeliveryReason::ProjectDeleted),
            (Ok(true), Ok(None)) => Gate::Gone(CancelScope::Endpoint(endpoint), DeliveryReason::EndpointDeleted),
            (Ok(true), Ok(Some(entry))) if entry.endpoint.state == EndpointState::Active => {
                Gate::Open(entry.endpoint.max_in_flight)
            }
            _ => Gate::Closed,
        }
    }

    async fn cancel(&self, scope: CancelScope, reason: DeliveryReason) -> Result<(), LedgerError> {
        let now = self.shared.store.clock().now();
        let limit = self.shared.options.feed_batch;
        loop {
            pass(Point::BeforeCancel);
            let cancelled = self.shared.ledger.cancel(scope, reason, now, limit).await?;
            pass(Point::AfterCancel);
            measure::ended(DeliveryStatus::Cancelled, cancelled);
            if cancelled < u64::from(limit) {
                return Ok(());
            }
        }
    }

    /// Claims due deliveries of these endpoints and puts their jobs on the queue.
    async fn feed_batch(&self, batch: Vec<(Candidate, u32)>) -> Result<(), LedgerError> {
        let Shared { ledger, store, options, .. } = &self.shared;
        let now = store.clock().now();
        let claims: Vec<Claim> = batch
            .iter()
            .map(|(candidate, limit)| Claim { endpoint: candidate.endpoint, limit: *limit, epoch: candidate.epoch })
            .collect();
        let inline = u32::try_from(options.inline_bytes).unwrap_or(u32::MAX);
        pass(Point::BeforeClaim);
        let claimed = ledger.claim(&claims, now, now.plus(options.check_after), inline).await?;
        FEED_CLAIMED.inc_by(claimed.len() as u64);
        let mut counts: BTreeMap<EndpointId, u32> = BTreeMap::new();
        let windows: BTreeMap<EndpointId, u32> = batch.iter().map(|(c, _)| (c.endpoint, c.window)).collect();
        let mut queue: Vec<NewJob> = Vec::with_capacity(claimed.len());
        for job in &claimed {
            let endpoint = job.delivery.endpoint;
            *counts.entry(endpoint).or_default() += 1;
            queue.extend(jobs::claimed(job, windows.get(&endpoint).copied().unwrap_or(1), now));
        }
        for (candidate, limit) in &batch {
            // Fewer than asked for: nothing more is due there, new deliveries may go the short way again.
            if counts.get(&candidate.endpoint).copied().unwrap_or(0) < *limit {
                self.handoff.relieve(candidate.endpoint);
            } else {
                self.handoff.congest(candidate.endpoint);
            }
        }
        if !queue.is_empty() {
            pass(Point::AfterClaim);
            self.handoff.enqueue(&queue).await;
            pass(Point::AfterFeed);
        }
        Ok(())
    }
}

enum Gate {
    /// Sent to, with this window.
    Open(u32),
    /// Not now.
    Closed,
    /// Never again.
    Gone(CancelScope, DeliveryReason),
}

/// Spreads `limit` rows a batch over projects by turns, and within a project over its endpoints, until every room is used.
fn fair_batches(candidates: Vec<Candidate>, limit: u32) -> Vec<Vec<(Candidate, u32)>> {
    let mut projects: BTreeMap<ProjectId, Vec<Candidate>> = BTreeMap::new();
    for candidate in candidates {
        projects.entry(candidate.project).or_default().push(candidate);
    }
    let mut batches = vec![Vec::new()];
    let mut left = limit;
    while !projects.is_empty() {
        projects.retain(|_, waiting| {
            if let Some(candidate) = waiting.pop() {
                let want = candidate.room.min(limit);
                if want > left {
                    batches.push(Vec::new());
                    left = limit;
                }
                left -= want;
                if let Some(batch) = batches.last_mut() {
                    batch.push((candidate, want));
                }
            }
            !waiting.is_empty()
        });
    }
    batches.retain(|batch| !batch.is_empty());
    batches
}

#[cfg(test)]
mod tests {
    use outrider_model::Timestamp;

    use super::*;

    fn candidate(project: u64, endpoint: u64, room: u32) -> Candidate {
        Candidate {
            endpoint: EndpointId::new(Timestamp(0), endpoint),
            project: ProjectId::new(Timestamp(0), project),
            window: 64,
            room,
            epoch: 1,
        }
    }

    #[test]
    fn projects_take_turns_and_batches_stay_within_the_limit() {
        let mut candidates: Vec<Candidate> = (0..100).map(|n| candidate(1, n, 64)).collect();
        candidates.push(candidate(2, 1_000, 64));
        let batches = fair_batches(candidates, 128);
        let second = ProjectId::new(Timestamp(0), 2);
        assert!(batches[0].iter().any(|(candidate, _)| candidate.project == second), "the small project is in the first batch");
        assert_eq!(batches.iter().map(Vec::len).sum::<usize>(), 101);
        for batch in &batches {
            assert!(batch.iter().map(|(_, want)| want).sum::<u32>() <= 128);
        }
    }

    #[test]
    fn a_room_above_the_limit_is_cut_to_it() {
        let batches = fair_batches(vec![candidate(1, 1, 1_000), candidate(1, 2, 1)], 10);
        let wants: Vec<Vec<u32>> = batches.iter().map(|batch| batch.iter().map(|(_, want)| *want).collect()).collect();
        assert_eq!(wants.concat().iter().sum::<u32>(), 11);
        assert!(fair_batches(Vec::new(), 10).is_empty());
    }
}
