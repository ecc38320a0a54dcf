//! Turns the API key of a request into a principal, in one layer in front of every public method of
//! every role.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use async_trait::async_trait;
use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response, header::AUTHORIZATION};
use outrider_model::{Error, HashedToken, Principal, Reason, Result, Scope, Token};
use outrider_telemetry::{Hop, Kind, TraceContext};
use tonic::body::Body;
use tower::Service;

use crate::{
    guard::{bounds::Bounded, methods},
    wire::{ending, pieces, status::to_status},
};

/// How often the key of an open stream is checked again. A revoked or expired key ends the stream
/// within this time.
pub const RECHECK_INTERVAL: Duration = Duration::from_secs(15);

/// Turns a token into its principal.
#[async_trait]
pub trait Authenticate: Send + Sync + 'static {
    /// Returns the principal, `InvalidCredentials`, or `Unavailable` if the token cannot be
    /// checked.
    async fn authenticate(&self, token: &HashedToken) -> Result<Principal>;
}

/// A layer in front of gRPC services. It bounds the messages of a request ([`Bounded`]), refuses
/// requests whose API key does not have the method's scope, and puts the principal of all others
/// into the request's extensions.
///
/// The span of the role begins here and ends with the head of the answer. Its [`TraceContext`] is
/// in the extensions for everything that follows from it.
///
/// A stream is checked again every 15 s ([`RECHECK_INTERVAL`]). If its key was revoked, expired or
/// lost the scope, its answer ends with that error, and the service's side of the stream is
/// dropped.
#[derive(Clone)]
pub struct Guard<S> {
    inner: S,
    keys: Arc<dyn Authenticate>,
}

impl<S> Guard<S> {
    /// Guards `inner`, and authenticates by `keys`.
    pub fn new(inner: S, keys: Arc<dyn Authenticate>) -> Self {
        Self { inner, keys }
    }
}

impl<S> Service<Request<Body>> for Guard<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // The service that was polled ready must be the one that is called.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let keys = Arc::clone(&self.keys);
        let incoming = TraceContext::of_headers(request.headers());
        let hop = Hop::child(
            Kind::Server,
            request.uri().path().trim_start_matches('/'),
            incoming.as_ref(),
        );
        Box::pin(async move {
            let path = request.uri().path();
            let streams = methods::streams(path);
            let admitted = match scope(path) {
                Ok(scope) => admit(keys, request.headers(), scope).await,
                Err(error) => Err(error),
            };
            match admitted {
                Ok(admitted) => {
                    request.extensions_mut().insert(admitted.principal.clone());
                    if let Some(context) = hop.or(incoming.as_ref()) {
                        request.extensions_mut().insert(context.clone());
                    }
                    let (parts, body) = request.into_parts();
                    let body = Bounded::of(parts.uri.path(), body);
                    let answer = hop.around(inner.call(Request::from_parts(parts, body))).await?;
                    Ok(if streams {
                        ending::until(pieces::in_pieces(answer), admitted.refused())
                    } else {
                        answer
                    })
                }
                Err(error) => {
                    hop.fail(error.reason.as_str());
                    Ok(to_status(error).into_http())
                }
            }
        })
    }
}

/// A caller whose API key has the required scope.
pub struct Admitted {
    keys: Arc<dyn Authenticate>,
    token: HashedToken,
    scope: Scope,
    /// The principal of the key.
    pub principal: Principal,
}

/// Checks the API key in the headers of a request: it must be present, well-formed, known, and have
/// the scope, in this order.
pub async fn admit(
    keys: Arc<dyn Authenticate>,
    headers: &HeaderMap,
    scope: Scope,
) -> Result<Admitted> {
    let token = token(headers)?.hashed();
    let principal = permitted(keys.as_ref(), &token, scope).await?;
    Ok(Admitted { keys, token, scope, principal })
}

impl Admitted {
    /// Resolves when the key is no longer valid for the request.
    async fn refused(self) -> Error {
        loop {
            tokio::time::sleep(RECHECK_INTERVAL).await;
            match permitted(self.keys.as_ref(), &self.token, self.scope).await {
                // Scopes may change as long as the required one stays. The rest of the principal
                // must not change.
                Ok(now)
                    if (Principal { scopes: self.principal.scopes, ..now.clone() })
                        != self.principal =>
                {
                    return Error::new(Reason::InvalidCredentials, "the API key has changed");
                }
                Ok(_) => {}
                Err(error) => return error,
            }
        }
    }
}

fn scope(path: &str) -> Result<Scope> {
    methods::required_scope(path)
        .ok_or_else(|| Error::new(Reason::UnknownMethod, "no method of that name"))
}

