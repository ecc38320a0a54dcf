//! An endpoint that sends bytes, and answers as no honest server would.

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
    server::TlsStream,
};

use crate::pki::Identity;

/// What the endpoint does after it has read a request.
#[derive(Debug, Clone)]
pub enum Act {
    /// Sends these bytes.
    Send(&'static str),
    /// Sends them until the other side closes.
    Repeat(&'static str),
    /// Sends these bytes one at a time, with a pause after each.
    Drip(&'static str, Duration),
    /// Sends nothing until the other side closes.
    Hang,
    /// Closes the connection, with TLS without a closing alert.
    Close,
    /// Resets the connection.
    Reset,
    /// Sends bytes below TLS.
    Below(&'static [u8]),
}

/// How much is read before the acts begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reads {
    Request,
    Head,
    Nothing,
}

/// How long an endpoint that reads nothing keeps a connection, because it does not notice its end.
const DEAF: Duration = Duration::from_secs(60);

/// The endpoint. Dropping it ends it.
#[derive(Debug)]
pub struct RawReceiver {
    address: SocketAddr,
    scheme: &'static str,
    /// Requests by `webhook-id`.
    requests: Arc<Mutex<HashMap<String, usize>>>,
    server: JoinHandle<()>,
}

#[derive(Clone)]
struct Script {
    /// The acts for each request on a connection. The last ones are for all further requests.
    acts: Arc<[Vec<Act>]>,
    reads: Reads,
    requests: Arc<Mutex<HashMap<String, usize>>>,
}

impl RawReceiver {
    /// Starts an endpoint that does this for every request.
    pub async fn start(acts: &[Act]) -> Result<Self> {
        Self::start_each(&[acts]).await
    }

    /// Starts an endpoint that does the first acts for the first request on each connection, the
    /// second for the second, and so on. The last ones are for all further requests.
    pub async fn start_each(acts: &[&[Act]]) -> Result<Self> {
        Self::listen("127.0.0.1:0", acts, Reads::Request, None).await
    }

    /// The same with TLS.
    pub async fn start_each_tls(acts: &[&[Act]], identity: &Identity) -> Result<Self> {
        Self::listen(
            "127.0.0.1:0",
            acts,
            Reads::Request,
            Some(acceptor(&identity.certificate, &identity.private_key)?),
        )
        .await
    }

    /// Starts an endpoint on this port that does this for every request.
    pub async fn start_on(port: u16, acts: &[Act]) -> Result<Self> {
        Self::listen(&format!("127.0.0.1:{port}"), &[acts], Reads::Request, None).await
    }

    /// Starts an endpoint that does this as soon as it has read the head of a request.
    pub async fn start_early(acts: &[Act]) -> Result<Self> {
        Self::listen("127.0.0.1:0", &[acts], Reads::Head, None).await
    }

    /// Starts an endpoint with TLS that does this for every request.
    pub async fn start_tls(acts: &[Act], identity: &Identity) -> Result<Self> {
        Self::start_each_tls(&[acts], identity).await
    }

    /// Starts an endpoint that does this on every connection and never reads anything.
    pub async fn start_deaf(acts: &[Act]) -> Result<Self> {
        Self::listen("127.0.0.1:0", &[acts], Reads::Nothing, None).await
    }

    /// Returns the same endpoint with another scheme in its URL.
    #[must_use]
    pub fn with_scheme(mut self, scheme: &'static str) -> Self {
        self.scheme = scheme;
        self
    }

    async fn listen(
        address: &str,
        acts: &[&[Act]],
        reads: Reads,
        tls: Option<TlsAcceptor>,
    ) -> Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let requests: Arc<Mutex<HashMap<String, usize>>> = Arc::default();
        let acts = acts.iter().map(|acts| acts.to_vec()).collect();
        let script = Script { acts, reads, requests: Arc::clone(&requests) };
        let scheme = if tls.is_some() { "https" } else { "http" };
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (script, tls) = (script.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => script.serve(stream).await,
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => script.serve(stream).await,
                            Err(_) => None,
                        },
                    }
                });
            }
        });
        Ok(Self { address, scheme, requests, server })
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://{}/", self.scheme, self.address)
    }

    /// Returns how often an event arrived.
    #[must_use]
    pub fn count(&self, event: &str) -> usize {
        self.requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(event)
            .copied()
            .unwrap_or(0)
    }
}

