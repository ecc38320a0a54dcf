//! The server side of the handshake.

use std::{io, sync::Arc, time::Duration};

use outrider_model::Reason;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, TlsStream};

use super::{files::Tls, protocol::Protocol, socket::Socket};

/// First byte of a handshake.
const HANDSHAKE: u8 = 0x16;
/// Time limit of the answer to a client that speaks plain HTTP.
const FAREWELL: Duration = Duration::from_secs(1);
/// Error message for a client that speaks plain HTTP.
const PLAIN_HTTP: &str = "this port speaks TLS: use https:// instead";

/// Secures the accepted connections of a listener, if the listener has TLS.
#[derive(Debug, Clone)]
pub struct Acceptor(Option<Secured>);

#[derive(Debug, Clone)]
struct Secured {
    tls: Arc<Tls>,
    protocol: Protocol,
    handshake_timeout: Duration,
}

impl Acceptor {
    /// Default time limit of a handshake.
    pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

    /// Without TLS.
    #[must_use]
    pub fn plain() -> Self {
        Self(None)
    }

    /// With TLS 1.2 or 1.3. A handshake that takes longer than `handshake_timeout` is cut.
    #[must_use]
    pub fn new(tls: Arc<Tls>, protocol: Protocol, handshake_timeout: Duration) -> Self {
        Self(Some(Secured { tls, protocol, handshake_timeout }))
    }

    /// With mutual TLS if it is configured, and the default time limit of handshakes.
    #[must_use]
    pub fn between_roles(tls: Option<&Arc<Tls>>, protocol: Protocol) -> Self {
        tls.map_or_else(Self::plain, |tls| {
            Self::new(Arc::clone(tls), protocol, Self::HANDSHAKE_TIMEOUT)
        })
    }

    /// Returns the connection after its handshake. A client that speaks plain HTTP gets an error.
    /// Any other connection that does not begin a handshake is closed without an answer.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<Socket> {
        let Some(secured) = &self.0 else { return Ok(stream.into()) };
        let handshake = async {
            let mut first = [0];
            if stream.peek(&mut first).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if first[0] != HANDSHAKE {
                if first[0].is_ascii_uppercase() {
                    // The client may be gone already.
                    let _ = timeout(FAREWELL, say_plain(stream)).await;
                }
                return Err(io::Error::new(io::ErrorKind::InvalidData, "not a TLS handshake"));
            }
            let acceptor = TlsAcceptor::from(secured.tls.server(secured.protocol));
            Ok(Socket::from(TlsStream::Server(acceptor.accept(stream).await?)))
        };
        timeout(secured.handshake_timeout, handshake)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

/// Returns the error in the format of any other REST error.
fn plain_http() -> String {
    let request_id = uuid::Uuid::now_v7();
    let reason = Reason::MalformedRequest;
    let error = format!(
        r#"{{"code":400,"status":"INVALID_ARGUMENT","reason":"{reason}","message":"{PLAIN_HTTP}","#
    );
    let body = format!(r#"{{"error":{error}"violations":[],"request_id":"{request_id}"}}}}"#);
    let head = "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-type: application/json\r\n\
                x-content-type-options: nosniff";
    format!("{head}\r\nx-request-id: {request_id}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// Sends the error and drops the rest of the request, so that the client gets the error instead of
/// a reset.
async fn say_plain(mut stream: TcpStream) -> io::Result<()> {
    stream.write_all(plain_http().as_bytes()).await?;
    stream.shutdown().await?;
    tokio::io::copy(&mut stream.take(64 * 1024), &mut tokio::io::sink()).await.map(drop)
}
