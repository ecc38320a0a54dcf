//! Asks Redis for every command, key and channel that the work needs, for real: at the start, when
//! something was refused, when the server is another, and every now and then.

use std::{sync::Arc, time::Duration};

use ::redis::Value;
use futures::future::join_all;
use tokio::time::{sleep, timeout};

use super::{
    error::Failure,
    keys::GROUP,
    pool::Commands,
    rights::{Refused, Right, Rights},
    script::PROBE,
    shard::Shard,
    words::sanitized,
};

/// How long between two probes while something that is needed is refused or unknown, and at least
/// between any two.
const AGAIN: Duration = Duration::from_secs(1);
/// How long until all is asked for again, though nothing gave a reason to.
const PERIOD: Duration = Duration::from_secs(10);
/// What is published to see whether that is allowed: those who listen know that it announces
/// nothing. One of a version that does not know it looks for changes once in vain, so it is only
/// published when there is reason to.
pub(super) const NO_CHANGE: &str = "probe";

/// Asks.
pub(super) struct Probe {
    pub(super) commands: Arc<Commands>,
    pub(super) shards: Arc<[Shard]>,
    pub(super) rights: Arc<Rights>,
    pub(super) channel: String,
}

impl Probe {
    /// Asks for ever.
    pub(super) async fn run(self) {
        let mut answered = self.rights.ready().is_ok();
        loop {
            sleep(AGAIN).await;
            let mut doubted = !answered;
            if self.rights.ready().is_ok() {
                // The end of the wait is as good a reason as any.
                doubted |= timeout(PERIOD, self.rights.doubted()).await.is_ok();
            }
            // An announcement that is refused raises a doubt, so nothing is lost by not publishing
            // each time.
            answered = self.once(doubted || !self.rights.may("publish")).await;
        }
    }

    /// Asks once, for the right to publish too if it is told to, and keeps the answer. Whether
    /// there was one.
    pub(super) async fn once(&self, publish: bool) -> bool {
        let refused = self.refused(publish).await;
        let answered = refused.is_ok();
        match refused {
            Ok(refused) => self.rights.found(refused),
            Err(failure) => self.rights.not_found(failure.into()),
        }
        answered
    }

    /// What is refused, in any shard.
    async fn refused(&self, publish: bool) -> Result<Refused, Failure> {
        let mut refused = Refused::new();
        // Always, not only where the server does not know the script: one that it knows would hide
        // that the right is missing.
        let loaded = self.commands.query::<Value>(PROBE.name, &PROBE.load()).await;
        note(&mut refused, loaded)?;
        for answer in join_all(self.shards.iter().map(|shard| self.refused_in(shard))).await {
            for pair in note(&mut refused, answer)?.unwrap_or_default().chunks_exact(2) {
                if let Some(right) = Right::of(&pair[0]) {
                    refused.insert(right, sanitized(&pair[1]));
                }
            }
        }
        if publish {
            let mut command = ::redis::cmd("PUBLISH");
            command.arg(&self.channel).arg(NO_CHANGE);
            note(&mut refused, self.commands.query::<i64>(PROBE.name, &command).await)?;
        }
        Ok(refused)
    }

    async fn refused_in(&self, shard: &Shard) -> Result<Vec<String>, Failure> {
        let keys = shard.keys.with_probe();
        let mut command = PROBE.call_on(keys.into_iter(), (1, 64));
        command.arg(GROUP);
        self.commands.call(&PROBE, &command).await
    }
}

/// Takes down a refusal, as which a failure counts that names a right. Any other is no answer.
fn note<T>(refused: &mut Refused, answer: Result<T, Failure>) -> Result<Option<T>, Failure> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(failure) => match failure.right() {
            Some(right) => {
                refused.insert(right, failure.words());
                Ok(None)
            }
            None => Err(failure),
        },
    }
}
