//! Adds, renews and removes jobs, with one script call per shard and batch.

use ::redis::{Cmd, RedisWrite as _};
use futures::future::{join_all, try_join_all};
use outrider_model::{Receipt, Result, shares::SMALLEST_TOTAL};
use outrider_proto::internal;
use prost::Message as _;

use super::{
    RedisQueue, Shard,
    entry::is_entry,
    error::unexpected,
    job,
    keys::{GROUP, JOB_FIELD, place},
    script,
};
use crate::{Done, Enqueued, NewJob};

/// The most entries in one call of the scripts that renew and finish.
const ENTRIES: usize = 1_000;
/// The most jobs in one call of the script that queues. It unpacks up to eight values of each, and
/// a script can unpack 8,000.
const MOST_JOBS: usize = 900;
/// About how many bytes the arguments of one entry take in addition to the job.
const OVERHEAD: usize = 128;

/// A job with its form in Redis.
type Encoded<'j> = (&'j NewJob, internal::Job);

impl RedisQueue {
    pub(super) async fn enqueue_shards(&self, jobs: &[NewJob]) -> Result<Vec<Enqueued>> {
        let mut results = vec![Enqueued::Full; jobs.len()];
        let by_shard = self.by_shard(jobs.iter().map(NewJob::endpoint));
        let answers = join_all(
            by_shard.iter().map(|(shard, indexes)| self.enqueue_shard(shard, jobs, indexes)),
        )
        .await;
        for ((_, indexes), answer) in by_shard.iter().zip(answers) {
            for (index, result) in indexes.iter().zip(answer?) {
                results[*index] = result;
            }
        }
        Ok(results)
    }

    /// Queues the jobs of one shard, in order, with as few calls as the bounds allow.
    async fn enqueue_shard(
        &self,
        shard: &Shard,
        jobs: &[NewJob],
        indexes: &[usize],
    ) -> Result<Vec<Enqueued>> {
        let mut results = Vec::with_capacity(indexes.len());
        let encoded: Vec<_> =
            indexes.iter().map(|index| (&jobs[*index], job::encode(&jobs[*index].job))).collect();
        let mut rest = &encoded[..];
        while !rest.is_empty() {
            let (batch, bytes) = self.batch(rest);
            rest = &rest[batch.len()..];
            let command = self.enqueue_command(shard, batch, bytes);
            let numbers: Vec<u8> = self.call(&script::ENQUEUE, &command).await?;
            if numbers.len() != batch.len() {
                return Err(unexpected(script::ENQUEUE.name));
            }
            for number in numbers {
                results.push(outcome(number)?);
            }
        }
        Ok(results)
    }

