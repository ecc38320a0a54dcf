//! HTTP/2: malformed gRPC requests and malformed frames.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures::{StreamExt, stream};
use h2::{Reason, client::SendRequest};
use http::{HeaderMap, Request};
use tokio::{io::AsyncReadExt, io::AsyncWriteExt, net::TcpStream, time::timeout};

use super::{AT_ONCE, bodies, dice::Dice, judge, text};
use crate::findings::Findings;

const DEADLINE: Duration = Duration::from_secs(20);
/// How many requests one connection has: fewer than may be reset on it.
const PER_CONNECTION: usize = 50;

/// A request, its body, and whether it is reset after the body.
type Call = (Request<()>, Vec<u8>, bool);

fn call(dice: &mut Dice, address: &str, token: Option<&str>) -> Result<Call> {
    let method = if dice.below(12) == 0 {
        dice.pick(&["GET", "PUT", "DELETE", "BREW", "OPTIONS"])
    } else {
        "POST"
    };
    let media_type = match dice.below(12) {
        0 => dice.pick(&[
            "application/grpc+json",
            "application/grpc-foo",
            "application/grpc+",
            "application/grpc+thrift;a=b",
        ]),
        1 => dice.pick(&["Application/gRPC", "application/grpc+PROTO", "application/grpc;a=b"]),
        _ => "application/grpc",
    };
    let path = text::grpc_path(dice);
    let mut request = Request::builder().method(method).uri(format!("http://{address}{path}"));
    request = request.header("content-type", media_type).header("te", "trailers");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    request = match dice.below(12) {
        0 => request.header("grpc-timeout", dice.pick(&["soon", "-1S", "99999999999S", ""])),
        1 => request.header("grpc-encoding", dice.pick(&["gzip", "deflate", "nothing", ""])),
        2 => request
            .header("authorization", dice.pick(&["Bearer x", "Basic eDp5", "Bearer ork_", ""])),
        3 => request.header("content-length", dice.below(100)),
        4 => request.header("a-bin", "***"),
        _ => request,
    };
    let body = bodies::grpc(dice);
    Ok((request.body(())?, body, dice.below(10) == 0))
}

/// Sends a call and judges its answer. A reset call has none.
async fn judged(send: &mut SendRequest<Bytes>, (request, body, back): Call) -> Result<()> {
    let (answer, mut stream) = send.send_request(request, false)?;
    // The body is complete unless the call is reset.
    if stream.send_data(body.into(), !back).is_ok() && back {
        tokio::task::yield_now().await;
        stream.send_reset(Reason::CANCEL);
        return Ok(());
    }
    let Ok(answer) = answer.await else { return Ok(()) };
    let (parts, mut body) = answer.into_parts();
    ensure!(parts.status.as_u16() < 500, "{parts:?}");
    let mut length = 0;
    while let Some(data) = body.data().await {
        let Ok(data) = data else { return Ok(()) };
        length += data.len();
        body.flow_control().release_capacity(data.len())?;
    }
    let trailers = body.trailers().await.ok().flatten().unwrap_or_default();
    let told =
        [&parts.headers, &trailers].into_iter().find(|headers| headers.contains_key("grpc-status"));
    let told = told.with_context(|| format!("no status after {length} bytes: {parts:?}"))?;
    status(told).with_context(|| format!("{told:?}"))
}

fn status(headers: &HeaderMap) -> Result<()> {
    let code = headers["grpc-status"].to_str()?.parse()?;
    judge::grpc_status(code, headers.contains_key("grpc-status-details-bin"))
}

/// Sends gRPC requests to the gateway or to a role.
pub async fn grpc(
    address: &str,
    token: Option<&str>,
    mut dice: Dice,
    count: usize,
    findings: &mut Findings,
) -> Result<()> {
    let mut left = count;
    while left > 0 {
        let (send, connection) = h2::client::handshake(TcpStream::connect(address).await?).await?;
        let connection = tokio::spawn(connection);
        let calls: Vec<Call> = (0..left.min(PER_CONNECTION))
            .map(|_| call(&mut dice, address, token))
            .collect::<Result<_>>()?;
        left -= calls.len();
        let judged = stream::iter(calls).map(|call| {
            let send = send.clone();
            async move {
                let shown = format!("{:?} {:?}", call.0, String::from_utf8_lossy(&call.1));
                let judged = async {
                    let mut send = send.ready().await?;
                    judged(&mut send, call).await
                };
                let judged =
                    timeout(DEADLINE, judged).await.context("no answer").and_then(|judged| judged);
                judged.with_context(|| format!("gRPC at {address}: {shown:.900}"))
            }
        });
        let mut judged = std::pin::pin!(judged.buffer_unordered(AT_ONCE));
        while let Some(judged) = judged.next().await {
            findings.add(judged);
        }
        connection.abort();
    }
    Ok(())
}

fn garbled(dice: &mut Dice) -> Vec<u8> {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let mut bytes = if dice.below(5) == 0 { dice.spoil(PREFACE) } else { PREFACE.to_vec() };
    if dice.below(5) != 0 {
        bytes.extend(b"\0\0\0\x04\0\0\0\0\0");
    }
    for _ in 0..=dice.below(8) {
        let length = dice.below(60);
        let told = if dice.below(6) == 0 { dice.below(1 << 24) } else { length };
        bytes.extend(&u32::try_from(told).unwrap_or_default().to_be_bytes()[1..]);
        bytes.push(u8::try_from(dice.below(12)).unwrap_or_default());
        bytes.extend(dice.noise(1));
        let id = u32::try_from(dice.below(6)).unwrap_or_default();
        bytes.extend(id.to_be_bytes());
        bytes.extend(dice.noise(length));
    }
    bytes
}

/// Sends malformed frames and frames that break the rules. The only requirement is that the
/// connection ends.
pub async fn garbage(address: &str, mut dice: Dice, count: usize, findings: &mut Findings) {
    let all: Vec<Vec<u8>> = (0..count).map(|_| garbled(&mut dice)).collect();
    let ended = stream::iter(all).map(async |bytes| {
        let work = async {
            let mut stream = TcpStream::connect(address).await?;
            // The server may close it before everything is written.
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
            anyhow::Ok(())
        };
        timeout(DEADLINE, work)
            .await
            .context("the connection does not end")?
            .with_context(|| format!("frames: {bytes:?}"))
    });
    let mut ended = std::pin::pin!(ended.buffer_unordered(AT_ONCE));
    while let Some(ended) = ended.next().await {
        findings.add(ended);
    }
}
