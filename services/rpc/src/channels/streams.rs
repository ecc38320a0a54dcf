//! Streams to a role in another process, each on its own connection. The client of a stream may
//! read slowly and send in small pieces. On its own connection, it exhausts only its own limits:
//! the windows, and the number of unread frames.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use futures::future::BoxFuture;
use http::{Request, Response};
use outrider_model::Error;
use outrider_shares::{Holder, Resource, Share, Shares};
use tonic::{
    body::Body,
    transport::{self, Channel},
};
use tower::{Service, ServiceExt};

use crate::{
    channels::channel::{self, ChannelError, LONG_STREAM_WINDOW},
    tls::Tls,
    wire::{holding::HoldingBody, status::to_status},
};

/// Maximum number of streams to one role, and so of connections, divided into shares. Further ones
/// are refused.
const MAX_STREAMS: usize = 1024;
const STREAMS: Resource =
    Resource { name: "role-streams", noun: "streams to another role", least: 1 };
/// Maximum number of idle connections that are kept for later streams.
const MAX_IDLE: usize = 16;

/// Opens streams to `http://HOST:PORT`, or with TLS to `https://HOST:PORT`.
#[derive(Clone)]
pub struct Streams(Arc<Pool>);

struct Pool {
    url: String,
    tls: Option<Arc<Tls>>,
    slots: Shares,
    /// Connections without a stream. The most recently used one is used first.
    idle: Mutex<Vec<Channel>>,
}

impl Pool {
    fn idle(&self) -> MutexGuard<'_, Vec<Channel>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Streams {
    /// Connects on first use. Fails if the URL is not the address of a role.
    pub fn new(url: &str, tls: Option<&Arc<Tls>>) -> Result<Self, ChannelError> {
        let first = connect(url, tls)?;
        let (url, tls, slots) = (url.to_owned(), tls.cloned(), Shares::new(STREAMS, MAX_STREAMS));
        Ok(Self(Arc::new(Pool { url, tls, slots, idle: Mutex::new(vec![first]) })))
    }

    fn lease(&self, holder: Holder) -> Result<Lease, Error> {
        let slot = self.0.slots.take(holder, 1)?;
        let idle = self.0.idle().pop();
        let channel = match idle {
            Some(channel) => channel,
            None => connect(&self.0.url, self.0.tls.as_ref())
                .map_err(|_| Error::internal("not the URL of a role"))?,
        };
        Ok(Lease { channel, pool: Arc::clone(&self.0), _slot: slot })
    }
}

fn connect(url: &str, tls: Option<&Arc<Tls>>) -> Result<Channel, ChannelError> {
    channel::with_window(url, tls, LONG_STREAM_WINDOW)
}

impl Service<Request<Body>> for Streams {
    type Response = Response<Body>;
    type Error = transport::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, transport::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), transport::Error>> {
        // The call waits for the readiness of its channel once that is chosen.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let lease = self.lease(Holder::of_request(request.extensions()));
        Box::pin(async move {
            let lease = match lease {
                Ok(lease) => lease,
                Err(error) => return Ok(to_status(error).into_http()),
            };
            // The channel is idle again when the bodies of both sides are dropped.
            let (channel, lease) = (lease.channel.clone(), Arc::new(lease));
            let leased = |side| Body::new(HoldingBody::new(side, Arc::clone(&lease)));
            let answer = channel.oneshot(request.map(leased)).await?;
            Ok(answer.map(leased))
        })
    }
}

/// A channel and the slot of its stream. Both are given back on drop.
struct Lease {
    channel: Channel,
    pool: Arc<Pool>,
    _slot: Share,
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut idle = self.pool.idle();
        if idle.len() < MAX_IDLE {
            idle.push(self.channel.clone());
        }
    }
}