async fn permitted(
    keys: &dyn Authenticate,
    token: &HashedToken,
    scope: Scope,
) -> Result<Principal> {
    let principal = keys.authenticate(token).await?;
    if !principal.scopes.permits(scope) {
        return Err(Error::new(Reason::MissingScope, format!("the API key lacks {scope}")));
    }
    Ok(principal)
}

fn token(headers: &HeaderMap) -> Result<Token> {
    let missing =
        || Error::new(Reason::MissingCredentials, "send an API key as \"Authorization: Bearer …\"");
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return Err(missing()) };
    let (scheme, text) =
        value.to_str().ok().and_then(|value| value.split_once(' ')).ok_or_else(missing)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(missing());
    }
    Token::parse(text.trim())
        .ok_or_else(|| Error::new(Reason::InvalidCredentials, "the API key is not valid"))
}

/// Returns the principal that the guard put into a request.
#[allow(clippy::result_large_err)]
pub fn principal<T>(request: &tonic::Request<T>) -> Result<Principal, tonic::Status> {
    request
        .extensions()
        .get::<Principal>()
        .cloned()
        .ok_or_else(|| to_status(Error::internal("the method is served without the guard")))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use bytes::Bytes;
    use http_body::Frame;
    use http_body_util::{BodyExt, StreamBody};
    use outrider_model::{ApiKeyId, OrganizationId, Timestamp};
    use tonic::Status;
    use tower::ServiceExt;

    use super::*;

    const TAIL: &str = "/outrider.dispatch.v1.EventService/TailEvents";
    const GET: &str = "/outrider.dispatch.v1.EventService/GetEvent";

    /// Answers with a fixed result.
    struct Fixed(Mutex<Result<Principal>>);

    #[async_trait]
    impl Authenticate for Fixed {
        async fn authenticate(&self, _: &HashedToken) -> Result<Principal> {
            self.0.lock().unwrap().clone()
        }
    }

    /// Opens a silent stream behind the guard.
    async fn open(keys: &Arc<Fixed>, path: &str) -> Response<Body> {
        let silent = tower::service_fn(|_: Request<Body>| async {
            let frames = futures::stream::pending::<Result<Frame<Bytes>, Status>>();
            Ok::<_, Infallible>(Response::new(Body::new(StreamBody::new(frames))))
        });
        let token = Token::new(ApiKeyId::new(Timestamp(0), 1), [1; 32]);
        let header = format!("Bearer {}", token.reveal());
        let request =
            Request::builder().uri(path).header(AUTHORIZATION, header).body(Body::empty()).unwrap();
        let answer =
            Guard::new(silent, Arc::clone(keys) as Arc<dyn Authenticate>).oneshot(request).await;
        answer.unwrap()
    }

    async fn ended(body: &mut Body) -> Reason {
        let trailers = body.frame().await.unwrap().unwrap().into_trailers().unwrap();
        crate::wire::status::from_status(&Status::from_header_map(&trailers).unwrap()).reason
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_when_its_key_is_revoked_and_not_before() {
        let principal = Principal::system(OrganizationId::new(Timestamp(0), 1));
        let keys = Arc::new(Fixed(Mutex::new(Ok(principal.clone()))));
        let mut body = open(&keys, TAIL).await.into_body();
        let hour = Duration::from_secs(3600);
        assert!(
            tokio::time::timeout(hour, body.frame()).await.is_err(),
            "it is open as long as the key is valid"
        );
        let begin = tokio::time::Instant::now();
        *keys.0.lock().unwrap() = Err(Error::new(Reason::InvalidCredentials, "revoked"));
        assert_eq!(ended(&mut body).await, Reason::InvalidCredentials);
        assert!(begin.elapsed() <= RECHECK_INTERVAL);

        let changed = Principal { owner: Some("acme".to_owned()), ..principal.clone() };
        let lesser =
            Principal { scopes: [Scope::EventsPublish].into_iter().collect(), ..principal.clone() };
        let other =
            Principal { scopes: [Scope::EventsRead].into_iter().collect(), ..principal.clone() };
        for (now, reason) in [
            (changed, Some(Reason::InvalidCredentials)),
            (lesser, Some(Reason::MissingScope)),
            (other, None),
        ] {
            *keys.0.lock().unwrap() = Ok(principal.clone());
            let mut body = open(&keys, TAIL).await.into_body();
            *keys.0.lock().unwrap() = Ok(now);
            assert_eq!(tokio::time::timeout(hour, ended(&mut body)).await.ok(), reason);
        }
        let mut body = open(&keys, GET).await.into_body();
        *keys.0.lock().unwrap() = Err(Error::new(Reason::InvalidCredentials, "revoked"));
        assert!(
            tokio::time::timeout(hour, body.frame()).await.is_err(),
            "a single call is over soon anyway"
        );
    }
}
