//! An endpoint on the loopback that records every byte that it receives, and answers as a test
//! says.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Barrier, Notify},
};
use tokio_rustls::TlsAcceptor;

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) line: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Received {
    /// Returns the only value of a header. Panics if it is there twice.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "{name} came twice");
        value
    }
}

/// How the receiver answers.
#[derive(Clone)]
pub(crate) enum Reply {
    /// Sends these bytes, and keeps the connection open.
    Bytes(String),
    /// Answers the first request on a connection with 200, and ends the connection at the second,
    /// without a byte.
    Once,
    /// The same, with a reset.
    OnceAndReset,
    /// Sends these bytes, and closes the connection.
    Close(String),
    /// Never answers.
    Hang,
    /// Sends a head, and then a byte of the body now and then, without end.
    Drip,
    /// Sends a head, and an endless body.
    Infinite,
    /// Resets the connection after the request.
    Reset,
    /// Answers with 200 once as many requests as the barrier wants have arrived.
    Together(Arc<Barrier>),
    /// Answers with 200 when told to.
    When(Arc<Notify>),
}

impl Reply {
    /// Returns an answer with a status line such as "200 OK" and an empty body.
    pub(crate) fn status(line: &str) -> Self {
        Self::Bytes(format!("HTTP/1.1 {line}\r\ncontent-length: 0\r\n\r\n"))
    }
}

/// A running receiver.
#[derive(Clone)]
pub(crate) struct Receiver {
    pub(crate) port: u16,
    pub(crate) requests: Arc<Mutex<Vec<Received>>>,
    pub(crate) connections: Arc<AtomicUsize>,
}

impl Receiver {
    pub(crate) async fn start(reply: Reply) -> Self {
        Self::listen(reply, None).await
    }

    pub(crate) async fn start_tls(reply: Reply, tls: TlsAcceptor) -> Self {
        Self::listen(reply, Some(tls)).await
    }

    async fn listen(reply: Reply, tls: Option<TlsAcceptor>) -> Self {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener: TcpListener = socket.listen(4096).unwrap();
        let receiver = Self {
            port: listener.local_addr().unwrap().port(),
            requests: Arc::default(),
            connections: Arc::default(),
        };
        let serving = receiver.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                serving.connections.fetch_add(1, Ordering::SeqCst);
                let (serving, reply, tls) = (serving.clone(), reply.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None if matches!(reply, Reply::OnceAndReset) => {
                            serving.reset_the_second(stream).await
                        }
                        None if matches!(reply, Reply::Reset) => serving.reset(stream).await,
                        None => serving.serve(stream, reply).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serving.serve(stream, reply).await;
                            }
                        }
                    }
                });
            }
        });
        receiver
    }

    pub(crate) fn count(&self) -> usize {
        self.requests.lock().unwrap().len()
    }

    pub(crate) fn first(&self) -> Received {
        self.requests.lock().unwrap()[0].clone()
    }

    pub(crate) fn last(&self) -> Received {
        self.requests.lock().unwrap().last().unwrap().clone()
    }

    async fn reset(&self, mut stream: TcpStream) {
        self.read(&mut stream, &mut Vec::new()).await;
        stream.set_zero_linger().unwrap();
    }

    async fn reset_the_second(&self, mut stream: TcpStream) {
        let mut unread = Vec::new();
        if self.read(&mut stream, &mut unread).await.is_some()
            && answer(&mut stream, &Reply::status("200 OK")).await.is_some()
        {
            self.read(&mut stream, &mut unread).await;
        }
        stream.set_zero_linger().unwrap();
    }

    async fn serve<S: AsyncRead + AsyncWrite + Unpin>(&self, mut stream: S, reply: Reply) {
        let mut unread = Vec::new();
        let mut served = 0;
        while self.read(&mut stream, &mut unread).await.is_some() {
            served += 1;
            if matches!(reply, Reply::Once) && served == 2 {
                let _ = stream.shutdown().await;
                return;
            }
            if answer(&mut stream, &reply).await.is_none() {
                return;
            }
        }
    }

    /// Reads one request, or returns `None` if the connection ended.
    async fn read<S: AsyncRead + Unpin>(&self, stream: &mut S, unread: &mut Vec<u8>) -> Option<()> {
        let end = loop {
            if let Some(end) = unread.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
            if stream.read_buf(unread).await.ok()? == 0 {
                return None;
            }
        };
        let head = String::from_utf8(unread.drain(..end + 4).collect()).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let line = lines.next().unwrap().to_owned();
        let headers = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
            .collect();
        let mut received = Received { line, headers, body: Vec::new() };
        let length: usize = received.header("content-length").unwrap().parse().unwrap();
        while unread.len() < length {
            if stream.read_buf(unread).await.ok()? == 0 {
                return None;
            }
        }
        received.body = unread.drain(..length).collect();
        self.requests.lock().unwrap().push(received);
        Some(())
    }
}

/// Answers, and returns `None` if the connection must be closed.
async fn answer<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, reply: &Reply) -> Option<()> {
    const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    match reply {
        Reply::Once | Reply::OnceAndReset => stream.write_all(OK).await.ok(),
        Reply::Bytes(bytes) => stream.write_all(bytes.as_bytes()).await.ok(),
        Reply::Close(bytes) => {
            stream.write_all(bytes.as_bytes()).await.ok()?;
            None
        }
        Reply::Reset => None,
        Reply::Hang => hang(stream).await,
        Reply::Drip => {
            stream.write_all(CHUNKED).await.ok()?;
            loop {
                stream.write_all(b"1\r\nx\r\n").await.ok()?;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Reply::Infinite => {
            stream.write_all(CHUNKED).await.ok()?;
            let chunk = [b"1000\r\n".as_slice(), &[b'x'; 0x1000], b"\r\n"].concat();
            loop {
                stream.write_all(&chunk).await.ok()?;
            }
        }
        Reply::Together(barrier) => {
            barrier.wait().await;
            stream.write_all(OK).await.ok()
        }
        Reply::When(told) => {
            told.notified().await;
            stream.write_all(OK).await.ok()
        }
    }
}

/// Reads until the other side closes.
async fn hang<S: AsyncRead + Unpin>(stream: &mut S) -> Option<()> {
    let mut byte = [0];
    while stream.read(&mut byte).await.ok()? > 0 {}
    None
}
