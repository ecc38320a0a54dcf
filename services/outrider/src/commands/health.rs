//! `outrider health`: asks a server on this machine whether it works. For containers, whose images
//! have no other tool for this.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};
use bytes::Bytes;
use clap::Args;
use http::{Request, StatusCode, header::HOST};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use super::configuration::Configuration;
use crate::{client::Failure, stdout};

/// The server and the question.
#[derive(Debug, Args)]
pub struct Health {
    #[command(flatten)]
    pub configuration: Configuration,
    /// The operations listener of the server. Default: the one in the configuration.
    #[arg(long, value_name = "ADDRESS")]
    pub address: Option<String>,
    /// Asks whether the process runs (/healthz) instead of whether it is ready (/readyz).
    #[arg(long)]
    pub live: bool,
    /// How long to wait for the response.
    #[arg(long, default_value = "2s", value_name = "TIME",
        value_parser = humantime::parse_duration)]
    pub timeout: Duration,
}

/// Maximum size of a response, in bytes.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// Succeeds if the server answers yes. Any other answer, or none, leads to exit code 1, which is
/// the only one that container engines treat as a no.
pub async fn run(options: Health) -> Result<(), Failure> {
    let address = match options.address {
        Some(address) => parsed("--address", &address)?,
        None => parsed("operations.listen", &options.configuration.load()?.operations.listen)?,
    };
    let path = if options.live { "/healthz" } else { "/readyz" };
    let answer = tokio::time::timeout(options.timeout, ask(reachable(address), path)).await;
    let (status, body) = answer
        .unwrap_or_else(|_| {
            Err(anyhow!("no answer within {}", humantime::format_duration(options.timeout)))
        })
        .with_context(|| format!("http://{address}{path}"))?;
    if status == StatusCode::OK {
        return Ok(stdout::write(if options.live { "running\n" } else { "ready\n" })?);
    }
    Err(Failure::Other(anyhow!("http://{address}{path} was answered {status}{}", reasons(&body))))
}

/// Parses the address of a server.
fn parsed(what: &str, address: &str) -> Result<SocketAddr, Failure> {
    match address.parse::<SocketAddr>() {
        Ok(address) if address.port() != 0 => Ok(address),
        _ => Err(Failure::Other(anyhow!(
            "{what} is \"{address}\", which names no port to ask: give --address IP:PORT"
        ))),
    }
}

/// Returns the address at which a listener on all addresses is reached from its own machine.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

async fn ask(address: SocketAddr, path: &str) -> Result<(StatusCode, Bytes)> {
    let stream = TcpStream::connect(address).await.context("nothing listens there")?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // The connection ends with the process at the latest. The request reports its errors.
    tokio::spawn(connection);
    let request =
        Request::get(path).header(HOST, address.to_string()).body(Empty::<Bytes>::new())?;
    let answer = sender.send_request(request).await.context("no answer of HTTP")?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), MAX_BODY_BYTES).collect().await;
    let body = body.map_err(|error| anyhow!("the answer breaks off, or is too long: {error}"))?;
    Ok((status, body.to_bytes()))
}

/// Returns what the server waits for, a line each.
fn reasons(body: &[u8]) -> String {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let reasons = body["waiting_for"].as_array().into_iter().flatten();
    reasons.filter_map(Value::as_str).map(|reason| format!("\n  {reason}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_on_all_addresses_are_asked_on_loopback() {
        let at = |text: &str| reachable(parsed("--address", text).unwrap()).to_string();
        assert_eq!(at("0.0.0.0:9090"), "127.0.0.1:9090");
        assert_eq!(at("[::]:9090"), "[::1]:9090");
        assert_eq!(at("10.0.0.7:9090"), "10.0.0.7:9090");
        for nobody in ["", "127.0.0.1:0"] {
            assert_eq!(parsed("--address", nobody).unwrap_err().code(), 1, "{nobody}");
        }
    }

    #[test]
    fn what_is_waited_for_is_told_in_lines() {
        assert_eq!(
            reasons(
                br#"{"ready": false, "waiting_for": ["the database: gone", "the queue: full"]}"#
            ),
            { "\n  the database: gone\n  the queue: full" }
        );
        for other in [&b""[..], b"nonsense", b"{\"waiting_for\": 7}", b"[]"] {
            assert_eq!(reasons(other), "");
        }
    }
}
