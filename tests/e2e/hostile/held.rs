//! Tenants that hold shared resources without using them.

use std::time::{Duration, Instant};

use anyhow::Result;
use outrider_proto::{dispatch::TailEventsRequest, ingest::NewEvent};
use outrider_tests::{
    Answer, Limits,
    attacker::EVENT_TYPE,
    client::{Connection, Grpc, streamed},
};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpSocket, TcpStream},
    time::{sleep, timeout},
};

use super::foe::Foe;

/// How long a resource is held before it is released and taken again.
const ROUND: Duration = Duration::from_secs(30);
/// How many tails or streams one connection has.
const CONNECTION: usize = 50;

async fn project(foe: &Foe) -> Result<String> {
    Ok(foe.tenant.endpoints(1, Limits::DEFAULT, &Answer::Status(200)).await?.0)
}

fn id(project: &str) -> String {
    project.rsplit('/').next().unwrap_or_default().to_owned()
}

async fn grpc(foe: &Foe) -> Result<Grpc> {
    Grpc::connect(&foe.outrider.url(), &foe.tenant.token).await
}

/// Opens tails without reading them, while large events are published.
pub async fn unread_tails(foe: Foe) -> Result<()> {
    let project = project(&foe).await?;
    let mut tails = Vec::new();
    for _ in 0..foe.of(300, 30) / CONNECTION + 1 {
        let grpc = grpc(&foe).await?;
        for _ in 0..foe.of(CONNECTION, 30) {
            let request = TailEventsRequest {
                project_id: id(&project),
                include_payload: true,
                ..TailEventsRequest::default()
            };
            // Tails beyond the share are refused.
            if let Ok(tail) = grpc.events().tail_events(request).await {
                tails.push((grpc.clone(), tail.into_inner()));
                foe.hit();
            }
        }
    }
    let begin = Instant::now();
    while begin.elapsed() < ROUND {
        foe.tenant.publish(&project, 1, foe.of(700_000, 100_000)).await?;
        sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

/// Opens streams of events without reading acknowledgments.
pub async fn unread_streams(foe: Foe) -> Result<()> {
    let project = id(&project(&foe).await?);
    let mut streams = Vec::new();
    for number in 0..foe.of(300, 20) {
        if number % CONNECTION == 0 {
            streams.push((grpc(&foe).await?, Vec::new()));
        }
        let Some((grpc, open)) = streams.last_mut() else { continue };
        if let Ok(stream) = Connection::open(grpc, &project, &format!("stream-{number}")).await {
            for sequence in 1..=foe.of(50, 10) {
                let event = NewEvent {
                    event_type: EVENT_TYPE.to_owned(),
                    payload: format!("\"{}\"", "x".repeat(2_000)).into(),
                    ..NewEvent::default()
                };
                // The channel may be full, because the server reads no more.
                let _ = stream.out.try_send(streamed(sequence, event));
            }
            open.push(stream);
            foe.hit();
        }
    }
    sleep(ROUND).await;
    Ok(())
}

/// Sends a head and then bytes, one at a time, until the server closes the connection.
async fn drip(foe: &Foe, head: &str, bytes: &'static [u8], pause: Duration) -> Result<()> {
    let mut socket = TcpStream::connect(foe.address()).await?;
    foe.hit();
    let work = async {
        socket.write_all(head.as_bytes()).await?;
        for byte in bytes.iter().cycle() {
            socket.write_all(&[*byte]).await?;
            sleep(pause).await;
        }
        anyhow::Ok(())
    };
    // It was closed, or has dripped for long enough.
    let _ = timeout(ROUND, work).await;
    sleep(pause).await;
    Ok(())
}

/// Uploads lines that never end, in chunks of a byte.
pub async fn dripping_uploads(foe: Foe) -> Result<()> {
    const LINE: &str = "{\"event_type\": \"attack\", \"data\": 1}\n";
    let head = format!(
        "POST {}/events:batch HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer {}\r\nContent-Type: \
            application/x-ndjson\r\n\
         Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{LINE}\r\n",
        project(&foe).await?,
        foe.tenant.token,
        LINE.len()
    );
    foe.at_once(foe.of(64, 10), move |foe, _| {
        let head = head.clone();
        async move {
            loop {
                drip(&foe, &head, b"1\r\n \r\n", Duration::from_millis(200)).await?;
            }
        }
    })
    .await
}

/// Sends bodies one byte at a time, with a valid key.
pub async fn dripping_bodies(foe: Foe) -> Result<()> {
    let head = format!(
        "POST {}/events HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer {}\r\nContent-Type: \
            application/json\r\n\
         Content-Length: 900000\r\n\r\n",
        project(&foe).await?,
        foe.tenant.token
    );
    foe.at_once(foe.of(200, 20), move |foe, _| {
        let head = head.clone();
        async move {
            loop {
                drip(&foe, &head, b" ", Duration::from_millis(200)).await?;
            }
        }
    })
    .await
}

/// Requests large answers without reading them.
pub async fn unread_answers(foe: Foe) -> Result<()> {
    let project = project(&foe).await?;
    foe.tenant.publish(&project, foe.of(500, 100), 1_000).await?;
    let request = format!(
        "GET {project}/deliveries?page_size=500 HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer {}\r\n\
            \r\n",
        foe.tenant.token
    );
    foe.at_once(foe.of(100, 10), move |foe, _| {
        let request = request.clone();
        async move {
            loop {
                let socket = TcpSocket::new_v4()?;
                socket.set_recv_buffer_size(4_096)?;
                let mut stream = socket.connect(foe.address().parse()?).await?;
                // Several on one connection, as long as the server accepts them.
                for _ in 0..10 {
                    let _ =
                        timeout(Duration::from_secs(1), stream.write_all(request.as_bytes())).await;
                    foe.hit();
                }
                sleep(ROUND).await;
            }
        }
    })
    .await
}
