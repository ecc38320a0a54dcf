//! The server's side of the handshake.

use std::{io, sync::Arc, time::Duration};

use outrider_model::Reason;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, TlsStream};

use super::{files::Tls, protocol::Protocol, socket::Socket};

/// The first byte of a handshake.
const HANDSHAKE: u8 = 0x16;
/// For the farewell to a client that speaks plain HTTP.
const FAREWELL: Duration = Duration::from_secs(1);
/// What a client that speaks plain HTTP is told.
const PLAIN_HTTP: &str = "this port speaks TLS: use https:// instead";

/// Secures what a listener accepted, if it has TLS.
#[derive(Debug, Clone)]
pub struct Acceptor(Option<Secured>);

#[derive(Debug, Clone)]
struct Secured {
    tls: Arc<Tls>,
    protocol: Protocol,
    handshake_timeout: Duration,
}

impl Acceptor {
    /// How long a handshake may take by default.
    pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

    /// Without TLS.
    #[must_use]
    pub fn plain() -> Self {
        Self(None)
    }

    /// With TLS, 1.2 or 1.3. A handshake that is not done after `handshake_timeout` is cut.
    #[must_use]
    pub fn new(tls: Arc<Tls>, protocol: Protocol, handshake_timeout: Duration) -> Self {
        Self(Some(Secured { tls, protocol, handshake_timeout }))
    }

    /// With mutual TLS where there is some, and the default bound on handshakes.
    #[must_use]
    pub fn between_roles(tls: Option<&Arc<Tls>>, protocol: Protocol) -> Self {
        tls.map_or_else(Self::plain, |tls| {
            Self::new(Arc::clone(tls), protocol, Self::HANDSHAKE_TIMEOUT)
        })
    }

    /// The connection once its handshake is done. A client that speaks plain HTTP is told so;
    /// whatever else begins no handshake is closed without a word.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<Socket> {
        let Some(secured) = &self.0 else { return Ok(stream.into()) };
        let handshake = async {
            let mut first = [0];
            if stream.peek(&mut first).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if first[0] != HANDSHAKE {
                if first[0].is_ascii_uppercase() {
                    // It may be gone already.
                    let _ = timeout(FAREWELL, say_plain(stream)).await;
                }
                return Err(io::Error::new(io::ErrorKind::InvalidData, "no handshake"));
            }
            let acceptor = TlsAcceptor::from(secured.tls.server(secured.protocol));
            Ok(Socket::from(TlsStream::Server(acceptor.accept(stream).await?)))
        };
        timeout(secured.handshake_timeout, handshake)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

/// The error, in the same shape as any other of REST.
fn plain_http() -> String {
    let request_id = uuid::Uuid::now_v7();
    let reason = Reason::MalformedRequest;
    let body = format!(
        r#"{{"error":{{"code":400,"status":"INVALID_ARGUMENT","reason":"{reason}","message":"{PLAIN_HTTP}","violations":[],"request_id":"{request_id}"}}}}"#
    );
    let head = "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-type: application/json\r\nx-content-type-options: nosniff";
    format!("{head}\r\nx-request-id: {request_id}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// Answers, and drops what the client still sends, so that the answer reaches it instead of a
/// reset.
async fn say_plain(mut stream: TcpStream) -> io::Result<()> {
    stream.write_all(plain_http().as_bytes()).await?;
    stream.shutdown().await?;
    tokio::io::copy(&mut stream.take(64 * 1024), &mut tokio::io::sink()).await.map(drop)
}
