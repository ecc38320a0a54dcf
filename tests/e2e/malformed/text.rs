//! Malformed HTTP/1.1 requests, as bytes.

use std::{fmt, time::Duration};

use anyhow::{Context, Result};
use base64::{Engine, engine::general_purpose::STANDARD};
use outrider_tests::client::public_methods;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{Target, bodies, dice::Dice};

/// The time within which every answer must end.
const DEADLINE: Duration = Duration::from_secs(20);
/// The time without an answer after which the client ends its side.
const PATIENCE: Duration = Duration::from_millis(300);
const HASTY: &str = "Request-Timeout: 0.001\r\n";
const CLOSE: &str = "Connection: close\r\n";

/// One request.
pub struct Sent {
    bytes: Vec<u8>,
    /// Whether the client leaves at once.
    gone: bool,
}

impl Sent {
    /// Makes a request of these bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, gone: false }
    }

    /// Whether the client gives the server no time.
    pub fn is_hasty(&self) -> bool {
        String::from_utf8_lossy(&self.bytes).contains(HASTY)
    }
}

impl fmt::Debug for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.bytes[..self.bytes.len().min(600)];
        write!(
            f,
            "{:?}{}",
            String::from_utf8_lossy(shown),
            if self.gone { " and gone" } else { "" }
        )
    }
}

/// Sends a request, and returns everything that arrives.
pub async fn exchange(address: &str, sent: &Sent) -> Result<Vec<u8>> {
    let (mut reader, mut writer) = TcpStream::connect(address).await?.into_split();
    let mut answer = Vec::new();
    let work = async {
        // A server that refuses may close before everything is written.
        let _ = writer.write_all(&sent.bytes).await;
        if sent.gone {
            return;
        }
        let mut buffer = vec![0; 16 * 1024];
        let mut waits = true;
        loop {
            let read = if waits {
                timeout(PATIENCE, reader.read(&mut buffer)).await
            } else {
                Ok(reader.read(&mut buffer).await)
            };
            match read {
                Ok(Ok(length @ 1..)) => answer.extend_from_slice(&buffer[..length]),
                Ok(_) => return,
                Err(_) => {
                    waits = false;
                    let _ = writer.shutdown().await;
                }
            }
        }
    };
    timeout(DEADLINE, work).await.with_context(|| format!("no end within {DEADLINE:?}"))?;
    Ok(answer)
}

/// Makes a request with a length, which is sometimes wrong.
fn with_body(dice: &mut Dice, mut head: String, body: &[u8]) -> Sent {
    let length = match dice.below(12) {
        0 => body.len() + 1 + dice.below(50),
        1 => body.len().saturating_sub(1 + dice.below(3)),
        2 => 100_000_000,
        _ => body.len(),
    };
    match dice.below(12) {
        0 => {
            head.push_str("Transfer-Encoding: chunked\r\n\r\n");
            let chunk = dice.pick(&[
                "zz\r\n",
                "5\n",
                "ffffffffffffffff0\r\n",
                "-1\r\n",
                "1\r\nab\r\n",
                "0\r\nbad trailer\r\n\r\n",
                "3\r\nab",
            ]);
            head.push_str(chunk);
        }
        _ => head.push_str(&format!("Content-Length: {length}\r\n\r\n")),
    }
    Sent { bytes: [head.as_bytes(), body].concat(), gone: dice.below(20) == 0 }
}

/// Returns the path of a method, or of none.
pub fn grpc_path(dice: &mut Dice) -> String {
    let methods = public_methods();
    match dice.below(12) {
        0 => dice
            .pick(&[
                "/",
                "/a/b",
                "/outrider.ingest.v1.IngestService/Nothing",
                "/outrider.internal.v1.IntakeService/AcceptEvents",
                "/%00",
            ])
            .into(),
        1 => "/grpc.health.v1.Health/Check".into(),
        _ => {
            let method = &methods[dice.below(methods.len())];
            format!("/{}/{}", method.parent_service().full_name(), method.name())
        }
    }
}

fn odd_headers(dice: &mut Dice) -> &'static str {
    match dice.below(14) {
        0 => "grpc-timeout: soon\r\n",
        1 => "grpc-timeout: 99999999999S\r\n",
        2 => "grpc-encoding: gzip\r\n",
        3 => "grpc-encoding: \x7f\r\n",
        4 => "traceparent: 00-zz\r\n",
        5 => "x-request-id: \u{e9}\r\n",
        6 => "Authorization: Basic eDp5\r\n",
        7 => "a-bin: *\r\n",
        8 => "Request-Timeout: never\r\n",
        11 => HASTY,
        9 => "Content-Encoding: gzip\r\n",
        10 => "Accept: nothing\r\n",
        _ => "",
    }
}

