//! A small deployment. The database survives every fault. Everything else is lost together with its
//! owner.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use outrider_model::{
    AttemptOutcome, DeliveryId, DeliveryStatus, EndpointId, EventId, HoldReason, PendingDelivery,
    ProjectId, RetryPolicy, Timestamp,
    delivery::{JobVerdict, Step, judge_attempt, judge_hold, step},
};
use proptest::{prop_assert, prop_assert_eq, test_runner::TestCaseError};

pub const DELIVERIES: u8 = 4;
pub const WORKERS: usize = 2;
/// The number of jobs that fit the queue.
const WINDOW: usize = 3;
/// The number of attempts in the schedule.
const ATTEMPTS: u32 = 3;

/// One step of one role.
#[derive(Debug, Clone, Copy)]
pub enum Move {
    /// Dispatch commits a delivery, and marks it as queued if it knows the queue. The job goes to
    /// the handoff.
    Accept(u8),
    /// Dispatch puts the next job of the handoff on the queue. If the queue refuses it, dispatch
    /// removes its mark.
    Enqueue,
    /// Dispatch marks unmarked rows, and passes their jobs to the handoff.
    Feed,
    /// A worker takes the job that has waited longest.
    Take(usize),
    /// A worker sends its first job that it has not sent.
    Send { worker: usize, succeeds: bool },
    /// A worker gives back its first unsent job, because it shuts down or the endpoint is paused.
    GiveBack(usize),
    /// A worker's first report is committed and acknowledged. Its job can then be removed from the
    /// queue.
    Settle(usize),
    /// Dispatch removes the next settled job from the queue.
    Finish,
    /// Dispatch reads the epoch of the queue.
    WatchEpochs,
    /// Something breaks.
    Fault(Fault),
}

#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// Dispatch loses the handoff, the jobs to be removed, and the known epoch.
    DispatchDies,
    /// A worker loses everything that it holds, and its leases run out.
    WorkerDies(usize),
    /// All jobs are lost, and the queue gets another epoch.
    QueueIsFlushed,
    /// The next job is queued, but dispatch does not learn of it and removes the mark.
    EnqueueIsLost,
    /// The feeder checks queued rows before their check is due, because a clock stepped.
    OverdueIsAskedEarly,
    /// Another worker takes over the jobs that this one still works on.
    LeasesRunOut(usize),
    /// A commit succeeds, but the worker does not learn of it and reports again.
    SettleAnswerIsLost(usize),
}

/// A job on the queue or in a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Job {
    delivery: u8,
    attempt: u32,
    generation: u32,
    epoch: i64,
}

#[derive(Debug, Clone, Copy)]
struct Held {
    job: Job,
    result: Option<Outcome>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Attempted(AttemptOutcome),
    Held(HoldReason),
}

struct Entry {
    job: Job,
    holder: Option<usize>,
}

#[derive(Default)]
struct Queue {
    epoch: i64,
    entries: Vec<Entry>,
}

impl Queue {
    fn position(&self, delivery: u8) -> Option<usize> {
        self.entries.iter().position(|entry| entry.job.delivery == delivery)
    }
}

#[derive(Default)]
struct Database {
    pending: BTreeMap<u8, PendingDelivery>,
    ended: BTreeMap<u8, (DeliveryStatus, u32)>,
    attempts: BTreeSet<(u8, u32, u32)>,
}

#[derive(Default)]
pub struct World {
    database: Database,
    queue: Queue,
    known_epoch: Option<i64>,
    handoff: Vec<Job>,
    finishing: Vec<Job>,
    workers: [Vec<Held>; WORKERS],
    accepted: BTreeSet<u8>,
    /// The numbers of the attempts that were sent, for each delivery.
    sent: BTreeMap<u8, Vec<u32>>,
    succeeded: BTreeSet<u8>,
    /// The number of jobs that were in flight when something broke. As many may be sent once more.
    exposed: usize,
}

