//! The healthy tenant publishes at a steady pace over REST and gRPC to its own endpoints, and keeps
//! a ledger of answers and arrivals.
//!
//! It runs on a separate thread, so that it measures the server and not the attackers.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use outrider_tests::{Outrider, Received};
use serde_json::{Value, json};
use tokio::{
    sync::oneshot,
    task::{JoinSet, block_in_place},
    time::{sleep, sleep_until},
};

use super::seen::{Sample, Seen};
use crate::{
    faults::ledger::{Book, Door, Fate, publish_until_answered},
    load::all_settled,
    scenario::{Scenario, Target},
    verify,
};

/// Events per second, each to every endpoint.
pub const RATE: u32 = 50;
/// The healthy tenant's endpoints.
const PATHS: [&str; 2] = ["/healthy/0", "/healthy/1"];
/// Most payloads are small. One in this many is too large to travel with its job.
const LARGE: usize = 20;
const SIZES: [usize; 2] = [900, 40 << 10];
/// How many events arrive before the tenant counts as started.
const WARM: usize = 50;
/// The time without an arrival after which the rest counts as lost.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many events are published between two checks of the arrivals.
const SWEEP: usize = 10;

/// The running tenant.
pub struct Healthy {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Seen>>,
    /// Its project.
    pub project: String,
}

impl Healthy {
    /// Starts the tenant. Its first events have arrived when this returns.
    pub async fn start(outrider: &Arc<Outrider>) -> Result<Self> {
        let stop = Arc::<AtomicBool>::default();
        let (ready, warm) = oneshot::channel();
        let (stopped, outrider) = (Arc::clone(&stop), Arc::clone(outrider));
        let thread = std::thread::Builder::new().name("healthy".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async { Tenant::new(&outrider).await?.live(&stopped, ready).await })
        })?;
        match warm.await {
            Ok(project) => Ok(Self { stop, thread, project }),
            Err(_) => {
                Err(joined(thread).err().unwrap_or_else(|| anyhow!("it ended before it had begun")))
            }
        }
    }

    /// Stops publishing, waits for the arrivals, and returns the observations.
    pub fn finish(self) -> Result<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        joined(self.thread)
    }
}

fn joined(thread: JoinHandle<Result<Seen>>) -> Result<Seen> {
    let ended = block_in_place(|| thread.join());
    ended.map_err(|_| anyhow!("the healthy tenant panicked"))?.context("the healthy tenant")
}

/// When an event arrived at each endpoint, and with which id.
type Arrivals = [Option<(Instant, String)>; PATHS.len()];

struct Tenant {
    scenario: Scenario,
    targets: Vec<Target>,
    doors: [Door; 2],
    book: Arc<Book>,
    publishing: JoinSet<()>,
    /// The number of published events.
    published: usize,
    /// Events that are not complete.
    open: HashMap<usize, Arrivals>,
    seen: Seen,
}

impl Tenant {
    async fn new(outrider: &Outrider) -> Result<Self> {
        let scenario = Scenario::new(outrider).await?;
        let mut targets = Vec::new();
        for path in PATHS {
            let target = scenario.endpoint(path, json!({})).await?;
            scenario.subscribe(&target, &["load"]).await?;
            targets.push(target);
        }
        scenario.settle().await?;
        let doors = [Door::Rest(scenario.rest.clone()), Door::Grpc(scenario.grpc().await?)];
        let seen = Seen { arrivals: vec![Vec::new(); PATHS.len()], ..Seen::default() };
        let (book, publishing) = (Arc::new(Book::new()), JoinSet::new());
        Ok(Self {
            scenario,
            targets,
            doors,
            book,
            publishing,
            published: 0,
            open: HashMap::new(),
            seen,
        })
    }

    async fn live(mut self, stop: &AtomicBool, ready: oneshot::Sender<String>) -> Result<Seen> {
        let (mut ready, begin) = (Some(ready), Instant::now());
        for number in 0.. {
            let due = begin + Duration::from_secs(1) * number / RATE;
            sleep_until(due.into()).await;
            if stop.load(Ordering::Relaxed) {
                break;
            }
            self.seen.late.push(Sample { at: due, took: due.elapsed() });
            self.publish(usize::try_from(number)?);
            if self.published.is_multiple_of(SWEEP) {
                self.sweep();
            }
            if self.seen.arrivals.iter().all(|arrivals| arrivals.len() >= WARM)
                && let Some(ready) = ready.take()
            {
                ready.send(self.scenario.project.clone()).map_err(|_| anyhow!("nobody waits"))?;
            }
            ensure!(
                ready.is_none() || begin.elapsed() < PATIENCE,
                "nothing arrives: {}",
                self.book.timeline()
            );
        }
        self.end().await
    }

