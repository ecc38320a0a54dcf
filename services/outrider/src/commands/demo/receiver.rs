//! A receiver of webhooks on this machine, which verifies what arrives as an endpoint should.

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Result;
use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use outrider_model::{
    EventId, SigningSecret, Timestamp,
    signature::{ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER, Untrusted, verify},
};
use tokio::{net::TcpListener, sync::mpsc};

/// One webhook that arrived.
pub struct Arrived {
    pub id: String,
    pub body: String,
    pub verified: Result<(), Untrusted>,
    at: Timestamp,
}

impl Arrived {
    /// From the event's acceptance to its arrival.
    pub fn latency(&self) -> String {
        let accepted = self.id.parse::<EventId>().map(|id| id.time()).unwrap_or(self.at);
        format!("{:>4} ms", self.at.since(accepted).as_millis())
    }

    /// In a word.
    pub fn verdict(&self) -> String {
        match &self.verified {
            Ok(()) => "verified".to_owned(),
            Err(why) => format!("NOT VERIFIED: {why}"),
        }
    }
}

#[derive(Clone)]
struct Shared {
    secret: Arc<OnceLock<SigningSecret>>,
    arrived: mpsc::Sender<Arrived>,
}

/// The receiver.
pub struct Receiver {
    pub address: SocketAddr,
    secret: Arc<OnceLock<SigningSecret>>,
    arrived: mpsc::Receiver<Arrived>,
}

impl Receiver {
    /// Listens on a free port of loopback.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (sender, arrived) = mpsc::channel(64);
        let secret = Arc::new(OnceLock::new());
        let router =
            Router::new().route("/webhooks", post(receive)).with_state(Shared { secret: Arc::clone(&secret), arrived: sender });
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(Self { address, secret, arrived })
    }

    /// The secret with which webhooks will be signed.
    pub fn expect(&self, secret: SigningSecret) {
        let _ = self.secret.set(secret);
    }

    /// The next webhook.
    pub async fn next(&mut self) -> Option<Arrived> {
        self.arrived.recv().await
    }
}

async fn receive(State(shared): State<Shared>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let at = Timestamp(i64::try_from(at.as_micros()).unwrap_or(i64::MAX));
    let verified = match shared.secret.get() {
        Some(secret) => verify(secret, text(ID_HEADER), text(TIMESTAMP_HEADER), text(SIGNATURE_HEADER), &body, at),
        None => Err(Untrusted::WrongSignature),
    };
    let status = if verified.is_ok() { StatusCode::NO_CONTENT } else { StatusCode::UNAUTHORIZED };
    let arrived = Arrived { id: text(ID_HEADER).to_owned(), body: String::from_utf8_lossy(&body).into_owned(), verified, at };
    // When the demonstration has ended nobody listens any more.
    let _ = shared.arrived.send(arrived).await;
    status
}
