//! HTTP/1.1 as bytes, for requests that no honest client sends.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const DEADLINE: Duration = Duration::from_secs(30);

/// The answer.
#[derive(Debug)]
pub struct Exchange {
    /// The status, or 0 if the connection ended without an answer.
    pub status: u16,
    /// Everything that arrived, as text.
    pub text: String,
    /// How many bytes were sent before the answer arrived or the connection ended.
    pub sent: usize,
}

/// Sends parts one after the other until an answer arrives, then reads to the end of the
/// connection. The request must have `Connection: close`.
pub async fn exchange(address: &str, parts: impl IntoIterator<Item = Vec<u8>>) -> Result<Exchange> {
    let (mut reader, mut writer) = TcpStream::connect(address).await?.into_split();
    let mut answer = Vec::new();
    let mut sent = 0;
    let work = async {
        let mut buffer = vec![0; 16 * 1_024];
        for part in parts {
            tokio::select! {
                biased;
                read = reader.read(&mut buffer) => {
                    answer.extend_from_slice(&buffer[..read.unwrap_or(0)]);
                    break;
                }
                written = writer.write_all(&part) => match written {
                    Ok(()) => sent += part.len(),
                    Err(_) => break,
                }
            }
        }
        // A server that refuses the rest of a body may reset the connection after its answer.
        while let Ok(length @ 1..) = reader.read(&mut buffer).await {
            answer.extend_from_slice(&buffer[..length]);
        }
    };
    tokio::time::timeout(DEADLINE, work)
        .await
        .with_context(|| format!("the server hangs for {DEADLINE:?}"))?;
    let text = String::from_utf8_lossy(&answer).into_owned();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Ok(Exchange { status, text, sent })
}
