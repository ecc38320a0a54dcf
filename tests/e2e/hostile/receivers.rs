//! Receivers that answer as no honest server would, or not at all.

use std::time::Duration;

use anyhow::Result;
use outrider_tests::{Act, Limits, RawReceiver, pki::Pki};
use tokio::time::sleep;

use super::foe::Foe;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
const SIZED: &str = "HTTP/1.1 200 OK\r\ncontent-length: 900000\r\n\r\n";
const BYTE: Duration = Duration::from_millis(200);

/// How one receiver behaves.
type Way = &'static [Act];

/// Sends interim answers without end.
pub async fn interim_answers(foe: Foe) -> Result<()> {
    const WAYS: &[Way] = &[
        &[Act::Repeat("HTTP/1.1 100 Continue\r\n\r\n")],
        &[Act::Repeat("HTTP/1.1 103 Early Hints\r\nlink: </a>; rel=preload\r\n\r\n")],
        &[
            Act::Send(
                "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",
            ),
            Act::Hang,
        ],
    ];
    answering(foe, WAYS).await
}

/// Sends heads that are too large, endless, or malformed.
pub async fn heads(foe: Foe) -> Result<()> {
    const WAYS: &[Way] = &[
        &[Act::Send("HTTP/1.1 200 OK\r\n"), Act::Repeat("x-many: fields\r\n")],
        &[Act::Send("HTTP/1.1 200 OK\r\nx-long: "), Act::Repeat("long")],
        &[Act::Send("HTTP/1.1 200 OK\r\nx-folded: "), Act::Repeat("\r\n folded")],
        &[Act::Send("HTTP/1.1 200 OK\r\n"), Act::Repeat(" nothing to fold\n")],
        &[Act::Send("HTTP/1.1 103 Early Hints\r\n"), Act::Repeat("link: </a>\r\n")],
        &[
            Act::Send("HTTP/1.1 200 OK\r\nx-folded: y\r\n"),
            Act::Drip(" folded folded folded folded\r\n", BYTE),
            Act::Hang,
        ],
        &[Act::Repeat("\r\n")],
        &[Act::Repeat("HTTP/1.1 ")],
        &[Act::Drip(
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nx-slow: slow slow slow slow slow\r\n\r\n",
            BYTE,
        )],
        &[Act::Send("HTTP/0.9 what\r\n\r\n"), Act::Hang],
    ];
    answering(foe, WAYS).await
}

/// Sends endless or slow bodies.
pub async fn bodies(foe: Foe) -> Result<()> {
    const WAYS: &[Way] = &[
        &[Act::Send(SIZED), Act::Repeat("x")],
        &[Act::Send("HTTP/1.1 200 OK\r\n\r\n"), Act::Repeat("endless ")],
        &[Act::Send(SIZED), Act::Drip("a body that comes byte by byte", BYTE), Act::Hang],
        &[Act::Send("HTTP/1.1 500 No\r\ncontent-length: 900000\r\n\r\n"), Act::Hang],
        &[Act::Send(OK), Act::Repeat("HTTP/1.1 200 OK\r\n\r\n")],
    ];
    answering(foe, WAYS).await
}

/// Abuses chunks, their extensions, and trailers.
pub async fn chunks(foe: Foe) -> Result<()> {
    const WAYS: &[Way] = &[
        &[Act::Send(CHUNKED), Act::Repeat("1\r\nx\r\n")],
        &[Act::Send(CHUNKED), Act::Send("1;"), Act::Repeat("extension=")],
        &[Act::Send(CHUNKED), Act::Repeat("1;a=b\r\nx\r\n")],
        &[Act::Send(CHUNKED), Act::Send("0\r\n"), Act::Repeat("trailer: x\r\n")],
        &[Act::Send(CHUNKED), Act::Send("0\r\ntrailer: x\r\n"), Act::Repeat(" folded\r\n")],
        &[Act::Send(CHUNKED), Act::Repeat("0")],
        &[Act::Send(CHUNKED), Act::Send("ffffffffffffffff\r\n"), Act::Repeat("x")],
    ];
    answering(foe, WAYS).await
}

