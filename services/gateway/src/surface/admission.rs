//! The key comes first: before anything of a request's body is read, and before the client is told
//! to send it, its API key is checked.
//!
//! The role that serves the method checks the key too. Here the check keeps what it costs to read a
//! request from those who may not make one.

use std::{future::Future, pin::pin, sync::Arc, task::Poll};

use futures::poll;
use http::{HeaderMap, Request, Version, header::EXPECT};
use http_body::Body as _;
use hyper::body::Incoming;
use outrider_model::{Error, Principal, Reason, Scope};
use outrider_rpc::ConnectionSlot;
use outrider_shares::Holder;
use outrider_telemetry::catalogue::gateway::REFUSED_UNREAD;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, timeout_at},
};

use crate::{
    Options,
    exchange::{MAX_STREAMS_WITHOUT_KEY, Shared, body, deadline::Deadline},
    route::Method,
};

/// Whom a request comes from, which is told before its deadline. Methods without a scope are those
/// of the gateway itself, and open to everybody.
pub(crate) async fn admit(
    shared: &Shared,
    seat: &ConnectionSlot,
    scope: Option<Scope>,
    headers: &HeaderMap,
    deadline: &Deadline,
) -> Result<Option<Principal>, Error> {
    let Some(scope) = scope else { return Ok(None) };
    let mut checked = pin!(outrider_rpc::admit(Arc::clone(&shared.keys), headers, scope));
    let checked = match poll!(checked.as_mut()) {
        Poll::Ready(checked) => checked,
        // Boxed: it is rare, and would make the future of every request as large.
        Poll::Pending => {
            Box::pin(in_time(deadline.end_within(shared.options.request_timeout), checked)).await
        }
    };
    match checked {
        Ok(admitted) => {
            seat.keep_for(Holder::of(&admitted.principal))?;
            Ok(Some(admitted.principal))
        }
        Err(error) => {
            REFUSED_UNREAD.with_label_values(&[error.reason.as_str()]).inc();
            Err(error)
        }
    }
}

async fn in_time<T>(
    end: Instant,
    checked: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let late = "the API key was not checked in time; the request took no effect";
    timeout_at(end, checked)
        .await
        .unwrap_or_else(|_| Err(Error::new(Reason::DeadlineExceeded, late)))
}

/// Admits a request of gRPC, which bears its principal from then on.
pub(crate) async fn admit_request<B>(
    shared: &Shared,
    seat: &ConnectionSlot,
    scope: Option<Scope>,
    request: &mut Request<B>,
    deadline: &Deadline,
) -> Result<(), Error> {
    if let Some(principal) = admit(shared, seat, scope, request.headers(), deadline).await? {
        request.extensions_mut().insert(principal);
    }
    Ok(())
}

/// A place for a stream that needs no key, until it is dropped; none is needed for others. Whoever
/// has no key cannot hold more of them than there are.
pub(crate) fn stream_without_key(
    shared: &Shared,
    method: &Method,
) -> Result<Option<OwnedSemaphorePermit>, Error> {
    if method.scope.is_some() {
        return Ok(None);
    }
    let full = |_| {
        Error::overloaded(format!("{MAX_STREAMS_WITHOUT_KEY} streams without an API key are open"))
    };
    Arc::clone(&shared.without_key).try_acquire_owned().map(Some).map_err(full)
}

/// Lets go of a body that is not read, while its refusal is on its way. Of HTTP/1.1 its rest is
/// dropped for a moment: a client that writes all before it reads anything would else see a broken
/// connection in the place of the answer. Whether there is any.
pub(crate) fn let_go(
    options: &Options,
    version: Version,
    headers: &HeaderMap,
    mut body: Incoming,
) -> bool {
    if body.is_end_stream() {
        return false;
    }
    // A client that asks first has sent nothing yet, and reading would tell it to go on.
    if version < Version::HTTP_2 && !headers.contains_key(EXPECT) {
        let options = options.clone();
        tokio::spawn(async move { body::linger(&options, &mut body).await });
    }
    true
}
