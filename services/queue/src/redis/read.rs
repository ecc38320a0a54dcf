//! Takes new jobs, and jobs whose lease ran out.
//!
//! With several shards, a call first asks all of them at the same time without waiting, each for a
//! share, and returns what there is. If there is nothing, it waits on all of them. As soon as one
//! has jobs, the server ends the waits on the others, and jobs that these received at that moment
//! are returned as well. Every job that a server hands out is therefore returned by the call that
//! asked for it: none stays in a buffer while its lease runs, and no task outlives the call.

use std::time::Duration;

use ::redis::Value;
use futures::future::join_all;
use outrider_model::{Receipt, Result};
use tokio::{sync::watch, time::Instant};

use super::{
    RedisQueue, Shard,
    entry::{Batch, after},
    error::unexpected,
    job::Unusable,
    keys::GROUP,
    reader::{Ask, Taken},
    script,
};
use crate::{Done, LeasedJob};

/// How many entries one call of the script that takes over examines.
const PAGE: usize = 1_000;
/// After how many leases without activity a consumer that holds nothing is removed.
const FORGOTTEN_LEASES: u32 = 20;
/// How long one wait lasts if fewer jobs are wanted than there are shards. Each wait then covers
/// only some of the shards.
const SLICE: Duration = Duration::from_millis(100);

impl RedisQueue {
    pub(super) async fn read_shards(
        &self,
        consumer: &str,
        max: usize,
        wait: Duration,
    ) -> Result<Vec<LeasedJob>> {
        if max == 0 {
            return Ok(Vec::new());
        }
        let until = Instant::now() + wait;
        if let [shard] = &*self.shards {
            return self
                .read_into(shard, consumer, max, Some(until), &watch::Sender::new(false))
                .await;
        }
        loop {
            let shares = self.shares(max);
            let jobs = self.read_all(consumer, &shares, None).await?;
            if !jobs.is_empty() || Instant::now() >= until {
                return Ok(jobs);
            }
            // If waits cannot be ended, only short waits keep jobs that were received from being
            // held up.
            let ends = self.rights.may("client|id") && self.rights.may("client|unblock");
            let covered = ends && shares.len() == self.shards.len();
            let slice = if covered { until } else { until.min(Instant::now() + SLICE) };
            let jobs = self.read_all(consumer, &shares, Some(slice)).await?;
            if !jobs.is_empty() || covered {
                return Ok(jobs);
            }
        }
    }

    /// Returns how many jobs to request from each shard: `max` in total, beginning with another
    /// shard each time.
    fn shares(&self, max: usize) -> Vec<(&Shard, usize)> {
        let count = self.shards.len();
        let first = rand::random_range(0..count);
        (0..count)
            .map(|offset| {
                (
                    &self.shards[(first + offset) % count],
                    max / count + usize::from(offset < max % count),
                )
            })
            .filter(|(_, share)| *share > 0)
            .collect()
    }

    /// Asks these shards at the same time. The failure of a shard does not hold up jobs from
    /// others. If there are only failures, one is returned.
    async fn read_all(
        &self,
        consumer: &str,
        shares: &[(&Shard, usize)],
        until: Option<Instant>,
    ) -> Result<Vec<LeasedJob>> {
        let stop = watch::Sender::new(false);
        let healthy = shares.iter().filter(|(shard, _)| !shard.resting());
        let answers = join_all(
            healthy.map(|(shard, share)| self.read_into(shard, consumer, *share, until, &stop)),
        )
        .await;
        let asked = answers.len();
        let mut jobs = Vec::new();
        let mut failures = Vec::new();
        for answer in answers {
            match answer {
                Ok(taken) => jobs.extend(taken),
                Err(error) => failures.push(error),
            }
        }
        match failures.pop() {
            Some(error) if failures.len() + 1 == asked => Err(error),
            _ => {
                if asked == 0 {
                    // Every shard rests after a failure. The caller learns it at once, and decides
                    // when to try again.
                    return Err(outrider_model::Error::unavailable(
                        "redis: read: no shard answers",
                    ));
                }
                Ok(jobs)
            }
        }
    }

    /// Reads one shard. Restores its group if it is gone.
    async fn read_into(
        &self,
        shard: &Shard,
        consumer: &str,
        max: usize,
        until: Option<Instant>,
        stop: &watch::Sender<bool>,
    ) -> Result<Vec<LeasedJob>> {
        let ask = Ask { keys: &shard.keys, consumer, max, until };
        let mut restored = false;
        loop {
            match shard.readers.take(&ask, stop).await {
                Ok(Taken::Batch(batch)) => return Ok(self.lease(shard, batch, true).await),
                Ok(Taken::NoGroup) if !restored => {
                    self.restore(shard).await?;
                    restored = true;
                }
                Ok(Taken::NoGroup) => return Ok(Vec::new()),
                Err(error) => {
                    shard.rest();
                    return Err(error);
                }
            }
        }
    }

