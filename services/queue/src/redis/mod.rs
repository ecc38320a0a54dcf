//! The queue in Redis 6.0 or later, Valkey, or a cluster of either.
//!
//! A shard is five keys on one node: the stream of jobs, the places of jobs that wait or are held,
//! the parts of the window that each endpoint, project and organization uses, the epoch, and the
//! identity of the server that wrote them. A step that reads and then writes is one script, so no
//! crash and no race leaves it half done.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use ::redis::{Cmd, FromRedisValue};
use async_trait::async_trait;
use futures::future::try_join_all;
use outrider_model::{DeliveryId, EndpointId, Error, Reason, Receipt, Recipient, Result};
use outrider_telemetry::{catalog::queue::SECTION, essential, metrics};
use tokio::task::AbortHandle;

use crate::{
    Done, Enqueued, LeasedJob, NewJob, Options, Queue, RedisTls,
    changes::Changes,
    servers,
    shard::{random_epoch, shard_of},
};

mod ask;
mod entry;
mod error;
mod job;
mod keys;
mod pool;
mod probe;
mod read;
mod reader;
mod rights;
mod script;
mod shard;
mod subscriber;
mod words;
mod write;

use keys::{GROUP, ShardKeys, changes_channel};
use pool::Commands;
use probe::Probe;
use reader::Readers;
use rights::Rights;
use script::Script;
use shard::Shard;

/// The queue in Redis.
pub struct RedisQueue {
    options: Options,
    commands: Arc<Commands>,
    shards: Arc<[Shard]>,
    rights: Arc<Rights>,
    channel: String,
    changes: Arc<Changes>,
    /// Whether the log says that the server's eviction policy is unknown.
    policy_told: AtomicBool,
    /// The tasks that listen for changes and probe rights.
    tasks: [AbortHandle; 2],
}

impl RedisQueue {
    /// Creates a queue with these options. The server need not answer now, because nothing that
    /// Outrider accepts depends on it. A server that answers and is configured to evict Outrider's
    /// keys is refused. Must be called within a tokio runtime, on which the listener for changes
    /// runs until the queue is dropped.
    ///
    /// # Errors
    /// `InvalidField` names the wrong option; `FailedPrecondition` says that the server evicts
    /// keys.
    pub async fn connect(options: Options, tls: &RedisTls) -> Result<Self> {
        let servers = servers::parse(&options.url, options.cluster, tls)
            .map_err(|invalid| Error::field(invalid.key, invalid.message))?;
        metrics::expose(&SECTION);
        let rights = Arc::new(Rights::new());
        let commands =
            Commands::new(&servers, &options, tls, Arc::clone(&rights)).map_err(|error| {
                Error::field("queue.url", format!("cannot be used: {}", error.category()))
            })?;
        let shards = (0..options.shards).map(|number| Shard {
            number,
            keys: ShardKeys::new(&options.prefix, options.shards, number),
            readers: Readers::new(servers.clone(), &options, Arc::clone(&rights)),
            rests_until: Mutex::new(None),
        });
        let (commands, shards): (_, Arc<[Shard]>) = (Arc::new(commands), shards.collect());
        let channel = changes_channel(&options.prefix);
        let changes = Arc::new(Changes::default());
        let (bound, to_wake, noted) =
            (options.command_timeout, Arc::clone(&changes), Arc::clone(&rights));
        let listen = subscriber::listen(servers, channel.clone(), bound, to_wake, noted);
        let listener = tokio::spawn(essential("subscriber", listen)).abort_handle();
        let probe = Probe {
            commands: Arc::clone(&commands),
            shards: Arc::clone(&shards),
            rights: Arc::clone(&rights),
            channel: channel.clone(),
        };
        probe.once(true).await;
        let prober = tokio::spawn(essential("probe", probe.run())).abort_handle();
        let queue = Self {
            options,
            commands,
            shards,
            rights,
            channel,
            changes,
            policy_told: AtomicBool::new(false),
            tasks: [listener, prober],
        };
        match queue.first_answer().await {
            Err(error) if error.reason == Reason::FailedPrecondition => Err(error),
            Err(error) => {
                tracing::warn!(error = %error, "redis is of no use yet; deliveries wait in the \
                    database");
                Ok(queue)
            }
            Ok(()) => Ok(queue),
        }
    }

    /// Fails if the server does not answer, or if its configuration makes it unusable.
    async fn first_answer(&self) -> Result<()> {
        // If the probe was refused or not answered, reading the epochs would take as long again.
        self.rights.ready()?;
        self.all_epochs().await.map(drop)
    }