impl World {
    pub fn apply(&mut self, step: Move) {
        match step {
            Move::Accept(delivery) => self.accept(delivery),
            Move::Enqueue => self.enqueue(true),
            Move::Feed => self.feed(),
            Move::Take(worker) => self.take(worker),
            Move::Send { worker, succeeds } => self.send(worker, succeeds),
            Move::GiveBack(worker) => self.give_back(worker),
            Move::Settle(worker) => self.settle(worker, true),
            Move::Finish => self.finish(),
            Move::WatchEpochs => self.watch_epochs(),
            Move::Fault(fault) => self.fail(fault),
        }
    }

    fn fail(&mut self, fault: Fault) {
        let in_hand: usize = self.workers.iter().map(Vec::len).sum();
        self.exposed += self.handoff.len() + self.queue.entries.len() + in_hand;
        match fault {
            Fault::DispatchDies => {
                self.handoff.clear();
                self.finishing.clear();
                self.known_epoch = None;
            }
            Fault::WorkerDies(worker) => {
                self.workers[worker].clear();
                self.take_over(worker);
            }
            Fault::QueueIsFlushed => {
                self.queue.entries.clear();
                self.queue.epoch += 1;
            }
            Fault::EnqueueIsLost => self.enqueue(false),
            Fault::OverdueIsAskedEarly => self.ask_overdue(),
            Fault::LeasesRunOut(worker) => self.take_over(worker),
            Fault::SettleAnswerIsLost(worker) => self.settle(worker, false),
        }
    }

    fn accept(&mut self, delivery: u8) {
        if !self.accepted.insert(delivery) {
            return;
        }
        let row = PendingDelivery {
            queued_epoch: self.known_epoch,
            generation: u32::from(self.known_epoch.is_some()),
            ..row(delivery)
        };
        self.handoff.extend(job(delivery, &row));
        self.database.pending.insert(delivery, row);
    }

    fn enqueue(&mut self, learned: bool) {
        if self.handoff.is_empty() {
            return;
        }
        let job = self.handoff.remove(0);
        let present = self.queue.position(job.delivery).is_some();
        let fits = job.epoch == self.queue.epoch && self.queue.entries.len() < WINDOW;
        if fits && !present {
            self.queue.entries.push(Entry { job, holder: None });
        }
        // A row whose job is on the queue keeps its mark, and is checked later.
        if !learned || !(fits || present && job.epoch == self.queue.epoch) {
            self.unqueue(job.delivery, job.generation);
        }
    }

    fn unqueue(&mut self, delivery: u8, generation: u32) {
        if let Some(row) =
            self.database.pending.get_mut(&delivery).filter(|row| row.generation == generation)
        {
            row.queued_epoch = None;
        }
    }

    fn feed(&mut self) {
        let Some(epoch) = self.known_epoch else { return };
        let room = WINDOW.saturating_sub(self.queue.entries.len() + self.handoff.len());
        for (delivery, row) in self
            .database
            .pending
            .iter_mut()
            .filter(|(_, row)| row.queued_epoch.is_none())
            .take(room)
        {
            row.queued_epoch = Some(epoch);
            row.generation += 1;
            self.handoff.extend(job(*delivery, row));
        }
    }

    fn take(&mut self, worker: usize) {
        let Some(entry) = self.queue.entries.iter_mut().find(|entry| entry.holder.is_none()) else {
            return;
        };
        entry.holder = Some(worker);
        let job = entry.job;
        self.take_in_hand(worker, job);
    }

    /// An attempt that a worker already has is not started again. The place of a job with another
    /// generation is given back.
    fn take_in_hand(&mut self, worker: usize, job: Job) {
        let same =
            |held: &&Held| held.job.delivery == job.delivery && held.job.attempt == job.attempt;
        match self.workers[worker]
            .iter()
            .find(same)
            .map(|held| held.job.generation == job.generation)
        {
            Some(true) => {}
            Some(false) => self.workers[worker]
                .push(Held { job, result: Some(Outcome::Held(HoldReason::Stale)) }),
            None => self.workers[worker].push(Held { job, result: None }),
        }
    }