    /// Restores the group of a shard, and clears the rest of the shard (see the script).
    async fn restore(&self, shard: &Shard) -> Result<()> {
        let mut command = script::RESTORE.call(&shard.keys, 5, (1, 16));
        command.arg(GROUP);
        let made: i64 = self.call(&script::RESTORE, &command).await?;
        if made == 1 {
            tracing::warn!(
                shard = shard.number,
                "the shard was emptied by somebody: its group is made again"
            );
        }
        Ok(())
    }

    /// Turns a batch into leased jobs. Removes garbage, and finishes unusable jobs.
    async fn lease(&self, shard: &Shard, batch: Batch, first: bool) -> Vec<LeasedJob> {
        if !batch.garbage.is_empty() {
            self.discard(shard, &batch.garbage).await;
        }
        if !batch.unusable.is_empty() {
            self.finish_unusable(shard, batch.unusable).await;
        }
        let jobs = batch.jobs.into_iter().map(|(entry, job)| {
            let receipt = Receipt { shard: shard.number, entry, epoch: job.epoch };
            LeasedJob { job: job.into(), receipt, first }
        });
        jobs.collect()
    }

    /// Frees the places of jobs that this version cannot send. If that fails, they are found again
    /// when their lease runs out. Their deliveries are queued again by the feeder.
    async fn finish_unusable(&self, shard: &Shard, jobs: Vec<(String, Unusable, &'static str)>) {
        let mut done = Vec::with_capacity(jobs.len());
        for (entry, job, why) in jobs {
            let Unusable { delivery, endpoint, generation, epoch } = job;
            tracing::error!(%delivery, why, "a job is not sent");
            let receipt = Receipt { shard: shard.number, entry, epoch };
            done.push(Done { receipt, delivery, endpoint, generation });
        }
        if let Err(error) = self.finish_shards(&done).await {
            tracing::debug!(shard = shard.number, %error, "unusable jobs could not be removed");
        }
    }

    /// Removes entries that hold no job. If that fails, they are found and removed when their lease
    /// runs out.
    async fn discard(&self, shard: &Shard, garbage: &[String]) {
        tracing::warn!(
            shard = shard.number,
            entries = garbage.len(),
            first = garbage[0],
            "entries that hold no job are removed"
        );
        let mut ack = ::redis::cmd("XACK");
        ack.arg(shard.keys.stream()).arg(GROUP).arg(garbage);
        let mut delete = ::redis::cmd("XDEL");
        delete.arg(shard.keys.stream()).arg(garbage);
        for command in [delete, ack] {
            if let Err(failure) = self.commands.query::<i64>("remove garbage", &command).await {
                let error = outrider_model::Error::from(failure);
                tracing::debug!(shard = shard.number, error = %error,
                    "entries that hold no job could not be removed");
                return;
            }
        }
    }

    pub(super) async fn reclaim_shards(
        &self,
        consumer: &str,
        max: usize,
    ) -> Result<Vec<LeasedJob>> {
        let mut jobs = Vec::new();
        let mut failure = None;
        for shard in self.shards.iter() {
            if jobs.len() >= max {
                break;
            }
            let room = max - jobs.len();
            if let Err(error) = self.reclaim_shard(shard, consumer, room, &mut jobs).await {
                failure = Some(error);
            }
        }
        match failure {
            Some(error) if jobs.is_empty() => Err(error),
            _ => Ok(jobs),
        }
    }

    /// Scans held jobs by page, and takes over those whose lease ran out.
    async fn reclaim_shard(
        &self,
        shard: &Shard,
        consumer: &str,
        max: usize,
        jobs: &mut Vec<LeasedJob>,
    ) -> Result<()> {
        let lease = u64::try_from(self.options.lease.as_millis()).unwrap_or(u64::MAX);
        let full = jobs.len() + max;
        let mut start = Some("-".to_owned());
        // The start of the scan only moves forward, so the scan ends.
        while let Some(from) = start.take().filter(|_| jobs.len() < full) {
            let forgotten =
                if from == "-" { lease.saturating_mul(u64::from(FORGOTTEN_LEASES)) } else { 0 };
            let mut command = script::RECLAIM.call(&shard.keys, 1, (7, 128 + consumer.len()));
            let most = PAGE.min(full - jobs.len());
            command
                .arg(GROUP)
                .arg(consumer)
                .arg(lease)
                .arg(from)
                .arg(PAGE)
                .arg(most)
                .arg(forgotten);
            let answer =
                self.commands.call::<(String, i64, Value)>(&script::RECLAIM, &command).await;
            let (last, more, entries) = match answer {
                Ok(answer) => answer,
                Err(failure) if failure.says("NOGROUP") => return self.restore(shard).await,
                Err(failure) => return Err(failure.into()),
            };
            let batch =
                Batch::of_entries(entries).ok_or_else(|| unexpected(script::RECLAIM.name))?;
            jobs.extend(self.lease(shard, batch, false).await);
            if more == 1 {
                start = after(&last);
            }
        }
        Ok(())
    }
}
