//! The token by which roles in different processes authenticate each other. It guards what only
//! roles may call: the internal services of dispatch, ingest and admin, and the egress proxy.
//! Public methods are guarded by API keys, on every listener.

use std::{
    convert::Infallible,
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use futures::future::{Either, Ready, ready};
use http::{Request, Response};
use outrider_model::{Error, Reason};
use ring::digest::{SHA256, digest};
use subtle::ConstantTimeEq;
use tonic::{Status, body::Body, metadata::MetadataValue, service::Interceptor};
use tower::Service;

use crate::wire::status::to_status;

/// Header of internal calls.
pub const TOKEN_HEADER: &str = "outrider-internal-token";
/// Permitted length of a token, in bytes.
const BYTES: std::ops::RangeInclusive<usize> = 32..=512;

/// A secret that only the processes of one deployment know. It is never shown.
#[derive(Clone)]
pub struct InternalToken(Arc<str>);

/// Why a text is not a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be {} to {} visible ASCII characters", BYTES.start(), BYTES.end())]
pub struct MalformedToken;

impl InternalToken {
    /// Checks the text of a token.
    pub fn new(text: &str) -> Result<Self, MalformedToken> {
        let good = BYTES.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        if good { Ok(Self(text.into())) } else { Err(MalformedToken) }
    }

    /// Whether the presented bytes are this token. Takes constant time for any length.
    #[must_use]
    pub fn matches(&self, presented: &[u8]) -> bool {
        let hash = |bytes: &[u8]| digest(&SHA256, bytes);
        hash(self.0.as_bytes()).as_ref().ct_eq(hash(presented).as_ref()).into()
    }

    /// Returns the text, to present it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for InternalToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InternalToken(…)")
    }
}

/// Presents the token with every call of a client.
#[derive(Debug, Clone)]
pub struct PresentToken(pub Option<InternalToken>);

impl Interceptor for PresentToken {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, Status> {
        if let Some(token) = &self.0 {
            let value = MetadataValue::try_from(token.reveal()).map_err(|_| {
                to_status(Error::internal("the internal token is not a valid header value"))
            })?;
            request.metadata_mut().insert(TOKEN_HEADER, value);
        }
        Ok(request)
    }
}

/// A layer in front of internal services. It refuses calls without the token. If it has no token
/// itself, it admits all calls, which is for listeners on loopback only.
#[derive(Clone)]
pub struct InternalGate<S> {
    inner: S,
    token: Option<InternalToken>,
}

impl<S> InternalGate<S> {
    /// Guards `inner`.
    pub fn new(inner: S, token: Option<InternalToken>) -> Self {
        Self { inner, token }
    }
}

impl<S> Service<Request<Body>> for InternalGate<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<S::Future, Ready<Result<Response<Body>, Infallible>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let presented = request
            .headers()
            .get(TOKEN_HEADER)
            .map(http::HeaderValue::as_bytes)
            .unwrap_or_default();
        if self.token.as_ref().is_none_or(|token| token.matches(presented)) {
            return Either::Left(self.inner.call(request));
        }
        let error =
            Error::new(Reason::InvalidCredentials, "the internal token is missing or wrong");
        Either::Right(ready(Ok(to_status(error).into_http())))
    }
}

#[cfg(test)]
mod tests {
    use tower::{ServiceExt, service_fn};

    use super::*;

    const TOKEN: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn tokens_are_long_and_are_not_shown() {
        for bad in ["", &TOKEN[1..], &format!("{TOKEN} "), &format!("{TOKEN}é"), &"a".repeat(513)]
        {
            assert!(InternalToken::new(bad).is_err(), "{bad}");
        }
        let token = InternalToken::new(TOKEN).unwrap();
        assert!(
            token.matches(TOKEN.as_bytes())
                && !token.matches(b"")
                && !token.matches(&TOKEN.as_bytes()[1..])
        );
        assert!(!format!("{token:?}").contains(TOKEN));
    }

    #[tokio::test]
    async fn the_gate_admits_only_calls_with_the_token() {
        let status = async |own: Option<&str>, presented: Option<&str>| {
            let inner = service_fn(|_: Request<Body>| {
                ready(Ok::<_, Infallible>(Response::new(Body::empty())))
            });
            let gate = InternalGate::new(inner, own.map(|text| InternalToken::new(text).unwrap()));
            let mut request = Request::new(Body::empty());
            if let Some(text) = presented {
                request.headers_mut().insert(TOKEN_HEADER, text.parse().unwrap());
            }
            let response = gate.oneshot(request).await.unwrap();
            Status::from_header_map(response.headers()).map(|status| status.code())
        };
        assert_eq!(status(None, None).await, None);
        assert_eq!(status(Some(TOKEN), Some(TOKEN)).await, None);
        assert_eq!(status(Some(TOKEN), None).await, Some(tonic::Code::Unauthenticated));
        assert_eq!(status(Some(TOKEN), Some("other")).await, Some(tonic::Code::Unauthenticated));
    }
}
