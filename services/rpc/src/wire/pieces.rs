//! Splits answers into small pieces.
//!
//! A connection takes whole frames, and polls the next frame before it has sent the last one. If a
//! frame is a long message, it would buffer two of them for a client that does not read. With
//! pieces, the next message is created only after the connection has taken all of the last one.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::Response;
use http_body::Frame;
use tonic::{Status, body::Body};

/// Maximum size of a piece, in bytes.
pub const PIECE_BYTES: usize = 16 * 1024;

/// Returns the answer with its long frames split into pieces.
pub fn in_pieces(answer: Response<Body>) -> Response<Body> {
    if http_body::Body::is_end_stream(answer.body()) {
        return answer;
    }
    answer.map(|inner| Body::new(Pieces { inner, rest: Bytes::new() }))
}

/// Takes a piece from the front.
#[must_use]
pub fn piece(rest: &mut Bytes) -> Frame<Bytes> {
    Frame::data(rest.split_to(rest.len().min(PIECE_BYTES)))
}

struct Pieces {
    inner: Body,
    /// The rest of a frame.
    rest: Bytes,
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.rest.is_empty() {
            let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
            let Some(Ok(frame)) = frame else { return Poll::Ready(frame) };
            match frame.into_data() {
                Ok(data) if data.len() > PIECE_BYTES => self.rest = data,
                Ok(data) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Err(frame) => return Poll::Ready(Some(Ok(frame))),
            }
        }
        Poll::Ready(Some(Ok(piece(&mut self.rest))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.inner.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use http::HeaderMap;
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    #[tokio::test]
    async fn long_frames_are_split_and_nothing_else_changes() {
        let long = Bytes::from(
            (0..100_000_u32).map(|n| u8::try_from(n % 251).unwrap()).collect::<Vec<_>>(),
        );
        let trailers =
            HeaderMap::from_iter([(http::HeaderName::from_static("a"), "b".parse().unwrap())]);
        let frames = [
            Frame::data(Bytes::from_static(b"short")),
            Frame::data(long.clone()),
            Frame::trailers(trailers.clone()),
        ];
        let inner = Body::new(StreamBody::new(futures::stream::iter(frames).map(Ok::<_, Status>)));
        let mut body = in_pieces(Response::new(inner)).into_body();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "short");
        let mut read = Vec::new();
        while read.len() < long.len() {
            let piece = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert!(piece.len() <= PIECE_BYTES && !http_body::Body::is_end_stream(&body));
            read.extend_from_slice(&piece);
        }
        assert_eq!(read, long);
        assert_eq!(body.frame().await.unwrap().unwrap().into_trailers().unwrap(), trailers);
        assert!(body.frame().await.is_none());
    }
}
