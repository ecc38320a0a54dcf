//! gRPC-web as in a browser: a server stream over HTTP/1.1.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{Request, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

const MEDIA_TYPE: &str = "application/grpc-web+proto";
const DEADLINE: Duration = Duration::from_secs(40);
/// The flag of the frame that holds the trailers.
const TRAILERS: u8 = 0x80;

/// An open stream.
#[derive(Debug)]
pub struct WebStream {
    body: Incoming,
    read: BytesMut,
}

impl WebStream {
    /// Calls a method with an encoded message.
    pub async fn open(address: &str, method: &str, token: &str, message: &[u8]) -> Result<Self> {
        let io = TokioIo::new(TcpStream::connect(address).await?);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
        tokio::spawn(connection);
        let mut frame = BytesMut::new();
        frame.put_u8(0);
        frame.put_u32(u32::try_from(message.len())?);
        frame.put_slice(message);
        let request = Request::post(method)
            .header(header::HOST, address)
            .header(header::CONTENT_TYPE, MEDIA_TYPE)
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .header("x-grpc-web", "1")
            .body(Full::new(frame.freeze()))?;
        let answer = tokio::time::timeout(DEADLINE, sender.send_request(request)).await??;
        ensure!(answer.status() == 200, "{:?}", answer.headers());
        Ok(Self { body: answer.into_body(), read: BytesMut::new() })
    }

    /// Returns the next message, encoded. At the end, returns the trailers as an error.
    pub async fn next(&mut self) -> Result<Bytes> {
        loop {
            if let Some([flag, length @ ..]) = self.read.first_chunk::<5>() {
                let (flag, length) = (*flag, usize::try_from(u32::from_be_bytes(*length))?);
                if self.read.len() >= 5 + length {
                    self.read.advance(5);
                    let content = self.read.split_to(length).freeze();
                    ensure!(flag != TRAILERS, "ended: {}", String::from_utf8_lossy(&content));
                    return Ok(content);
                }
            }
            let frame = tokio::time::timeout(DEADLINE, self.body.frame())
                .await
                .context("the stream is silent")?;
            if let Ok(data) = frame.context("broke off")??.into_data() {
                self.read.extend_from_slice(&data);
            }
        }
    }
}