    /// The previous worker may have sent it. The database decides whether it still counts.
    fn take_over(&mut self, from: usize) {
        let to = (from + 1) % WORKERS;
        let taken: Vec<Job> = self
            .queue
            .entries
            .iter_mut()
            .filter(|entry| entry.holder == Some(from))
            .map(|entry| {
                entry.holder = Some(to);
                entry.job
            })
            .collect();
        for job in taken {
            let current = self.database.pending.get(&job.delivery).is_some_and(|row| {
                row.attempt == job.attempt
                    && row.generation == job.generation
                    && row.queued_epoch.is_some()
            });
            if current {
                self.take_in_hand(to, job);
            } else {
                self.workers[to].push(Held { job, result: Some(Outcome::Held(HoldReason::Stale)) });
            }
        }
    }

    fn send(&mut self, worker: usize, succeeds: bool) {
        let Some(held) = self.workers[worker].iter_mut().find(|held| held.result.is_none()) else {
            return;
        };
        let outcome = if succeeds { AttemptOutcome::Succeeded } else { AttemptOutcome::Rejected };
        held.result = Some(Outcome::Attempted(outcome));
        self.sent.entry(held.job.delivery).or_default().push(held.job.attempt);
        if succeeds {
            self.succeeded.insert(held.job.delivery);
        }
    }

    fn give_back(&mut self, worker: usize) {
        if let Some(held) = self.workers[worker].iter_mut().find(|held| held.result.is_none()) {
            held.result = Some(Outcome::Held(HoldReason::Released));
        }
    }

    fn settle(&mut self, worker: usize, learned: bool) {
        let Some(index) = self.workers[worker].iter().position(|held| held.result.is_some()) else {
            return;
        };
        let held = self.workers[worker][index];
        let Some(result) = held.result else { return };
        self.database.settle(held.job, result);
        if learned {
            self.workers[worker].remove(index);
            self.finishing.push(held.job);
        }
    }

    fn finish(&mut self) {
        if self.finishing.is_empty() {
            return;
        }
        let done = self.finishing.remove(0);
        if done.epoch == self.queue.epoch {
            self.queue.entries.retain(|entry| entry.job != done);
        }
    }

    fn watch_epochs(&mut self) {
        let epoch = self.queue.epoch;
        if self.known_epoch != Some(epoch) {
            for row in self
                .database
                .pending
                .values_mut()
                .filter(|row| row.queued_epoch.is_some_and(|other| other != epoch))
            {
                row.queued_epoch = None;
            }
            self.known_epoch = Some(epoch);
        }
    }

    fn ask_overdue(&mut self) {
        let lost: Vec<u8> = self
            .database
            .pending
            .iter()
            .filter(|(delivery, row)| {
                row.queued_epoch.is_some() && self.queue.position(**delivery).is_none()
            })
            .map(|(delivery, _)| *delivery)
            .collect();
        for delivery in lost {
            let generation = self.database.pending[&delivery].generation;
            self.unqueue(delivery, generation);
        }
    }

    /// Ends all faults. Every role then continues until nothing is left to do.
    pub fn settle_down(&mut self) {
        // Each round settles something, unless every delivery has ended.
        for _ in 0..usize::from(DELIVERIES) * 20 {
            self.watch_epochs();
            self.feed();
            while !self.handoff.is_empty() {
                self.enqueue(true);
            }
            for worker in 0..WORKERS {
                self.take(worker);
                // A job that nobody works on is taken over in time.
                let gone = self.queue.entries.iter().any(|entry| {
                    entry.holder == Some(worker)
                        && !self.workers[worker].iter().any(|held| held.job == entry.job)
                });
                if gone && self.finishing.is_empty() {
                    self.take_over(worker);
                }
                while self.workers[worker].iter().any(|held| held.result.is_none()) {
                    self.send(worker, true);
                }
                while !self.workers[worker].is_empty() {
                    self.settle(worker, true);
                }
            }
            while !self.finishing.is_empty() {
                self.finish();
            }
            self.ask_overdue();
        }
    }

