//! The exact errors that gRPC callers get for malformed requests.

use anyhow::{Context, Result, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, Request};
use tokio::net::TcpStream;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::{
    bodies::frame,
    text::{Sent, exchange},
};
use crate::{findings::Findings, scenario::Scenario};

scenarios! {
    by_process: [
        malformed_grpc_is_told_what_is_wrong,
    ],
}

const PUBLISH: &str = "/outrider.ingest.v1.IngestService/PublishEvent";
const STREAM: &str = "/outrider.ingest.v1.IngestService/StreamEvents";
const TAIL: &str = "/outrider.dispatch.v1.EventService/TailEvents";
const GET: &str = "/outrider.admin.v1.ProjectService/GetProject";
const HEALTH: &str = "/grpc.health.v1.Health/Check";

/// The required answer: the HTTP status, the gRPC code, and the reason.
type Told = (u16, Code, &'static str);

const MALFORMED: Told = (200, Code::InvalidArgument, "MALFORMED_REQUEST");
const TOO_LARGE: Told = (200, Code::InvalidArgument, "TOO_LARGE");

/// Sends a gRPC request, and returns the HTTP status and the gRPC status.
async fn call(address: &str, request: Request<()>, body: Vec<u8>) -> Result<(u16, Status)> {
    let (send, connection) = h2::client::handshake(TcpStream::connect(address).await?).await?;
    let connection = tokio::spawn(connection);
    let (answer, mut stream) = send.ready().await?.send_request(request, false)?;
    // It may be refused before its body is sent.
    let _ = stream.send_data(Bytes::from(body), true);
    let (parts, mut body) = answer.await?.into_parts();
    while let Some(data) = body.data().await {
        let length = data?.len();
        body.flow_control().release_capacity(length)?;
    }
    let trailers = body.trailers().await?.unwrap_or_default();
    connection.abort();
    let told = [&parts.headers, &trailers].into_iter().find_map(Status::from_header_map);
    Ok((parts.status.as_u16(), told.context("no status")?))
}

fn judge(told: Told, http: u16, status: &Status) -> Result<()> {
    let reason =
        status.get_error_details().error_info().map(|info| info.reason.clone()).unwrap_or_default();
    ensure!(
        (http, status.code(), reason.as_str()) == told,
        "expected {told:?}, got {http} {status:?} {reason}"
    );
    Ok(())
}

/// Returns bodies that no method accepts.
fn bodies() -> Vec<(Vec<u8>, Told)> {
    vec![
        (frame(2, b""), MALFORMED),
        (frame(1, b"x"), MALFORMED),
        (vec![0, 0, 0], MALFORMED),
        (frame(0, b"abc")[..6].to_vec(), MALFORMED),
        (frame(0, b"\x0a\x05"), MALFORMED),
        (frame(0, b"\x0a\x01\xff"), MALFORMED),
        ([frame(0, b"\x0a\x01\xff"), vec![0]].concat(), MALFORMED),
        (b"\0\xff\xff\xff\xff".to_vec(), TOO_LARGE),
    ]
}

async fn malformed_grpc_is_told_what_is_wrong(scenario: &Scenario) -> Result<()> {
    let mut findings = Findings::default();
    let request = |method: &str, path: &str, media_type: &str| {
        let uri = format!("http://{}{path}", scenario.address);
        let request = Request::builder().method(method).uri(uri).header("content-type", media_type);
        request
            .header("te", "trailers")
            .header("authorization", format!("Bearer {}", scenario.token))
            .body(())
    };
    for path in [PUBLISH, STREAM, TAIL, GET, HEALTH] {
        let mut all = bodies();
        if path != STREAM {
            all.extend([
                (Vec::new(), MALFORMED),
                ([frame(0, b""), frame(0, b"")].concat(), MALFORMED),
            ]);
        }
        for (body, told) in all {
            let (http, status) =
                call(&scenario.address, request("POST", path, "application/grpc")?, body.clone())
                    .await?;
            findings.add(judge(told, http, &status).with_context(|| format!("{path} {body:?}")));
            if path != STREAM {
                findings.add(
                    by_web(scenario, path, &body, told)
                        .await
                        .with_context(|| format!("web {path} {body:?}")),
                );
            }
        }
    }
    let unsupported = (415, Code::Unimplemented, "UNSUPPORTED_MEDIA_TYPE");
    for (method, media_type, told) in [
        ("GET", "application/grpc", (405, Code::Unimplemented, "METHOD_NOT_ALLOWED")),
        ("PUT", "application/grpc+proto", (405, Code::Unimplemented, "METHOD_NOT_ALLOWED")),
        ("POST", "application/grpc+json", unsupported),
        ("POST", "application/grpc-other", unsupported),
        ("POST", "APPLICATION/gRPC+Proto; a=b", MALFORMED),
    ] {
        let (http, status) =
            call(&scenario.address, request(method, PUBLISH, media_type)?, vec![9]).await?;
        findings.add(judge(told, http, &status).with_context(|| format!("{method} {media_type}")));
    }
    let mut gzip = request("POST", PUBLISH, "application/grpc")?;
    gzip.headers_mut().insert("grpc-encoding", http::HeaderValue::from_static("gzip"));
    let (http, status) = call(&scenario.address, gzip, frame(1, b"x")).await?;
    findings.add(judge((200, Code::Unimplemented, "UNSUPPORTED_MEDIA_TYPE"), http, &status));
    findings.finish()
}

/// Sends the same body as gRPC-web, in bytes and in base64, and as invalid base64.
async fn by_web(scenario: &Scenario, path: &str, body: &[u8], told: Told) -> Result<()> {
    let text = STANDARD.encode(body);
    for (media_type, body, told) in [
        ("application/grpc-web+proto", body.to_vec(), told),
        ("application/grpc-web-text", text.clone().into_bytes(), told),
        ("application/grpc-web-text", format!("{text}=???").into_bytes(), MALFORMED),
    ] {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\
                Content-Type: {media_type}\r\n\
             Content-Length: {}\r\n\r\n",
            scenario.token,
            body.len()
        );
        let answer =
            exchange(&scenario.address, &Sent::new([head.as_bytes(), &body].concat())).await?;
        let answer = String::from_utf8_lossy(&answer);
        let http =
            answer.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no answer")?;
        let mut headers = HeaderMap::new();
        for line in answer.lines() {
            // A frame of trailers begins with five other bytes.
            let Some(at) = line.find("grpc-") else { continue };
            if let Some((name, value)) = line[at..].split_once(':') {
                headers
                    .insert(http::HeaderName::from_bytes(name.as_bytes())?, value.trim().parse()?);
            }
        }
        let status =
            Status::from_header_map(&headers).with_context(|| format!("{media_type}: {answer}"))?;
        // A text that cannot be read to its end may be refused for the part that was read.
        let either = media_type.ends_with("-text") && judge(TOO_LARGE, http, &status).is_ok();
        if !either {
            judge(told, http, &status).context(media_type)?;
        }
    }
    Ok(())
}