fn web_with(dice: &mut Dice, target: &Target, media_type: &str, body: &[u8]) -> Sent {
    let method =
        if dice.below(15) == 0 { dice.pick(&["GET", "PUT", "BREW", "HEAD"]) } else { "POST" };
    let media_type = match dice.below(15) {
        0 => format!("{media_type}+json"),
        1 => media_type.to_ascii_uppercase(),
        _ => media_type.to_owned(),
    };
    let path = grpc_path(dice);
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: t\r\n{CLOSE}{}{}Content-Type: {media_type}\r\n",
        target.authorization(),
        odd_headers(dice)
    );
    with_body(dice, head, body)
}

/// gRPC-web in bytes.
pub fn web(dice: &mut Dice, target: &Target) -> Sent {
    let body = bodies::grpc(dice);
    web_with(dice, target, "application/grpc-web", &body)
}

/// gRPC-web in base64.
pub fn web_text(dice: &mut Dice, target: &Target) -> Sent {
    let body = bodies::grpc(dice);
    let text = STANDARD.encode(&body).into_bytes();
    let body = match dice.below(4) {
        0 => dice.spoil(&text),
        1 => text[..dice.below(text.len())].to_vec(),
        2 => body,
        _ => text,
    };
    web_with(dice, target, "application/grpc-web-text", &body)
}

fn path(dice: &mut Dice, target: &Target) -> String {
    let nobody = "01h455vb4pex5vsknk084sn02q";
    let noun = dice.pick(&[
        "events",
        "events:batch",
        "endpoints",
        "subscriptions",
        "deliveries",
        "eventTypes",
        "attempts",
        "endpoints/ep_{}",
        "events/evt_{}",
        "deliveries/dlv_{}:retry",
        "endpoints/ep_{}/secret",
        "events/%ff",
        "events/%",
        "events/..%2f",
        "nothing",
    ]);
    let noun = noun.replace("{}", nobody);
    match dice.below(12) {
        0 => "/v1/api_keys".into(),
        1 => "/v1/projects".into(),
        2 => format!(
            "/v1/projects/{}/{noun}",
            dice.pick(&["x", "prj_", "%00", "%c3", "prj_01h455vb4pex5vsknk084sn02q"])
        ),
        _ => format!("/v1/projects/{}/{noun}", target.project),
    }
}

fn query(dice: &mut Dice) -> String {
    match dice.below(8) {
        0 => "?page_size=-1".into(),
        1 => format!("?page_size={}", "9".repeat(1 + dice.below(30))),
        2 => format!("?page_token={}", dice.pick(&["%00", "AAAA", "%ff", "=", "e30"])),
        3 => "?start_time=yesterday&end_time=9999-99-99T99:99:99Z".into(),
        4 => format!("?a={}", "%".repeat(dice.below(9))),
        5 => "?event_type=a&event_type=b&unknown.field.of.nothing=1".into(),
        _ => String::new(),
    }
}

/// REST.
pub fn rest(dice: &mut Dice, target: &Target) -> Sent {
    let method = dice.pick(&[
        "POST", "POST", "POST", "GET", "PATCH", "PUT", "DELETE", "HEAD", "OPTIONS", "TRACE", "BREW",
    ]);
    let (path, query, odd) = (path(dice, target), query(dice), odd_headers(dice));
    let media_type = dice.pick(&[
        "application/json",
        "application/json",
        "application/json",
        "text/plain",
        "a/b; c",
        "\u{e9}",
        "",
    ]);
    let head = format!(
        "{method} {path}{query} HTTP/1.1\r\nHost: t\r\n{CLOSE}{}{odd}Content-Type: \
            {media_type}\r\n",
        target.authorization()
    );
    let body = bodies::json(dice);
    with_body(dice, head, &body)
}

/// Newline-delimited JSON.
pub fn lines(dice: &mut Dice, target: &Target) -> Sent {
    let project = if dice.below(5) == 0 { "prj_x".to_owned() } else { target.project.clone() };
    let (query, odd) = (query(dice), odd_headers(dice));
    let head = format!(
        "POST /v1/projects/{project}/events:batch{query} HTTP/1.1\r\nHost: t\r\n\
            {CLOSE}{}{odd}Content-Type: application/x-ndjson\r\n",
        target.authorization()
    );
    let lines: Vec<Vec<u8>> = (0..=dice.below(4)).map(|_| bodies::json(dice)).collect();
    with_body(dice, head, &lines.join(b"\n".as_slice()))
}

