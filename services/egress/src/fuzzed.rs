//! What reads bytes of strangers, for `outrider-fuzz`, which feeds it arbitrary ones. No part of
//! the crate's interface.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
};

use http::Request;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, join, sink};

use crate::{Options, answer, head, proxy};

/// What a client of the proxy is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judged {
    /// Its head is refused before the HTTP library sees it, or nothing came.
    BadHead(String),
    /// Its head is taken, but the HTTP library sees no request in it.
    NoRequest,
    /// Its request is refused with this status.
    Refused(u16),
    /// It asks for this host, without brackets, and port.
    Target(String, u16),
}

/// Reads the request of a client as the proxy does, up to the question of what to dial. Gives the
/// head too.
pub async fn judge<S>(mut stream: S, options: &Options) -> (Judged, Vec<u8>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let head = match head::read(&mut stream, options.max_head_bytes, options.head_timeout).await {
        Ok(head) => head,
        Err(bad) => return (Judged::BadHead(format!("{bad:?}")), Vec::new()),
    };
    let seen = Arc::new(Mutex::new(Judged::NoRequest));
    let service = service_fn(|request: Request<Incoming>| {
        let judged = answer::authorize(&request, None).and_then(|()| answer::target(&request));
        let refusal = match judged {
            Ok((host, port)) => {
                *seen.lock().unwrap_or_else(PoisonError::into_inner) = Judged::Target(host, port);
                answer::Refusal::full()
            }
            Err(refusal) => {
                *seen.lock().unwrap_or_else(PoisonError::into_inner) =
                    Judged::Refused(refusal.status.as_u16());
                refusal
            }
        };
        async { Ok::<_, Infallible>(refusal.into_response()) }
    });
    let io = TokioIo::new(join(std::io::Cursor::new(head.clone()).chain(stream), sink()));
    // How it ends is the client's affair; what was seen of it is told.
    let _ = proxy::builder(options).serve_connection(io, service).await;
    let judged = seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
    (judged, head)
}