impl Drop for RawReceiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn acceptor(certificate: &Path, private_key: &Path) -> Result<TlsAcceptor> {
    let chain = CertificateDer::pem_file_iter(certificate)?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(private_key)?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .context("the certificate of a raw receiver")?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// A connection, with or without TLS.
trait Wire: AsyncRead + AsyncWrite + Unpin {
    fn tcp(&mut self) -> &mut TcpStream;
}

impl Wire for TcpStream {
    fn tcp(&mut self) -> &mut TcpStream {
        self
    }
}

impl Wire for TlsStream<TcpStream> {
    fn tcp(&mut self) -> &mut TcpStream {
        self.get_mut().0
    }
}

impl Script {
    /// Serves a connection to its end.
    async fn serve<S: Wire>(self, mut stream: S) -> Option<()> {
        if self.reads == Reads::Nothing {
            for act in self.acts.iter().flatten().filter(|act| !matches!(act, Act::Hang)) {
                perform(&mut stream, act).await?;
            }
            tokio::time::sleep(DEAF).await;
            return None;
        }
        let (mut unread, mut served) = (Vec::new(), 0);
        loop {
            self.read(&mut stream, &mut unread).await?;
            let acts = self.acts.get(served).or(self.acts.last())?;
            served += 1;
            for act in acts {
                perform(&mut stream, act).await?;
            }
        }
    }

    async fn read<S: Wire>(&self, stream: &mut S, unread: &mut Vec<u8>) -> Option<()> {
        let end = loop {
            if let Some(at) = unread.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if stream.read_buf(unread).await.ok()? == 0 {
                return None;
            }
        };
        let head = String::from_utf8_lossy(&unread[..end]).into_owned();
        let header = |name: &str| {
            let mut lines = head.lines().filter_map(|line| line.split_once(": "));
            lines
                .find(|(known, _)| known.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.to_owned())
        };
        let event = header("webhook-id").unwrap_or_default();
        *self.requests.lock().unwrap_or_else(PoisonError::into_inner).entry(event).or_default() +=
            1;
        if self.reads == Reads::Request {
            let length: usize = header("content-length")?.parse().ok()?;
            while unread.len() < end + length {
                if stream.read_buf(unread).await.ok()? == 0 {
                    return None;
                }
            }
            unread.drain(..end + length);
        }
        Some(())
    }
}

/// Returns `None` when the connection has ended.
async fn perform<S: Wire>(stream: &mut S, act: &Act) -> Option<()> {
    match act {
        Act::Send(bytes) => stream.write_all(bytes.as_bytes()).await.ok()?,
        Act::Repeat(bytes) => {
            let many = bytes.repeat(4096 / bytes.len() + 1);
            while stream.write_all(many.as_bytes()).await.is_ok() {}
            return None;
        }
        Act::Drip(bytes, pause) => {
            for byte in bytes.bytes() {
                stream.write_all(&[byte]).await.ok()?;
                stream.flush().await.ok()?;
                tokio::time::sleep(*pause).await;
            }
        }
        Act::Hang => {
            while stream.read_u8().await.is_ok() {}
            return None;
        }
        Act::Close => return None,
        Act::Reset => {
            // The bytes before must arrive before the reset.
            tokio::time::sleep(Duration::from_millis(50)).await;
            stream.tcp().set_zero_linger().ok()?;
            return None;
        }
        Act::Below(bytes) => stream.tcp().write_all(bytes).await.ok()?,
    }
    stream.flush().await.ok()
}
