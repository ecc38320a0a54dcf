//! The worker's client for an egress in another process: HTTP CONNECT, and the headers in which the
//! proxy reports why it refused.

use std::{borrow::Cow, io, net::IpAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use crate::{
    channels::dial::{DialError, Dialer, NoConnection, NoName},
    guard::internal::InternalToken,
    tls::{NotAnAddress, Protocol, Tls, connect, host_and_port, socket::Socket},
    wire::cause,
};

/// Header of a refusal: one of the following words.
pub const ERROR_HEADER: &str = "outrider-egress-error";
/// Header of a refusal by the policy: the rule's name.
pub const RULE_HEADER: &str = "outrider-egress-rule";
/// Header of a refusal: its cause, if known.
pub const CAUSE_HEADER: &str = "outrider-egress-cause";
/// The policy refuses the host.
pub const REFUSED: &str = "refused";
/// The host name has no address.
pub const NOT_RESOLVED: &str = "not-resolved";
/// No permitted address accepted the connection.
pub const CONNECT_FAILED: &str = "connect-failed";
/// The proxy is full, or has a fault of its own.
pub const UNAVAILABLE: &str = "unavailable";

/// Maximum size of an answer's head, in bytes.
const HEAD_BYTES: usize = 8 * 1024;
/// The proxy is on the same network. If it does not accept a connection within this time, it is
/// down, and no endpoint is at fault.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Dials through an egress proxy. It ignores the proxy variables of the environment, and never
/// dials without the proxy, even if that is unreachable.
#[derive(Debug, Clone)]
pub struct RemoteDialer {
    host: Arc<str>,
    port: u16,
    token: Option<InternalToken>,
    tls: Option<Arc<Tls>>,
}

impl RemoteDialer {
    /// Dials over the proxy at `proxy`: a host and a port, as in `egress:8081` or `[::1]:8081`.
    pub fn new(proxy: &str) -> Result<Self, NotAnAddress> {
        let (host, port) = host_and_port(proxy)?;
        Ok(Self { host: host.into(), port, token: None, tls: None })
    }

    /// Presents the token that the proxy requires.
    #[must_use]
    pub fn with_token(self, token: Option<InternalToken>) -> Self {
        Self { token, ..self }
    }

    /// Uses TLS to the proxy, for the CONNECT and for all bytes of the tunnel.
    #[must_use]
    pub fn with_tls(self, tls: Option<Arc<Tls>>) -> Self {
        Self { tls, ..self }
    }

    fn head(&self, target: &str) -> String {
        let token = self
            .token
            .as_ref()
            .map(|token| format!("Proxy-Authorization: Bearer {}\r\n", token.reveal()));
        format!(
            "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{}{}\r\n",
            token.unwrap_or_default(),
            trace_lines()
        )
    }

    async fn tunnel(&self, target: &str) -> io::Result<Result<Socket, DialError>> {
        let connected = timeout(
            CONNECT_TIMEOUT,
            connect(self.tls.as_deref(), Protocol::Proxy, &self.host, self.port),
        )
        .await;
        let mut socket = connected.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        socket.write_all(self.head(target).as_bytes()).await?;
        socket.flush().await?;
        let (head, ahead) = read_head(&mut socket).await?;
        Ok(judge(&head).map(|()| socket.with_ahead(ahead)))
    }
}

/// Returns the trace headers of the current span, if there is one.
fn trace_lines() -> String {
    let Some(context) = outrider_telemetry::current() else { return String::new() };
    let state = Some(context.tracestate()).filter(|state| !state.is_empty());
    let state = state.map(|state| format!("tracestate: {state}\r\n")).unwrap_or_default();
    format!("traceparent: {}\r\n{state}", context.traceparent())
}

#[async_trait]
impl Dialer for RemoteDialer {
    async fn dial(&self, host: &str, port: u16) -> Result<Socket, DialError> {
        let target = target(host, port)?;
        self.tunnel(&target).await.unwrap_or_else(|error| {
            let (host, port, error) = (&*self.host, self.port, cause::of_io(&error));
            tracing::warn!(host, port, error, "the egress proxy cannot be reached");
            Err(DialError::EgressUnavailable)
        })
    }
}

/// Returns the authority form of a target. The host is checked here too, so that no text in it can
/// be read as another part of the request.
fn target(host: &str, port: u16) -> Result<String, DialError> {
    let refused = |rule: &str| Err(DialError::Refused { rule: rule.to_owned() });
    if port == 0 {
        return refused("port-zero");
    }
    let shown: Cow<'_, str> = match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) => format!("[{address}]").into(),
        Ok(IpAddr::V4(_)) => host.into(),
        Err(_) => {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            if !(1..=254).contains(&host.len()) || !host.bytes().all(plain) {
                return refused("name-syntax");
            }
            host.into()
        }
    };
    Ok(format!("{shown}:{port}"))
}