/// Ends connections at each moment, redirects, and sends wrong lengths.
pub async fn ends(foe: Foe) -> Result<()> {
    const WAYS: &[Way] = &[
        &[Act::Close],
        &[Act::Reset],
        &[Act::Send("HTTP/1.1 2"), Act::Close],
        &[Act::Send("HTTP/1.1 103 Early Hints\r\nlink"), Act::Reset],
        &[Act::Send("HTTP/1.1 200 OK\r\nx-a : b\r\n"), Act::Reset],
        &[Act::Send("HTTP/1.1 200 OK\r\nx-a: b\r\n fol"), Act::Close],
        &[Act::Send(SIZED), Act::Reset],
        &[Act::Send(SIZED), Act::Close],
        &[Act::Send(
            "HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n",
        )],
        &[Act::Send("HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n"), Act::Hang],
        &[Act::Send("HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab")],
        &[Act::Send("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab"), Act::Close],
    ];
    answering(foe, WAYS).await
}

/// Sends unsolicited answers: before a request, several for one request, and without end.
pub async fn early(foe: Foe) -> Result<()> {
    const WAYS: &[Way] = &[
        &[Act::Send(OK), Act::Hang],
        &[Act::Send(OK), Act::Close],
        &[
            Act::Send(
                "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\nHTTP/1.1 500 No\r\ncontent-length: \
                    0\r\n\r\n",
            ),
            Act::Hang,
        ],
        &[Act::Repeat(OK)],
        &[Act::Repeat("HTTP/1.1 100 Continue\r\n\r\n")],
        &[Act::Reset],
    ];
    let mut receivers = Vec::new();
    for acts in WAYS {
        receivers.push(RawReceiver::start_deaf(acts).await?);
    }
    aim(foe, &receivers, 500).await
}

/// Accepts connections without reading, while large payloads are sent.
pub async fn deaf(foe: Foe) -> Result<()> {
    const WAYS: &[Way] =
        &[&[Act::Hang], &[Act::Send("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\na")]];
    let mut receivers = Vec::new();
    for acts in WAYS {
        receivers.push(RawReceiver::start_deaf(acts).await?);
    }
    aim(foe, &receivers, 900_000).await
}

/// Stalls, breaks or corrupts TLS handshakes.
pub async fn handshakes(foe: Foe) -> Result<()> {
    // An untrusted certificate.
    let pki = Pki::create()?;
    let mut receivers =
        vec![RawReceiver::start_tls(&[Act::Send(OK)], &pki.issue("receiver")?).await?];
    const WAYS: &[Way] = &[
        &[Act::Hang],
        &[Act::Close],
        &[Act::Reset],
        &[Act::Send(OK), Act::Hang],
        &[
            Act::Drip(
                "\x16\x03\x03\x40\x00\x02\x00\x3f\x7c\x03\x03............................",
                BYTE,
            ),
            Act::Hang,
        ],
        &[Act::Repeat("\x16\x03\x03\x00\x00")],
        &[Act::Repeat("\x15\x03\x03\x00\x02\x01\x5a")],
    ];
    for acts in WAYS {
        receivers.push(RawReceiver::start_deaf(acts).await?.with_scheme("https"));
    }
    aim(foe, &receivers, 500).await
}

async fn answering(foe: Foe, ways: &'static [Way]) -> Result<()> {
    let mut receivers = Vec::new();
    for acts in ways {
        receivers.push(RawReceiver::start(acts).await?);
    }
    aim(foe, &receivers, 500).await
}

/// Publishes to all receivers until it is aborted.
async fn aim(foe: Foe, receivers: &[RawReceiver], payload: usize) -> Result<()> {
    let project = foe.tenant.project().await?;
    for receiver in receivers {
        foe.tenant.endpoint(&project, &receiver.url(), Limits::DEFAULT).await?;
    }
    loop {
        foe.tenant.publish(&project, 1, payload).await?;
        foe.hit();
        sleep(foe.of(Duration::from_millis(100), Duration::from_millis(500))).await;
    }
}
