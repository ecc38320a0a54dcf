//! Tries every command, key and channel that the work needs on the real server: at the start, when
//! something was refused, when the server is another one, and periodically.

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

/// The time between two probes while something needed is refused or unknown, and the shortest time
/// between any two.
const AGAIN: Duration = Duration::from_secs(1);
/// The time after which everything is probed again without a reason.
const PERIOD: Duration = Duration::from_secs(10);
/// What the probe publishes to see whether publishing is allowed. Listeners know that it announces
/// nothing. An older version that does not know it looks for changes once in vain, so it is only
/// published when there is a reason.
pub(super) const NO_CHANGE: &str = "probe";

/// Probes the server.
pub(super) struct Probe {
    pub(super) commands: Arc<Commands>,
    pub(super) shards: Arc<[Shard]>,
    pub(super) rights: Arc<Rights>,
    pub(super) channel: String,
}

impl Probe {
    /// Probes until the task is aborted.
    pub(super) async fn run(self) {
        let mut answered = self.rights.ready().is_ok();
        loop {
            sleep(AGAIN).await;
            let mut doubted = !answered;
            if self.rights.ready().is_ok() {
                // The end of the period is a reason, too.
                doubted |= timeout(PERIOD, self.rights.doubted()).await.is_ok();
            }
            // A refused announcement raises a doubt, so nothing is lost by not publishing each
            // time.
            answered = self.once(doubted || !self.rights.may("publish")).await;
        }
    }

    /// Probes once, with the right to publish if `publish` is set, and keeps the result. Returns
    /// whether there was one.
    pub(super) async fn once(&self, publish: bool) -> bool {
        let refused = self.refused(publish).await;
        let answered = refused.is_ok();
        match refused {
            Ok(refused) => self.rights.found(refused),
            Err(failure) => self.rights.not_found(failure.into()),
        }
        answered
    }

    /// Returns what any shard refuses.
    async fn refused(&self, publish: bool) -> Result<Refused, Failure> {
        let mut refused = Refused::new();
        // Load it always, not only if the server does not know the script: a known script would
        // hide that the right to load is missing.
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

/// Records a refusal, which is a failure that names a right. Any other failure means that there is
/// no result.
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