    fn publish(&mut self, number: usize) {
        let size = SIZES[usize::from(number.is_multiple_of(LARGE))];
        let body = format!(r#"{{"number": {number}, "filler": "{}"}}"#, "x".repeat(size));
        let (book, door) = (Arc::clone(&self.book), self.doors[number % self.doors.len()].clone());
        let project = self.scenario.project.clone();
        self.open.insert(number, Arrivals::default());
        self.published += 1;
        self.publishing.spawn(async move {
            publish_until_answered(&book, &door, &project, number, body, true).await
        });
        while self.publishing.try_join_next().is_some() {}
    }

    /// Checks everything that arrived since the last time.
    fn sweep(&mut self) {
        for place in 0..self.targets.len() {
            for received in self.scenario.receiver.take(&self.targets[place].path) {
                self.seen.arrivals[place].push(received.at);
                if let Err(error) = self.check(place, &received) {
                    self.seen.wrong.push(format!("{error:#}"));
                }
            }
        }
        let (book, seen) = (&self.book, &mut self.seen);
        self.open.retain(|number, arrivals| !complete(book, seen, *number, arrivals));
    }

    /// Asserts that an arrival equals what was published, to the byte, and is signed.
    fn check(&mut self, place: usize, received: &Received) -> Result<()> {
        verify::genuine(received, &self.targets[place].secret)?;
        let body: Value = serde_json::from_slice(&received.body)?;
        let number = body["number"]
            .as_u64()
            .and_then(|number| usize::try_from(number).ok())
            .context("no number")?;
        ensure!(number < self.published, "{number} was never published");
        // The receiver counts duplicates.
        let Some(entry) = self.book.entry(number) else { return Ok(()) };
        ensure!(
            received.body == entry.body.as_bytes(),
            "{number} has another body than was published"
        );
        if let Some(arrivals) = self.open.get_mut(&number) {
            let (_, id) =
                arrivals[place].get_or_insert_with(|| (received.at, received.id().to_owned()));
            ensure!(id == received.id(), "{number} came as {id} and as {}", received.id());
        }
        Ok(())
    }

    /// Waits for the remaining answers and arrivals, and closes the ledger.
    async fn end(mut self) -> Result<Seen> {
        while self.publishing.join_next().await.is_some() {}
        let (mut left, mut since) = (usize::MAX, Instant::now());
        while !self.open.is_empty() && since.elapsed() < PATIENCE {
            self.sweep();
            if self.open.len() < left {
                (left, since) = (self.open.len(), Instant::now());
            }
            sleep(Duration::from_millis(20)).await;
        }
        for (number, arrivals) in &self.open {
            let missing = arrivals.iter().filter(|arrival| arrival.is_none()).count();
            match self.book.entry(*number).map(|entry| entry.fate) {
                Some(Fate::Accepted(id)) => {
                    self.seen.lost += missing;
                    self.seen.wrong.push(format!(
                        "LOST: {number}, accepted as {id}, is missing at {missing} endpoints"
                    ));
                }
                fate => self.seen.wrong.push(format!("{number} was not accepted: {fate:?}")),
            }
        }
        if let Err(error) = all_settled(&self.scenario, PATIENCE).await {
            self.seen.wrong.push(format!("{error:#}"));
        }
        self.sweep();
        self.seen.published = self.published;
        self.seen.duplicates =
            self.targets.iter().map(|target| self.scenario.receiver.duplicates(&target.path)).sum();
        self.seen.told = self.book.answers();
        self.seen.timeline = self.book.timeline();
        Ok(self.seen)
    }
}

/// Whether an event was answered and arrived everywhere. It is then measured and removed.
fn complete(book: &Book, seen: &mut Seen, number: usize, arrivals: &Arrivals) -> bool {
    if arrivals.iter().any(Option::is_none) {
        return false;
    }
    let Some(entry) = book.entry(number) else { return true };
    let (Fate::Accepted(accepted), Some(answered)) = (&entry.fate, entry.answered_at) else {
        return false;
    };
    for (at, id) in arrivals.iter().flatten() {
        seen.receipts.push(Sample {
            at: entry.asked_at,
            took: at.saturating_duration_since(entry.asked_at),
        });
        if id != accepted {
            seen.wrong.push(format!("{number} was accepted as {accepted} and came as {id}"));
        }
    }
    seen.answers.push(Sample { at: entry.asked_at, took: answered - entry.asked_at });
    book.forget(number);
    true
}
