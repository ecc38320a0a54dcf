//! Parsers of bytes from untrusted endpoints, for `outrider-fuzz`. Not part of the crate's
//! interface.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderValue, Request, header};
use http_body_util::Full;
use outrider_model::AttemptOutcome;
use outrider_model::{
    DeliveryLimits, Endpoint, EndpointFixed, EndpointId, EndpointSpec, OrganizationId, ProjectId,
    Target, Timestamp,
};
use outrider_rpc::{DialError, Dialer, Socket};
use outrider_store::EndpointEntry;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};

use crate::{
    Given, Options,
    exchange::{Client, Destination, Failure},
};

/// Where the requests to an endpoint go.
#[derive(Debug)]
pub struct Sent {
    /// The host for the dialer.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The header Host.
    pub host_header: String,
    /// The target of the request.
    pub uri: String,
    /// Whether TLS is used.
    pub tls: bool,
}

/// Returns the destination of requests to an endpoint with this URL, or `None` if it cannot be sent
/// to.
#[must_use]
pub fn destination(url: &str) -> Option<Sent> {
    let made = Destination::prepare(Arc::new(entry(url)), &HeaderValue::from_static("t")).ok()?;
    Some(Sent {
        host_header: made.headers.get(header::HOST)?.to_str().ok()?.to_owned(),
        uri: made.uri.to_string(),
        tls: made.server_name.is_some(),
        port: made.port,
        host: made.host,
    })
}

fn entry(url: &str) -> EndpointEntry {
    let now = Timestamp(0);
    let endpoint = Endpoint::new(
        EndpointId::new(now, 1),
        EndpointFixed { project: ProjectId::new(now, 1) },
        EndpointSpec {
            target: Target::Http { url: url.to_owned() },
            limits: DeliveryLimits { timeout: Duration::from_secs(10), max_in_flight: 1 },
            ..EndpointSpec::default()
        },
        now,
    );
    EndpointEntry {
        organization: OrganizationId::new(now, 1),
        endpoint,
        secrets: Vec::new(),
        is_readable: true,
    }
}

/// The recorded part of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The recorded headers.
    pub headers: Vec<(String, String)>,
    /// The recorded part of the body.
    pub body: Vec<u8>,
    /// Whether the body was longer.
    pub truncated: bool,
}

/// Makes exchanges over given streams.
pub struct Exchanges(Client);

struct Nobody;

#[async_trait]
impl Dialer for Nobody {
    async fn dial(&self, _: &str, _: u16) -> Result<Socket, DialError> {
        Err(DialError::EgressUnavailable)
    }
}

impl Exchanges {
    /// Uses these bounds.
    ///
    /// # Panics
    /// When they are none.
    #[must_use]
    pub fn new(options: &Options) -> Self {
        let client = Client::new(options, &Given::default(), Arc::new(Nobody));
        Self(client.expect("it needs no roots of its own"))
    }

    /// Sends a small request on this stream, and reads the response within `timeout`. An error is
    /// the text for the owner of the endpoint.
    pub async fn exchange<S>(&self, stream: S, timeout: Duration) -> Result<Answer, String>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let request = Request::post("/")
            .header("content-length", 2)
            .body(Full::new(Bytes::from_static(b"{}")));
        let request = request.map_err(|error| error.to_string())?;
        match self.0.exchange_on(stream, Instant::now() + timeout, request).await {
            Ok(answer) => Ok(Answer {
                status: answer.status,
                headers: answer.headers,
                body: answer.body,
                truncated: answer.truncated,
            }),
            Err(Failure::TimedOut(phase)) => {
                Err(format!("{:?}: {}", AttemptOutcome::TimedOut, phase.explain(timeout)))
            }
            Err(Failure::Attempt(outcome, text)) => Err(format!("{outcome:?}: {text}")),
            Err(Failure::EgressUnavailable) => Err("no egress".to_owned()),
        }
    }
}
