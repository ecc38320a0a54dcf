//! A receiver of webhooks on this machine, which verifies webhooks as an endpoint should. For the
//! demo and for `outrider listen`.

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, StatusCode, Uri},
};
use outrider_model::{
    EventId, SigningSecret, Timestamp,
    signature::{ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER, Untrusted, verify},
};
use tokio::{net::TcpListener, sync::mpsc};

use crate::printable::printable;

/// Maximum size of a webhook, in bytes: more than any payload that the server sends by default.
const MAX_BODY_BYTES: usize = 256 * 1024 * 1024;
/// Maximum size of the part of a body that is shown, in bytes.
const SHOWN_BYTES: usize = 64 * 1024;
/// Maximum number of webhooks that wait to be shown. Further requests wait for room.
const WAITING: usize = 64;

/// A webhook that arrived.
pub struct Arrived {
    /// The event's id.
    pub id: String,
    /// The request target.
    pub target: String,
    /// The headers of Standard Webhooks, our own headers, and the content type.
    pub headers: Vec<(String, String)>,
    /// The beginning of the body, without control characters.
    pub body: String,
    /// The size of the whole body in bytes.
    pub size: usize,
    /// The result of the verification. `None` if no secret is known.
    pub verified: Option<Result<(), Untrusted>>,
    /// When it arrived.
    pub at: Timestamp,
}

impl Arrived {
    /// Returns the time from the acceptance of the event to its arrival.
    pub fn latency(&self) -> String {
        let accepted = self.id.parse::<EventId>().map(|id| id.time()).unwrap_or(self.at);
        format!("{:>4} ms", self.at.since(accepted).as_millis())
    }

    /// Whether the signature is valid.
    pub fn is_verified(&self) -> bool {
        matches!(self.verified, Some(Ok(())))
    }

    /// Returns the verdict in a word.
    pub fn verdict(&self) -> String {
        match &self.verified {
            Some(Ok(())) => "verified".to_owned(),
            Some(Err(why)) => format!("NOT VERIFIED: {why}"),
            None => "not checked: no secret is known".to_owned(),
        }
    }
}

#[derive(Clone)]
struct Shared {
    secret: Arc<OnceLock<SigningSecret>>,
    status: StatusCode,
    arrived: mpsc::Sender<Arrived>,
}

/// The receiver.
pub struct Receiver {
    pub address: SocketAddr,
    secret: Arc<OnceLock<SigningSecret>>,
    arrived: mpsc::Receiver<Arrived>,
}

impl Receiver {
    /// Listens on a loopback port (0 for a free one), and answers webhooks with `status`, or with
    /// 401 if a signature does not verify.
    pub async fn start(port: u16, status: StatusCode) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port))
            .await
            .with_context(|| format!("cannot listen on 127.0.0.1:{port}"))?;
        let address = listener.local_addr()?;
        let (sender, arrived) = mpsc::channel(WAITING);
        let secret = Arc::new(OnceLock::new());
        let shared = Shared { secret: Arc::clone(&secret), status, arrived: sender };
        let router = Router::new()
            .fallback(receive)
            .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
            .with_state(shared);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(Self { address, secret, arrived })
    }

    /// Sets the secret of the expected webhooks.
    pub fn expect(&self, secret: SigningSecret) {
        let _ = self.secret.set(secret);
    }

    /// Returns the next webhook.
    pub async fn next(&mut self) -> Option<Arrived> {
        self.arrived.recv().await
    }
}

async fn receive(
    State(shared): State<Shared>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let text =
        |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let at = Timestamp(i64::try_from(at.as_micros()).unwrap_or(i64::MAX));
    let verified = shared.secret.get().map(|secret| {
        verify(secret, text(ID_HEADER), text(TIMESTAMP_HEADER), text(SIGNATURE_HEADER), &body, at)
    });
    let status =
        if matches!(verified, Some(Err(_))) { StatusCode::UNAUTHORIZED } else { shared.status };
    let arrived = Arrived {
        id: text(ID_HEADER).to_owned(),
        target: printable(&uri.to_string()),
        headers: shown_headers(&headers),
        body: printable(&String::from_utf8_lossy(&body[..body.len().min(SHOWN_BYTES)])),
        size: body.len(),
        verified,
        at,
    };
    // If the starter of the receiver has ended, nothing listens any more.
    let _ = shared.arrived.send(arrived).await;
    status
}

fn shown_headers(headers: &HeaderMap) -> Vec<(String, String)> {
    let shown = |name: &str| {
        name.starts_with("webhook-") || name.starts_with("outrider-") || name == "content-type"
    };
    headers
        .iter()
        .filter(|(name, _)| shown(name.as_str()))
        .map(|(name, value)| {
            (name.to_string(), printable(&String::from_utf8_lossy(value.as_bytes())))
        })
        .collect()
}
