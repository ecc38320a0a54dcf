//! The key comes first: before anything of a request's body is read, and before the client is told
//! to send it, its API key is checked.
//!
//! The role that serves the method checks the key too. Here the check keeps what it costs to read a
//! request from those who may not make one.

use std::sync::Arc;

use http::{HeaderMap, Request, Version, header::EXPECT};
use http_body::Body as _;
use hyper::body::Incoming;
use outrider_model::{Error, Principal, Scope};
use outrider_rpc::Seat;
use outrider_shares::Holder;
use outrider_telemetry::catalogue::gateway::REFUSED_UNREAD;

use crate::{Options, Shared, body};

/// Whom a request comes from. Methods without a scope are those of the gateway itself, and open to
/// everybody.
pub(crate) async fn admit(
    shared: &Shared,
    seat: &Seat,
    scope: Option<Scope>,
    headers: &HeaderMap,
) -> Result<Option<Principal>, Error> {
    let Some(scope) = scope else { return Ok(None) };
    match outrider_rpc::admit(Arc::clone(&shared.keys), headers, scope).await {
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

/// Admits a request of gRPC, which bears its principal from then on.
pub(crate) async fn admit_request<B>(
    shared: &Shared,
    seat: &Seat,
    scope: Option<Scope>,
    request: &mut Request<B>,
) -> Result<(), Error> {
    if let Some(principal) = admit(shared, seat, scope, request.headers()).await? {
        request.extensions_mut().insert(principal);
    }
    Ok(())
}

/// Lets go of a body that is not read, while its refusal is on its way. Of HTTP/1.1 its rest is
/// dropped for a moment: a client that writes all before it reads anything would else see a broken
/// connection in the place of the answer. Whether there is any.
pub(crate) fn let_go(options: &Options, version: Version, headers: &HeaderMap, mut body: Incoming) -> bool {
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
