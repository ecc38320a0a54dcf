//! Streams to a role in another process, each on a connection of its own: the client at their end
//! may read as slowly, and send in as small pieces, as it likes, and what a connection bounds (its
//! windows, its frames that nobody read) is then bound for it alone.

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
    wire::{holding::Kept, status::to_status},
};

/// Streams at once to one role, and so connections, divided into shares; those beyond are refused.
const MAX_STREAMS: usize = 1024;
const STREAMS: Resource =
    Resource { name: "role-streams", noun: "streams to another role", least: 1 };
/// Connections without a stream that are kept for the next ones.
const MAX_IDLE: usize = 16;

/// Makes streams to `http://HOST:PORT`, or with TLS to `https://HOST:PORT`.
#[derive(Clone)]
pub struct Streams(Arc<Pool>);

struct Pool {
    url: String,
    tls: Option<Arc<Tls>>,
    places: Shares,
    /// Without a stream; the last one used is the first to be used again.
    idle: Mutex<Vec<Channel>>,
}

impl Pool {
    fn idle(&self) -> MutexGuard<'_, Vec<Channel>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Streams {
    /// It connects when it is used. Fails when the URL is not one of a role.
    pub fn new(url: &str, tls: Option<&Arc<Tls>>) -> Result<Self, ChannelError> {
        let first = connect(url, tls)?;
        let (url, tls, places) = (url.to_owned(), tls.cloned(), Shares::new(STREAMS, MAX_STREAMS));
        Ok(Self(Arc::new(Pool { url, tls, places, idle: Mutex::new(vec![first]) })))
    }

    fn lease(&self, holder: Holder) -> Result<Lease, Error> {
        let place = self.0.places.take(holder, 1)?;
        let kept = self.0.idle().pop();
        let channel = match kept {
            Some(channel) => channel,
            None => connect(&self.0.url, self.0.tls.as_ref())
                .map_err(|_| Error::internal("no URL of a role"))?,
        };
        Ok(Lease { channel, pool: Arc::clone(&self.0), _place: place })
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
        // Each channel's own readiness is awaited when it is known which one it is.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let lease = self.lease(Holder::of_request(request.extensions()));
        Box::pin(async move {
            let lease = match lease {
                Ok(lease) => lease,
                Err(error) => return Ok(to_status(error).into_http()),
            };
            // The channel is free when both sides are dropped.
            let (channel, lease) = (lease.channel.clone(), Arc::new(lease));
            let leased = |side| Body::new(Kept::new(side, Arc::clone(&lease)));
            let answer = channel.oneshot(request.map(leased)).await?;
            Ok(answer.map(leased))
        })
    }
}

/// A channel and its stream's place, until it is dropped.
struct Lease {
    channel: Channel,
    pool: Arc<Pool>,
    _place: Share,
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut idle = self.pool.idle();
        if idle.len() < MAX_IDLE {
            idle.push(self.channel.clone());
        }
    }
}
