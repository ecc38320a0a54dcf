//! Parsers of bytes from untrusted clients, for `outrider-fuzz`. Not part of the crate's interface.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
};

use http::Request;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, join, sink};

use crate::{Options, answer, head, proxy};

/// The result for a client of the proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judged {
    /// The head is refused before the HTTP library sees it, or nothing arrived.
    BadHead(String),
    /// The head is accepted, but the HTTP library sees no request in it.
    NoRequest,
    /// The request is refused with this status.
    Refused(u16),
    /// The request asks for this host (without brackets) and port.
    Target(String, u16),
}

/// Reads the request of a client as the proxy does, up to the decision of what to dial. Returns the
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
    // Only the part that was seen counts, not how the connection ends.
    let _ = proxy::builder(options).serve_connection(io, service).await;
    let judged = seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
    (judged, head)
}