    /// Calls a script. Any reply but the expected one is an error.
    async fn call<T: FromRedisValue>(&self, script: &Script, command: &Cmd) -> Result<T> {
        Ok(self.commands.call(script, command).await?)
    }

    async fn all_epochs(&self) -> Result<Vec<i64>> {
        self.rights.allow()?;
        try_join_all(self.shards.iter().map(|shard| self.epoch(shard))).await
    }

    async fn epoch(&self, shard: &Shard) -> Result<i64> {
        let mut command = script::EPOCH.call(&shard.keys, 5, (2, 32));
        command.arg(GROUP).arg(random_epoch());
        let (epoch, new, policy): (i64, i64, String) = self.call(&script::EPOCH, &command).await?;
        if policy.starts_with("allkeys") {
            let message = format!(
                "redis: maxmemory-policy is {policy}, which evicts keys that are in use: set \
                    noeviction"
            );
            return Err(Error::new(Reason::FailedPrecondition, message));
        }
        // If the right to read the policy is missing, the probe says so.
        if policy == "-" && !self.policy_told.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "redis does not say its maxmemory-policy, which must not be one of allkeys-*"
            );
        }
        if new == 1 {
            // A new server may grant other rights.
            self.rights.doubt();
            tracing::info!(
                shard = shard.number,
                epoch,
                "the shard is new, was emptied, or its server changed: it has a new epoch"
            );
        }
        Ok(epoch)
    }

    /// Groups the positions of endpoints by their shard.
    fn by_shard(&self, endpoints: impl Iterator<Item = EndpointId>) -> Vec<(&Shard, Vec<usize>)> {
        let mut groups = BTreeMap::<u32, Vec<usize>>::new();
        for (index, endpoint) in endpoints.enumerate() {
            groups.entry(self.shard(endpoint)).or_default().push(index);
        }
        groups
            .into_iter()
            .filter_map(|(number, indexes)| Some((self.shards.get(number as usize)?, indexes)))
            .collect()
    }
}

impl Drop for RedisQueue {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

#[async_trait]
impl Queue for RedisQueue {
    fn shard(&self, endpoint: EndpointId) -> u32 {
        shard_of(endpoint, self.options.shards)
    }

    async fn epochs(&self) -> Result<Vec<i64>> {
        // A server that was later configured to evict keys is not ready either.
        self.all_epochs().await.map_err(|error| Error::unavailable(error.message))
    }

    async fn enqueue(&self, jobs: &[NewJob]) -> Result<Vec<Enqueued>> {
        self.rights.allow()?;
        self.enqueue_shards(jobs).await
    }

    async fn read(&self, consumer: &str, max: usize, wait: Duration) -> Result<Vec<LeasedJob>> {
        self.rights.allow()?;
        self.read_shards(consumer, max, wait).await
    }

    async fn reclaim(&self, consumer: &str, max: usize) -> Result<Vec<LeasedJob>> {
        self.rights.allow()?;
        self.reclaim_shards(consumer, max).await
    }

    async fn renew(&self, consumer: &str, receipts: &[Receipt]) -> Result<Vec<Receipt>> {
        self.rights.allow()?;
        self.renew_shards(consumer, receipts).await
    }

    async fn finish(&self, done: &[Done]) -> Result<()> {
        self.rights.allow()?;
        self.finish_shards(done).await
    }

    async fn held(&self, deliveries: &[(EndpointId, DeliveryId)]) -> Result<Vec<Option<u32>>> {
        self.held_in_shards(deliveries).await
    }

    async fn room(&self, endpoints: &[(Recipient, u32)]) -> Result<Vec<u32>> {
        self.room_in_shards(endpoints).await
    }

    async fn depths(&self) -> Result<Vec<u64>> {
        let lengths = self.shards.iter().map(|shard| async move {
            let mut command = ::redis::cmd("HLEN");
            command.arg(shard.keys.held());
            self.commands.query::<u64>("depth", &command).await
        });
        Ok(try_join_all(lengths).await?)
    }

    async fn ready(&self) -> Result<()> {
        self.rights.ready()?;
        self.depth().await.map(drop)
    }

    async fn announce_change(&self) -> Result<()> {
        let mut command = ::redis::cmd("PUBLISH");
        command.arg(&self.channel).arg("");
        Ok(self.commands.query::<i64>("announce", &command).await.map(drop)?)
    }

    async fn change_announced(&self) {
        self.changes.announced().await;
    }
}
