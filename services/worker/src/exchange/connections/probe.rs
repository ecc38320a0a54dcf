//! Looks at the socket of a connection that belongs to the task of the HTTP library.
//!
//! The library considers an idle connection usable until its task is polled, even if the endpoint
//! has ended it. The kernel knows earlier.

use std::{
    io::{self, IoSlice},
    mem::MaybeUninit,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll},
};

use outrider_rpc::Socket;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream that can be looked at while something else owns it. Only a look ever waits for the
/// lock, or causes a wait.
#[derive(Debug)]
pub(crate) struct Shown<S>(Arc<Mutex<S>>);

/// Permits a look. Does not keep the stream alive.
#[derive(Debug)]
pub(crate) struct Look(Weak<Mutex<Socket>>);

impl<S> Shown<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self(Arc::new(Mutex::new(stream)))
    }

    fn stream(&self) -> MutexGuard<'_, S> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shown<Socket> {
    pub(crate) fn look(&self) -> Look {
        Look(Arc::downgrade(&self.0))
    }
}

impl Look {
    /// Whether the connection is open, and has no unread bytes.
    pub(crate) fn is_quiet(&self) -> bool {
        let Some(stream) = self.0.upgrade() else { return false };
        let stream = stream.lock().unwrap_or_else(PoisonError::into_inner);
        let mut byte = [MaybeUninit::uninit()];
        let peeked = SockRef::from(stream.tcp()).peek(&mut byte);
        peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Shown<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream()).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Shown<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.stream()).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.stream()).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream().is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream()).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
    };

    use super::*;
    use crate::tests::bench::until;

    async fn pair() -> (Shown<Socket>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (Shown::new(Socket::from(near)), listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn a_connection_is_quiet_until_something_comes_or_it_ends() {
        let (mut near, mut far) = pair().await;
        let look = near.look();
        assert!(look.is_quiet());
        far.write_all(b"x").await.unwrap();
        until("the byte", || !look.is_quiet()).await;
        assert_eq!(near.read_u8().await.unwrap(), b'x');
        assert!(look.is_quiet(), "a look takes nothing, and what was read is gone");
        drop(far);
        until("the end", || !look.is_quiet()).await;

        let (near, far) = pair().await;
        let look = near.look();
        far.set_zero_linger().unwrap();
        drop(far);
        until("the reset", || !look.is_quiet()).await;
        let (near, _far) = {
            drop(near);
            pair().await
        };
        let look = near.look();
        drop(near);
        assert!(!look.is_quiet(), "it keeps nothing open");
    }
}
