//! The client side: connections to roles in other processes.

use std::io;

use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, TlsStream, rustls::pki_types::ServerName};

use super::{files::Tls, protocol::Protocol, socket::Socket};

/// A text that is not a host and a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a host and a port, such as egress:8084 or [::1]:8084")]
pub struct NotAnAddress;

/// Splits `HOST:PORT`. The brackets of an IPv6 address are removed.
pub fn host_and_port(address: &str) -> Result<(&str, u16), NotAnAddress> {
    let (host, port) = address.rsplit_once(':').ok_or(NotAnAddress)?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host = match bare {
        Some(host) => host,
        None if host.contains(':') => return Err(NotAnAddress),
        None => host,
    };
    let port = port.parse().map_err(|_| NotAnAddress)?;
    if host.is_empty() || port == 0 { Err(NotAnAddress) } else { Ok((host, port)) }
}

/// Connects to a host (a name, or an address without brackets) and port. With TLS, this side
/// presents its certificate, and the server must present one that names the host and that a
/// configured authority has signed. The caller bounds the time.
pub async fn connect(
    tls: Option<&Tls>,
    protocol: Protocol,
    host: &str,
    port: u16,
) -> io::Result<Socket> {
    let wrong = |text: &str| io::Error::new(io::ErrorKind::InvalidInput, text);
    let stream = TcpStream::connect((host, port)).await?;
    // Requests between roles are small, and their callers wait for the answers.
    stream.set_nodelay(true)?;
    let Some(tls) = tls else { return Ok(stream.into()) };
    let config = tls
        .client(protocol)
        .ok_or_else(|| wrong("no certificate authorities to verify the server with"))?;
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| wrong("no certificate can name this host"))?;
    Ok(TlsStream::Client(TlsConnector::from(config).connect(name, stream).await?).into())
}