/// Reads up to the empty line. Returns the head and the bytes after it, which belong to the tunnel.
async fn read_head(socket: &mut Socket) -> io::Result<(Bytes, Bytes)> {
    const END: &[u8] = b"\r\n\r\n";
    let mut head = BytesMut::with_capacity(1024);
    loop {
        // The end may span the previous read and this one.
        let from = head.len().saturating_sub(END.len() - 1);
        if socket.read_buf(&mut head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(at) = head[from..].windows(END.len()).position(|window| window == END) {
            let ahead = head.split_off(from + at + END.len());
            return Ok((head.freeze(), ahead.freeze()));
        }
        if head.len() > HEAD_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the answer's head is too long",
            ));
        }
    }
}

/// Converts the head of an answer. Any answer that our proxy does not send counts as an unavailable
/// egress.
fn judge(head: &[u8]) -> Result<(), DialError> {
    let head = String::from_utf8_lossy(head);
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.strip_prefix("HTTP/1.1 "))
        .and_then(|rest| rest.split(' ').next());
    let status =
        status.filter(|status| status.len() == 3).and_then(|status| status.parse::<u16>().ok());
    if matches!(status, Some(200..=299)) {
        return Ok(());
    }
    let headers: Vec<_> = lines.filter_map(|line| line.split_once(':')).collect();
    let header = |name: &str| {
        headers
            .iter()
            .find(|header| header.0.eq_ignore_ascii_case(name))
            .map(|header| header.1.trim())
    };
    match (status, header(ERROR_HEADER)) {
        (Some(403), Some(REFUSED)) => Err(DialError::Refused { rule: rule(header(RULE_HEADER)) }),
        (Some(502), Some(NOT_RESOLVED)) => {
            Err(DialError::NotResolved(NoName::of_header(header(CAUSE_HEADER))))
        }
        (Some(502), Some(CONNECT_FAILED)) => {
            Err(DialError::ConnectFailed(NoConnection::of_header(header(CAUSE_HEADER))))
        }
        (_, error) => {
            tracing::warn!(status, error, "the egress proxy did not connect");
            Err(DialError::EgressUnavailable)
        }
    }
}

