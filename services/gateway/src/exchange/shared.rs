//! The data that all requests share.

use std::{future::Future, sync::Arc};

use outrider_rpc::Authenticate;
use outrider_shares::{Resource, Shares};
use outrider_telemetry::{
    catalog::gateway::{BUFFERED_BYTES, UNSENT_BYTES},
    metrics,
};
use tokio::sync::{Semaphore, watch};

use crate::{
    Given, Options,
    exchange::{Backends, cost::Decoding},
};

/// The data that all requests share.
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) given: Given,
    pub(crate) backends: Backends,
    /// Resolves API keys to principals.
    pub(crate) keys: Arc<dyn Authenticate>,
    /// True until the shutdown begins.
    pub(crate) serving: watch::Sender<bool>,
    /// Room for bytes of requests that are read but not answered.
    pub(crate) room: Shares,
    /// Room for bytes of answers that are not sent.
    pub(crate) unsent: Shares,
    pub(crate) decoding: Decoding,
    /// Slots for uploads of lines.
    pub(crate) uploads: Shares,
    /// Slots for streams that need no key.
    pub(crate) without_key: Arc<Semaphore>,
}

/// Minimum share of a room for bytes: a request or an answer of usual size.
const LEAST_BYTES: usize = 64 * 1024;
pub(super) const REQUEST_BYTES: Resource =
    Resource { name: "request-bytes", noun: "bytes of requests in flight", least: LEAST_BYTES };
const ANSWER_BYTES: Resource = Resource {
    name: "answer-bytes",
    noun: "bytes of answers that are not sent",
    least: LEAST_BYTES,
};
const UPLOADS: Resource = Resource { name: "uploads", noun: "uploads", least: 1 };

/// Maximum number of open streams that need no key: health watches and reflection.
pub(crate) const MAX_STREAMS_WITHOUT_KEY: usize = 256;

impl Shared {
    pub(crate) fn new(
        options: Options,
        given: Given,
        backends: Backends,
        keys: Arc<dyn Authenticate>,
    ) -> Self {
        let room = Shares::new(REQUEST_BYTES, options.max_buffered_bytes);
        Self {
            backends,
            keys,
            serving: watch::Sender::new(true),
            unsent: Shares::new(ANSWER_BYTES, options.max_unsent_bytes),
            decoding: Decoding::new(&options, &room),
            room,
            uploads: Shares::new(UPLOADS, options.max_uploads),
            without_key: Arc::new(Semaphore::new(MAX_STREAMS_WITHOUT_KEY)),
            options,
            given,
        }
    }

    /// Resolves when the shutdown begins.
    pub(crate) fn draining(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut serving = self.serving.subscribe();
        async move {
            // An error means that the gateway is gone.
            let _ = serving.wait_for(|serving| !serving).await;
        }
    }
}

/// Reports the bytes of requests that are read but not answered, and of answers that are not sent,
/// for as long as the gateway lives.
pub(crate) fn show_buffered(shared: &Arc<Shared>) {
    let shared = Arc::downgrade(shared);
    metrics::before_scrape(move || {
        let Some(shared) = shared.upgrade() else { return false };
        for (gauge, room) in [(&BUFFERED_BYTES, &shared.room), (&UNSENT_BYTES, &shared.unsent)] {
            gauge.set(i64::try_from(room.held()).unwrap_or(i64::MAX));
        }
        true
    });
}