/// Server-sent events.
pub fn events(dice: &mut Dice, target: &Target) -> Sent {
    let noun = dice.pick(&["events:tail", "deliveries:tail"]);
    // A correct request would not end.
    let wrong = format!(
        "?{}",
        dice.pick(&[
            "event_type=a%20b&event_type=c",
            "unknown=1",
            "cursor=%00",
            "page_size=x",
            "endpoint_id=ep_1&x=%"
        ])
    );
    let last = dice.pick(&[
        "",
        "Last-Event-ID: nonsense\r\n",
        "Last-Event-ID: a\r\nLast-Event-ID: b\r\n",
        "Last-Event-ID: \u{e9}\r\n",
    ]);
    let accept = dice.pick(&[
        "",
        "Accept: text/event-stream\r\n",
        "Accept: application/json\r\n",
        "Accept: ;;;\r\n",
    ]);
    let project = if dice.below(4) == 0 { "prj_x" } else { target.project.as_str() };
    let odd = odd_headers(dice);
    let number = dice.below(50);
    let head = format!(
        "GET /v1/projects/{project}/{noun}{wrong}&n{number}=1 HTTP/1.1\r\nHost: t\r\n\
            {CLOSE}{}{last}{accept}{odd}\r\n",
        target.authorization()
    );
    Sent { bytes: head.into_bytes(), gone: dice.below(20) == 0 }
}

/// The operations listener.
pub fn operations(dice: &mut Dice, target: &Target) -> Sent {
    if dice.below(2) == 0 {
        return raw(dice, target);
    }
    let method = dice.pick(&["GET", "POST", "HEAD", "DELETE", "BREW", "CONNECT"]);
    let path = dice.pick(&[
        "/",
        "/metrics",
        "/healthz",
        "/readyz",
        "/%ff",
        "/metrics/..",
        "*",
        "/nothing?a=%",
    ]);
    let head = format!("{method} {path} HTTP/1.1\r\nHost: t\r\n{CLOSE}{}", odd_headers(dice));
    let body = bodies::json(dice);
    with_body(dice, head, &body)
}

/// Bytes that are hardly HTTP.
pub fn raw(dice: &mut Dice, target: &Target) -> Sent {
    let authorization = target.authorization();
    let good = format!(
        "POST /v1/projects/{}/events HTTP/1.1\r\nHost: t\r\n{CLOSE}{authorization}Content-Type: \
            application/json\r\nContent-Length: 2\r\n\r\n{{}}",
        target.project
    );
    let field = |field: &str| {
        format!("GET /v1/projects HTTP/1.1\r\nHost: t\r\n{CLOSE}{authorization}{field}\r\n\r\n")
            .into_bytes()
    };
    let line = |line: &str| format!("{line}\r\nHost: t\r\n{CLOSE}\r\n").into_bytes();
    let bytes = match dice.below(16) {
        0 => {
            let length = 1 + dice.below(200);
            dice.noise(length)
        }
        1 => field(dice.pick(&[
            "a b: c",
            "a",
            ": c",
            "a : c",
            "a: \0",
            "a:\u{1}",
            "\u{e9}: a",
            "a: b\r c",
            " folded",
            "\tfolded",
        ])),
        2 => field(&format!(
            "Content-Length: {}",
            dice.pick(&["-1", "+1", "x", "1, 1", "", "99999999999999999999"])
        )),
        3 => field(&format!(
            "Transfer-Encoding: {}",
            dice.pick(&["gzip", "chunked, chunked", "x", ""])
        )),
        4 => field("Content-Length: 1\r\nTransfer-Encoding: chunked"),
        5 => field(&"a: b\r\n".repeat(90 + dice.below(60))),
        6 => field(&format!("a: {}", "b".repeat(15_000 + dice.below(40_000)))),
        7 => line(&format!("GET /{} HTTP/1.1", "a".repeat(8_000 + dice.below(60_000)))),
        8 => line(dice.pick(&[
            "GET / HTTP/9.9",
            "GET / HTTP/1.1 x",
            "GET /",
            "G\u{e9}T / HTTP/1.1",
            "GET  / HTTP/1.1",
            "GET a b HTTP/1.1",
            "PRI * HTTP/2.0",
            " GET / HTTP/1.1",
            "GET /\u{7f} HTTP/1.1",
            "GET http:// HTTP/1.1",
            "CONNECT / HTTP/1.1",
        ])),
        9 => good.replace("\r\n", "\n").into_bytes(),
        10 => good
            .replacen("Host: t", dice.pick(&["Host: a\r\nHost: b", "Hots: t", "Host: "]), 1)
            .into_bytes(),
        11 => format!(
            "{}{}",
            good.replacen(CLOSE, "", 1),
            dice.pick(&["\0", "GET", "\r\n\r\nX\r\n\r\n", "PUT /\n\n"])
        )
        .into_bytes(),
        _ => dice.spoil(good.as_bytes()),
    };
    Sent { bytes, gone: dice.below(20) == 0 }
}