/// Returns the name of a rule. It is shown to users, so it may contain only the characters of rule
/// names.
fn rule(given: Option<&str>) -> String {
    let good = |name: &&str| {
        name.len() <= 64
            && name
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    given.filter(good).unwrap_or("unknown").to_owned()
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// A proxy that answers one request with these pieces, each in its own segment, and returns the
    /// request.
    async fn proxy(
        pieces: &'static [&'static [u8]],
    ) -> (RemoteDialer, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dialer = RemoteDialer::new(&listener.local_addr().unwrap().to_string()).unwrap();
        let task = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            for piece in pieces {
                stream.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            String::from_utf8(request).unwrap()
        });
        (dialer, task)
    }

    async fn answer(pieces: &'static [&'static [u8]]) -> Result<Socket, DialError> {
        proxy(pieces).await.0.dial("example.com", 443).await
    }

    #[tokio::test]
    async fn sends_the_authority_form_with_brackets_for_ipv6() {
        for (host, target) in [
            ("example.com", "example.com:443"),
            ("8.8.8.8", "8.8.8.8:443"),
            ("2001:db8::1", "[2001:db8::1]:443"),
        ] {
            let (dialer, request) = proxy(&[b"HTTP/1.1 200 OK\r\n\r\n"]).await;
            dialer.dial(host, 443).await.unwrap();
            assert_eq!(
                request.await.unwrap(),
                format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n")
            );
        }
    }

    #[tokio::test]
    async fn takes_no_byte_of_the_tunnel_for_the_head() {
        const ANSWERS: [&[&[u8]]; 3] = [
            &[b"HTTP/1.1 200 OK\r\ndate: x\r\n\r\nhello"],
            &[b"HTTP/1.1 200 OK\r", b"\n", b"\r", b"\nhel", b"lo"],
            &[b"H", b"TTP/1.1 204 \r\n\r\nhello"],
        ];
        for pieces in ANSWERS {
            let mut text = String::new();
            answer(pieces).await.unwrap().read_to_string(&mut text).await.unwrap();
            assert_eq!(text, "hello");
        }
    }

    #[tokio::test]
    async fn maps_refusals() {
        let refused = |rule: &str| DialError::Refused { rule: rule.to_owned() };
        let table: [(&'static [&'static [u8]], DialError); 9] = [
            (
                &[
                    b"HTTP/1.1 403 Forbidden\r\noutrider-egress-error: refused\r\n",
                    b"Outrider-Egress-Rule:  ipv4-private \r\n\r\n",
                ],
                refused("ipv4-private"),
            ),
            (
                &[
                    b"HTTP/1.1 403 Forbidden\r\noutrider-egress-error: refused\r\n",
                    b"outrider-egress-rule: <b>\r\n\r\n",
                ],
                refused("unknown"),
            ),
            (
                &[b"HTTP/1.1 502 Bad Gateway\r\noutrider-egress-error: not-resolved\r\n\r\n"],
                DialError::NotResolved(NoName::Other),
            ),
            (
                &[
                    b"HTTP/1.1 502 Bad Gateway\r\noutrider-egress-error: not-resolved\r\n",
                    b"outrider-egress-cause: late 50\r\n\r\n",
                ],
                DialError::NotResolved(NoName::Late(Duration::from_millis(50))),
            ),
            (
                &[
                    b"HTTP/1.1 502 Bad\r\noutrider-egress-error: connect-failed\r\n",
                    b"outrider-egress-cause: refused\r\n\r\n",
                ],
                DialError::ConnectFailed(NoConnection::Refused),
            ),
            (
                &[b"HTTP/1.1 503 Full\r\noutrider-egress-error: unavailable\r\n\r\n"],
                DialError::EgressUnavailable,
            ),
            (&[b"HTTP/1.1 502 Bad Gateway\r\n\r\n"], DialError::EgressUnavailable),
            (&[b"SSH-2.0-x\r\n\r\n"], DialError::EgressUnavailable),
            (&[b"HTTP/1.1 200 OK\r\n"], DialError::EgressUnavailable),
        ];
        for (pieces, error) in table {
            assert_eq!(answer(pieces).await.unwrap_err(), error);
        }
    }

    #[tokio::test]
    async fn a_head_without_end_is_bounded() {
        const LONG: &[&[u8]] = &[&[b'a'; 20_000]];
        assert_eq!(answer(LONG).await.unwrap_err(), DialError::EgressUnavailable);
    }

    #[tokio::test]
    async fn fails_closed_without_a_proxy_and_sends_no_forged_target() {
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let dialer = RemoteDialer::new(&closed.to_string()).unwrap();
        assert_eq!(
            dialer.dial("example.com", 443).await.unwrap_err(),
            DialError::EgressUnavailable
        );
        for host in
            ["", "a b", "a\r\nx: y", "user@example.com", "example.com:80", "a/b", "fe80::1%eth0"]
        {
            assert_eq!(
                dialer.dial(host, 443).await.unwrap_err(),
                DialError::Refused { rule: "name-syntax".into() },
                "{host}"
            );
        }
        assert!(matches!(dialer.dial("example.com", 0).await, Err(DialError::Refused { .. })));
    }
}
