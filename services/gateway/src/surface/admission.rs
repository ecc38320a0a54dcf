//! The key comes first: the API key of a request is checked before anything of its body is read,
//! and before the client is told to send the body.
//!
//! The role that serves the method checks the key again. The check here keeps callers without a
//! valid key from causing the cost of reading a request.

use std::{future::Future, pin::pin, sync::Arc, task::Poll};

use futures::poll;
use http::{HeaderMap, Request, Version, header::EXPECT};
use http_body::Body as _;
use hyper::body::Incoming;
use outrider_model::{Error, Principal, Reason, Scope};
use outrider_rpc::ConnectionSlot;
use outrider_shares::Holder;
use outrider_telemetry::catalog::gateway::REFUSED_UNREAD;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, timeout_at},
};

use crate::{
    Options,
    exchange::{MAX_STREAMS_WITHOUT_KEY, Shared, body, deadline::Deadline},
    route::Method,
};

/// Returns the caller of a request. Runs before the request's own deadline is reported. Methods
/// without a scope are the gateway's own, and open to everybody.
pub(crate) async fn admit(
    shared: &Shared,
    slot: &ConnectionSlot,
    scope: Option<Scope>,
    headers: &HeaderMap,
    deadline: &Deadline,
) -> Result<Option<Principal>, Error> {
    let Some(scope) = scope else { return Ok(None) };
    let mut checked = pin!(outrider_rpc::admit(Arc::clone(&shared.keys), headers, scope));
    let checked = match poll!(checked.as_mut()) {
        Poll::Ready(checked) => checked,
        // Boxed, because it is rare and would enlarge the future of every request.
        Poll::Pending => {
            Box::pin(in_time(deadline.end_within(shared.options.request_timeout), checked)).await
        }
    };
    match checked {
        Ok(admitted) => {
            slot.keep_for(Holder::of(&admitted.principal))?;
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

/// Admits a gRPC request and adds the principal to it.
pub(crate) async fn admit_request<B>(
    shared: &Shared,
    slot: &ConnectionSlot,
    scope: Option<Scope>,
    request: &mut Request<B>,
    deadline: &Deadline,
) -> Result<(), Error> {
    if let Some(principal) = admit(shared, slot, scope, request.headers(), deadline).await? {
        request.extensions_mut().insert(principal);
    }
    Ok(())
}

/// Takes a slot for a stream that needs no key, until it is dropped. Other streams need none. The
/// number of slots limits what callers without a key can hold.
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

/// Discards a body that is not read, while its refusal is being sent. The rest of an HTTP/1.1 body
/// is read and dropped for a moment: a client that writes everything before it reads would
/// otherwise see a broken connection instead of the answer. Returns whether there is any body.
pub(crate) fn discard(
    options: &Options,
    version: Version,
    headers: &HeaderMap,
    mut body: Incoming,
) -> bool {
    if body.is_end_stream() {
        return false;
    }
    // A client that waits for `100 Continue` has sent nothing yet, and reading would tell it to go
    // on.
    if version < Version::HTTP_2 && !headers.contains_key(EXPECT) {
        let options = options.clone();
        tokio::spawn(async move { body::linger(&options, &mut body).await });
    }
    true
}
