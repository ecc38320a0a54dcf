//! Listens for announcements on a separate connection.

use std::{sync::Arc, time::Duration};

use ::redis::{Client, ConnectionInfo};
use futures::StreamExt as _;
use tokio::time::{interval, sleep, timeout};

use super::{
    probe::NO_CHANGE,
    rights::Rights,
    words::{is_refusal, words_of},
};
use crate::changes::Changes;

/// How long to wait before connecting again: the first time, and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// How often a silent connection is tested, to find one that is half open.
const PING: Duration = Duration::from_secs(5);

/// Listens until the task is aborted, on one server after the other. In a cluster, an announcement
/// reaches every node, so any of them serves.
pub(super) async fn listen(
    servers: Vec<ConnectionInfo>,
    channel: String,
    bound: Duration,
    changes: Arc<Changes>,
    rights: Arc<Rights>,
) {
    let mut backoff = BACKOFF.0;
    let mut first = true;
    for server in servers.iter().cycle() {
        if let Ok(client) = Client::open(server.clone()) {
            let subscribed = listen_once(&client, &channel, bound, &changes, &rights, first).await;
            if subscribed {
                backoff = BACKOFF.0;
                first = false;
            }
        }
        sleep(backoff + backoff.mul_f64(rand::random_range(0.0..0.5))).await;
        backoff = (backoff * 2).min(BACKOFF.1);
    }
}

/// Listens until the connection breaks. Returns whether it was ever established.
async fn listen_once(
    client: &Client,
    channel: &str,
    bound: Duration,
    changes: &Changes,
    rights: &Rights,
    first: bool,
) -> bool {
    let connected = timeout(bound, async {
        let mut link = client.get_async_pubsub().await?;
        let subscribed = link.subscribe(channel).await;
        let refusal = subscribed.as_ref().err().filter(|error| is_refusal(error));
        rights.note("subscribe", refusal.map(words_of));
        subscribed.map(|()| link)
    });
    let (mut sink, mut messages) = match connected.await {
        Ok(Ok(link)) => link.split(),
        Ok(Err(error)) => {
            tracing::debug!(error = words_of(&error), "cannot listen for changes");
            return false;
        }
        Err(_) => {
            tracing::debug!(error = "timeout", "cannot listen for changes");
            return false;
        }
    };
    if !first {
        // A change may have been announced while nobody listened.
        changes.announce();
    }
    let mut ping = interval(PING);
    loop {
        tokio::select! {
            message = messages.next() => match message {
                Some(message) if message.get_payload_bytes() == NO_CHANGE.as_bytes() => {}
                Some(_) => changes.announce(),
                None => break,
            },
            _ = ping.tick() => {
                if !matches!(timeout(bound, sink.ping::<::redis::Value>()).await, Ok(Ok(_))) {
                    break;
                }
            }
        }
    }
    tracing::debug!("the connection that listens for changes broke");
    true
}