    /// Returns the first jobs that fit into one call, at least one, and about how many bytes they
    /// take.
    fn batch<'j, 'a>(&self, jobs: &'a [Encoded<'j>]) -> (&'a [Encoded<'j>], usize) {
        let mut bytes = 0;
        let mut count = 0;
        for (_, encoded) in jobs.iter().take(self.options.batch_jobs.min(MOST_JOBS)) {
            let size = encoded.encoded_len() + OVERHEAD;
            if count > 0 && bytes + size > self.options.batch_bytes {
                break;
            }
            bytes += size;
            count += 1;
        }
        (&jobs[..count], bytes)
    }

    fn enqueue_command(&self, shard: &Shard, batch: &[Encoded<'_>], bytes: usize) -> Cmd {
        let window = self.options.window.max(SMALLEST_TOTAL);
        let mut command = script::ENQUEUE.call(&shard.keys, 4, (2 + 5 * batch.len(), bytes));
        command.arg(window).arg(JOB_FIELD);
        for (new, encoded) in batch {
            let job = &new.job;
            command
                .arg(job.epoch)
                .arg(job.delivery.as_bytes().as_slice())
                .arg(place(job.generation, new.units(window), &job.recipient).as_slice())
                .arg(new.endpoint_limit);
            // Encode directly into the command, so the payload is copied only once.
            let mut buffer = command.bufmut_for_next_arg(encoded.encoded_len());
            encoded.encode_raw(&mut buffer);
        }
        command
    }

    pub(super) async fn renew_shards(
        &self,
        consumer: &str,
        receipts: &[Receipt],
    ) -> Result<Vec<Receipt>> {
        let groups = self.by_number(receipts, |receipt| receipt);
        let lost =
            groups.iter().map(|(shard, receipts)| self.renew_shard(shard, consumer, receipts));
        Ok(try_join_all(lost).await?.concat())
    }

    async fn renew_shard(
        &self,
        shard: &Shard,
        consumer: &str,
        receipts: &[&Receipt],
    ) -> Result<Vec<Receipt>> {
        let mut all_lost = Vec::new();
        for receipts in receipts.chunks(ENTRIES) {
            let mut command = script::RENEW.call(
                &shard.keys,
                1,
                (receipts.len() + 2, receipts.len() * 24 + consumer.len()),
            );
            command.arg(GROUP).arg(consumer);
            for receipt in receipts {
                command.arg(&receipt.entry);
            }
            match self.commands.call::<Vec<usize>>(&script::RENEW, &command).await {
                Ok(lost) => all_lost.extend(
                    lost.into_iter().filter_map(|index| receipts.get(index).copied().cloned()),
                ),
                // The shard was emptied, so no job is held.
                Err(failure) if failure.says("NOGROUP") => {
                    all_lost.extend(receipts.iter().copied().cloned())
                }
                Err(failure) => return Err(failure.into()),
            }
        }
        Ok(all_lost)
    }

    pub(super) async fn finish_shards(&self, done: &[Done]) -> Result<()> {
        let groups = self.by_number(done, |done| &done.receipt);
        try_join_all(groups.iter().map(|(shard, done)| self.finish_shard(shard, done)))
            .await
            .map(drop)
    }

    async fn finish_shard(&self, shard: &Shard, done: &[&Done]) -> Result<()> {
        for done in done.chunks(ENTRIES) {
            let mut command =
                script::FINISH.call(&shard.keys, 4, (4 * done.len() + 1, done.len() * OVERHEAD));
            command.arg(GROUP);
            for done in done {
                command
                    .arg(done.receipt.epoch)
                    .arg(&done.receipt.entry)
                    .arg(done.delivery.as_bytes().as_slice())
                    .arg(done.generation.to_be_bytes().as_slice());
            }
            let freed: i64 = self.call(&script::FINISH, &command).await?;
            tracing::trace!(shard = shard.number, entries = done.len(), freed, "finished");
        }
        Ok(())
    }

    /// Groups items by the shard of their receipts. A receipt that cannot belong to this queue is
    /// left out, because it would make the batch of the others fail.
    fn by_number<'a, T>(
        &self,
        all: &'a [T],
        receipt: impl Fn(&T) -> &Receipt,
    ) -> Vec<(&Shard, Vec<&'a T>)> {
        let mut groups: Vec<_> = self.shards.iter().map(|shard| (shard, Vec::new())).collect();
        for one in all {
            let receipt = receipt(one);
            match groups.get_mut(receipt.shard as usize).filter(|_| is_entry(&receipt.entry)) {
                Some((_, group)) => group.push(one),
                None => tracing::warn!(
                    shard = receipt.shard,
                    "a receipt that is not of this queue is ignored"
                ),
            }
        }
        groups.retain(|(_, group)| !group.is_empty());
        groups
    }
}

fn outcome(number: u8) -> Result<Enqueued> {
    match number {
        0 => Ok(Enqueued::Queued),
        1 => Ok(Enqueued::Present),
        2 => Ok(Enqueued::Full),
        3 => Ok(Enqueued::WrongEpoch),
        _ => Err(unexpected(script::ENQUEUE.name)),
    }
}
