//! The answer of an endpoint, as the worker reads it: bounded in bytes, reads and time, whatever
//! the endpoint sends.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use outrider_worker::{
    Options,
    fuzzed::{Answer, Exchanges},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex},
    time::{Instant, sleep},
};

use crate::{input::Input, runtime};

const TIMEOUT: Duration = Duration::from_secs(10);
/// The endpoint closes the connection after its last byte. Otherwise it hangs.
const CLOSES: u8 = 0;
/// The endpoint pauses for a second between the pieces.
const DRIPS: u8 = 1;

static OPTIONS: LazyLock<Options> = LazyLock::new(|| Options {
    response_kept_bytes: 256,
    response_read_bytes: 1_024,
    response_head_bytes: 8 * 1024,
    response_headers_kept: 4,
    response_headers_kept_bytes: 128,
    response_interim_answers: 2,
    response_wire_bytes: 10 * 1024,
    response_wire_reads: 64,
    ..Options::default()
});
static EXCHANGES: LazyLock<Exchanges> = LazyLock::new(|| Exchanges::new(&OPTIONS));

/// Takes the bytes of an endpoint.
pub fn run(data: &[u8]) {
    let input = Input::of(data);
    let in_pieces = exchange(&input, true);
    let whole = exchange(&input, false);
    // If two things are wrong, the pieces decide which of them is reported, and which bound is
    // reached.
    if !in_pieces.bounded && !whole.bounded && !input.has(DRIPS) {
        assert_eq!(in_pieces.answer, whole.answer, "in pieces and whole");
    }
}

/// The end of an exchange.
struct Outcome {
    answer: Option<Answer>,
    /// Whether a bound of bytes or reads was reached, or the time ran out.
    bounded: bool,
}

fn exchange(input: &Input, in_pieces: bool) -> Outcome {
    let read = Arc::new(Read::default());
    let outcome = runtime::run(2 * TIMEOUT, async {
        let (near, far) = duplex(64 * 1024);
        let endpoint = tokio::spawn(endpoint(
            far,
            answer_of(input, in_pieces),
            input.has(DRIPS),
            input.has(CLOSES),
        ));
        let begun = Instant::now();
        let outcome =
            EXCHANGES.exchange(Counted { inner: near, read: Arc::clone(&read) }, TIMEOUT).await;
        assert!(
            begun.elapsed() <= TIMEOUT + Duration::from_millis(10),
            "it took {:?}",
            begun.elapsed()
        );
        endpoint.abort();
        outcome
    });
    let (bytes, reads) = (read.bytes.load(Ordering::Relaxed), read.reads.load(Ordering::Relaxed));
    // The read that exceeds a bound is the last one.
    let (most_bytes, most_reads) = (OPTIONS.response_wire_bytes, OPTIONS.response_wire_reads);
    assert!(bytes <= most_bytes + read.largest.load(Ordering::Relaxed), "{bytes} bytes were read");
    assert!(reads <= most_reads + 1, "{reads} reads");
    let answer = outcome.ok().inspect(check);
    let late = answer.as_ref().is_none_or(|answer| answer.truncated) && !input.has(CLOSES);
    Outcome { answer, bounded: late || reads >= most_reads || bytes >= most_bytes }
}

fn answer_of(input: &Input, in_pieces: bool) -> Vec<Vec<u8>> {
    if in_pieces { input.pieces().map(<[u8]>::to_vec).collect() } else { vec![input.bytes.clone()] }
}

async fn endpoint(mut far: DuplexStream, answer: Vec<Vec<u8>>, drips: bool, closes: bool) {
    // It answers when the request has arrived.
    let _ = far.read(&mut [0; 1024]).await;
    for piece in answer {
        if far.write_all(&piece).await.is_err() {
            return;
        }
        sleep(if drips { Duration::from_secs(1) } else { Duration::from_micros(10) }).await;
    }
    if !closes {
        std::future::pending::<()>().await;
    }
}

fn check(answer: &Answer) {
    let Answer { status, headers, body, truncated } = answer;
    assert!((200..=999).contains(status), "{status} is no final answer");
    assert!(
        body.len() <= OPTIONS.response_kept_bytes && headers.len() <= OPTIONS.response_headers_kept
    );
    let bytes: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    assert!(bytes <= OPTIONS.response_headers_kept_bytes, "{bytes} bytes of headers are kept");
    assert!(*truncated || body.len() <= OPTIONS.response_read_bytes);
}

/// What was read of a stream.
#[derive(Default)]
struct Read {
    bytes: AtomicUsize,
    reads: AtomicUsize,
    largest: AtomicUsize,
}

struct Counted {
    inner: DuplexStream,
    read: Arc<Read>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buffer))?;
        let came = buffer.filled().len() - before;
        self.read.bytes.fetch_add(came, Ordering::Relaxed);
        self.read.reads.fetch_add(1, Ordering::Relaxed);
        self.read.largest.fetch_max(came, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
