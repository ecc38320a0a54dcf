//! From a request's API key to a principal: the one layer in front of every public method of every role.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use async_trait::async_trait;
use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response, header::AUTHORIZATION};
use outrider_model::{Error, Principal, Reason, Result, Scope, Token};
use outrider_telemetry::{Hop, Kind, TraceContext};
use tonic::body::Body;
use tower::Service;

use crate::{methods, status::to_status};

/// Turns a token into its principal.
#[async_trait]
pub trait Authenticate: Send + Sync + 'static {
    /// The principal, or `InvalidCredentials`, or `Unavailable` when nobody can tell.
    async fn authenticate(&self, token: &Token) -> Result<Principal>;
}

/// In front of gRPC services: refuses requests whose API key does not carry the method's scope, and puts the principal of all others
/// into the request's extensions. The span of the role begins here, and ends with the head of the answer; what follows from it finds its
/// [`TraceContext`] in the extensions.
#[derive(Clone)]
pub struct Guard<S> {
    inner: S,
    keys: Arc<dyn Authenticate>,
}

impl<S> Guard<S> {
    /// Guards `inner` with these keys.
    pub fn new(inner: S, keys: Arc<dyn Authenticate>) -> Self {
        Self { inner, keys }
    }
}

impl<S> Service<Request<Body>> for Guard<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // The service that was polled ready is the one to call.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let keys = Arc::clone(&self.keys);
        let incoming = TraceContext::of_headers(request.headers());
        let hop = Hop::child(Kind::Server, request.uri().path().trim_start_matches('/'), incoming.as_ref());
        Box::pin(async move {
            let admitted = match (scope(request.uri().path()), token(request.headers())) {
                (Ok(scope), Ok(token)) => admit(keys.as_ref(), &token, scope).await,
                (Err(error), _) | (_, Err(error)) => Err(error),
            };
            match admitted {
                Ok(principal) => {
                    request.extensions_mut().insert(principal);
                    if let Some(context) = hop.or(incoming.as_ref()) {
                        request.extensions_mut().insert(context.clone());
                    }
                    hop.around(inner.call(request)).await
                }
                Err(error) => {
                    hop.fail(error.reason.as_str());
                    Ok(to_status(error).into_http())
                }
            }
        })
    }
}

fn scope(path: &str) -> Result<Scope> {
    methods::required_scope(path).ok_or_else(|| Error::new(Reason::UnknownMethod, "no method of that name"))
}

async fn admit(keys: &dyn Authenticate, token: &Token, scope: Scope) -> Result<Principal> {
    let principal = keys.authenticate(token).await?;
    if !principal.scopes.permits(scope) {
        return Err(Error::new(Reason::MissingScope, format!("the API key lacks {scope}")));
    }
    Ok(principal)
}

fn token(headers: &HeaderMap) -> Result<Token> {
    let missing = || Error::new(Reason::MissingCredentials, "send an API key as \"Authorization: Bearer …\"");
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return Err(missing()) };
    let (scheme, text) = value.to_str().ok().and_then(|value| value.split_once(' ')).ok_or_else(missing)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(missing());
    }
    Token::parse(text.trim()).ok_or_else(|| Error::new(Reason::InvalidCredentials, "the API key is not valid"))
}

/// The principal that the guard put into a request.
#[allow(clippy::result_large_err)]
pub fn principal<T>(request: &tonic::Request<T>) -> Result<Principal, tonic::Status> {
    request
        .extensions()
        .get::<Principal>()
        .cloned()
        .ok_or_else(|| to_status(Error::internal("the method is served without its guard")))
}