    /// Checks what must hold after every step.
    pub fn check(&self) -> Result<(), TestCaseError> {
        for delivery in &self.accepted {
            let (pending, ended) =
                (self.database.pending.get(delivery), self.database.ended.get(delivery));
            prop_assert!(
                pending.is_some() != ended.is_some(),
                "delivery {delivery} is in one place"
            );
            if let Some(row) = pending {
                prop_assert!(row.attempt <= ATTEMPTS, "delivery {delivery} keeps to its schedule");
            }
            if let Some((status, attempts)) = ended {
                let delivered = *status == DeliveryStatus::Delivered;
                prop_assert!(
                    !delivered || self.succeeded.contains(delivery),
                    "{delivery} was taken by its endpoint"
                );
                prop_assert!(
                    delivered || *attempts == ATTEMPTS,
                    "{delivery} failed after its whole schedule"
                );
                prop_assert!((1..=ATTEMPTS).contains(attempts));
            }
        }
        Ok(())
    }

    pub fn check_ended(&self) -> Result<(), TestCaseError> {
        self.check()?;
        prop_assert!(
            self.database.pending.is_empty(),
            "pending for ever: {:?}",
            self.database.pending.keys()
        );
        prop_assert_eq!(self.database.ended.len(), self.accepted.len());
        prop_assert!(self.queue.entries.is_empty(), "the queue is empty in the end");
        let sent: usize = self.sent.values().map(Vec::len).sum();
        let different: usize =
            self.sent.values().map(|attempts| attempts.iter().collect::<BTreeSet<_>>().len()).sum();
        prop_assert!(
            sent - different <= self.exposed,
            "{} doubled, {} were in flight",
            sent - different,
            self.exposed
        );
        Ok(())
    }

    pub fn check_sent_once(&self) -> Result<(), TestCaseError> {
        for (delivery, (_, attempt_count)) in &self.database.ended {
            let sent = self.sent.get(delivery).cloned().unwrap_or_default();
            prop_assert_eq!(sent, (1..=*attempt_count).collect::<Vec<_>>());
        }
        Ok(())
    }
}

impl Database {
    /// One commit: the attempt is recorded, and the verdict takes effect if it still applies.
    fn settle(&mut self, job: Job, result: Outcome) {
        let (verdict, attempted) = match result {
            Outcome::Attempted(outcome) => {
                let policy = RetryPolicy::new(vec![Duration::ZERO; ATTEMPTS as usize - 1]);
                self.attempts.insert((job.delivery, job.attempt, job.generation));
                (judge_attempt(outcome, job.attempt, Timestamp(0), &policy, 0.5), true)
            }
            Outcome::Held(reason) => (judge_hold(reason), false),
        };
        let Some(row) = self.pending.get_mut(&job.delivery) else { return };
        let report =
            JobVerdict { attempt: job.attempt, generation: job.generation, attempted, verdict };
        match step(row, report) {
            None => {}
            Some(Step::Wait { attempt, due_at }) => {
                (row.attempt, row.due_at, row.queued_epoch) = (attempt, due_at, None);
            }
            Some(Step::End { status, attempt_count, .. }) => {
                self.pending.remove(&job.delivery);
                self.ended.insert(job.delivery, (status, attempt_count));
            }
        }
    }
}

fn job(delivery: u8, row: &PendingDelivery) -> Option<Job> {
    let epoch = row.queued_epoch?;
    Some(Job { delivery, attempt: row.attempt, generation: row.generation, epoch })
}

fn row(delivery: u8) -> PendingDelivery {
    let (event, endpoint) =
        (EventId::new(Timestamp(0), u64::from(delivery)), EndpointId::new(Timestamp(0), 0));
    PendingDelivery {
        id: DeliveryId::derive(Timestamp(0), event, endpoint, 0),
        project: ProjectId::new(Timestamp(0), 0),
        event,
        event_type: "a".into(),
        endpoint,
        subscriptions: Vec::new(),
        replay_number: 0,
        attempt: 1,
        due_at: Timestamp(0),
        queued_epoch: None,
        generation: 0,
        check_at: Timestamp(0),
        created_at: Timestamp(0),
    }
}
