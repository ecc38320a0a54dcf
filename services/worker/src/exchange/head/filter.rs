//! The stream that the HTTP library reads. Each response has a head that it accepts.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::reader::{Read, Reader};
use crate::exchange::{
    answer_bounds::HeadBounds,
    stream::{Watch, write_through},
};

/// Lies above TLS. Interim responses and irregular heads go no further. All others only cost a look
/// at the head.
pub(crate) struct Heads<S> {
    inner: S,
    watch: Watch,
    bounds: HeadBounds,
    exchange: u32,
    reader: Reader,
    /// Bytes that were read and must still be passed on.
    ahead: Vec<u8>,
    passed: usize,
    /// Set when nothing more is read.
    ended: bool,
}

impl<S> Heads<S> {
    pub(crate) fn new(inner: S, watch: Watch, bounds: HeadBounds) -> Self {
        Self {
            inner,
            watch,
            bounds,
            exchange: 0,
            reader: Reader::new(bounds),
            ahead: Vec::new(),
            passed: 0,
            ended: false,
        }
    }

    /// Passes on bytes that were read already. Returns false if there are none.
    fn pass_on(&mut self, buffer: &mut ReadBuf<'_>) -> bool {
        let rest = &self.ahead[self.passed..];
        let fits = rest.len().min(buffer.remaining());
        buffer.put_slice(&rest[..fits]);
        self.passed += fits;
        if self.passed == self.ahead.len() {
            (self.ahead, self.passed) = (Vec::new(), 0);
        }
        fits > 0
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Heads<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.pass_on(buffer) || buffer.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            if this.ended {
                return Poll::Ready(Err(io::Error::other("nothing after this head is read")));
            }
            let before = buffer.filled().len();
            ready!(Pin::new(&mut this.inner).poll_read(cx, buffer))?;
            let came = &buffer.filled()[before..];
            if came.is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.watch.has_heard();
            let exchange = this.watch.exchange();
            if exchange != this.exchange {
                this.exchange = exchange;
                this.reader = Reader::new(this.bounds);
            }
            let ahead = match this.reader.advance(came, &this.watch) {
                Ok(Read::Same) => return Poll::Ready(Ok(())),
                // An empty read would mean the end to the HTTP library.
                Ok(Read::More) => Vec::new(),
                Ok(Read::Instead(bytes)) => bytes,
                Ok(Read::Rewritten(rewritten, rest)) => {
                    this.ended = rewritten.ends;
                    this.watch.has_fields(rewritten.fields);
                    [rewritten.head, rest].concat()
                }
                Err(fault) => return this.watch.fail(fault),
            };
            this.ahead = ahead;
            buffer.set_filled(before);
        }
    }
}

write_through!(Heads, AsyncWrite + Unpin);

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;
    use crate::{
        bounds::WireBounds,
        exchange::{answer_bounds::AnswerBounds, stream::Metered},
        fault::Fault,
        options::Options,
    };

    fn pair() -> (Watch, Heads<Metered<DuplexStream>>, DuplexStream) {
        let (near, far) = duplex(4096);
        let watch = Watch::default();
        let metered = Metered::new(
            near,
            watch.clone(),
            WireBounds { interim_answers: 1, bytes: 200, reads: 10 },
        );
        let bounds =
            HeadBounds { interim: 1, bytes: 120, kept: AnswerBounds::new(&Options::default()) };
        (watch.clone(), Heads::new(metered, watch, bounds), far)
    }

    #[tokio::test]
    async fn each_exchange_has_its_own_counts() {
        let (watch, mut near, mut far) = pair();
        for _ in 0..5 {
            watch.begin();
            far.write_all(b"HTTP/1.1 100 A\r\n\r\nHTTP/1.1 200 B\r\n\r\n").await.unwrap();
            let mut head = [0; 18];
            near.read_exact(&mut head).await.unwrap();
            assert_eq!(&head, b"HTTP/1.1 200 B\r\n\r\n");
            assert_eq!((watch.fault(), watch.status()), (None, Some(200)));
        }
        for _ in 0..20 {
            far.write_all(b"x").await.unwrap();
            if near.read_u8().await.is_err() {
                break;
            }
        }
        assert_eq!(watch.fault(), Some(Fault::Reads), "between exchanges nothing is free");
    }

    #[tokio::test]
    async fn a_rewritten_head_goes_before_what_came_with_it() {
        let (watch, mut near, mut far) = pair();
        watch.begin();
        for piece in ["HTTP/1.1 200 B\r\na : b\r\n", "content-length: 4\r\n\r\nbo", "dy"] {
            far.write_all(piece.as_bytes()).await.unwrap();
        }
        drop(far);
        let (mut text, mut buffer) = (Vec::new(), [0; 16]);
        // The buffer is smaller than the available bytes.
        while let Ok(length @ 1..) = near.read(&mut buffer).await {
            text.extend_from_slice(&buffer[..length]);
        }
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "HTTP/1.1 200 \r\ncontent-length: 4\r\nconnection: close\r\n\r\nbody"
        );
        let fields = watch.take_fields().unwrap();
        assert_eq!((fields.len(), fields[0].0.as_str(), watch.take_fields()), (2, "a", None));
    }

    #[tokio::test]
    async fn nothing_is_read_after_a_head_that_does_not_say_where_its_body_ends() {
        let (watch, mut near, mut far) = pair();
        watch.begin();
        far.write_all(b"HTTP/1.1 200 B\r\ncontent-length: -4\r\n\r\nbody").await.unwrap();
        let mut text = Vec::new();
        assert!(near.read_to_end(&mut text).await.is_err());
        assert_eq!(text, b"HTTP/1.1 200 \r\nconnection: close\r\n\r\n");
        assert_eq!((watch.status(), watch.fault()), (Some(200), None));
    }

    #[tokio::test]
    async fn an_end_within_a_head_is_an_end() {
        let (watch, mut near, mut far) = pair();
        watch.begin();
        far.write_all(b"HTTP/1.1 200 B\r\nco").await.unwrap();
        drop(far);
        let mut text = Vec::new();
        assert_eq!((near.read_to_end(&mut text).await.unwrap(), watch.status()), (0, Some(200)));
    }
}
