//! The framing of HTTP/1.1: bytes that the gateway lets through can be read in one way only, and
//! the HTTP library reads them in that way.

use std::{
    convert::Infallible,
    sync::{Arc, LazyLock, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use outrider_gateway::{
    Options,
    fuzzed::{Framing, http},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use crate::{http1, input::Input, runtime};

static OPTIONS: LazyLock<Options> =
    LazyLock::new(|| Options { max_headers: 8, ..Options::default() });

/// What passes, and the fault, for bytes that arrive in these pieces.
struct Judged {
    passed: Vec<u8>,
    heads: u64,
    fault: Option<String>,
}

fn judge<'p>(pieces: impl Iterator<Item = &'p [u8]>) -> Judged {
    let (mut framing, mut held, mut passed) = (Framing::new(&OPTIONS), Vec::new(), Vec::new());
    for piece in pieces {
        held.extend_from_slice(piece);
        let (count, fault) = framing.advance(&held);
        passed.extend(held.drain(..count));
        if fault.is_some() {
            return Judged { passed, heads: framing.heads(), fault };
        }
    }
    Judged { passed, heads: framing.heads(), fault: None }
}

/// Takes bytes of HTTP/1.1.
pub fn run(data: &[u8]) {
    let input = Input::of(data);
    let judged = judge(input.pieces());
    let whole = judge(std::iter::once(input.bytes.as_slice()));
    assert!(input.bytes.starts_with(&judged.passed));
    // A head is found to be too large as its pieces arrive, which may be before another fault in
    // it.
    if judged.fault.as_deref() != Some("HeadersTooLarge")
        && whole.fault.as_deref() != Some("HeadersTooLarge")
    {
        assert_eq!(
            (&judged.fault, judged.passed.len()),
            (&whole.fault, whole.passed.len()),
            "in pieces and whole"
        );
    }
    let plain =
        http1::requests(&judged.passed).unwrap_or_else(|why| panic!("it passed, although {why}"));
    assert_eq!(judged.heads, plain.len() as u64);
    let seen = runtime::run(Duration::from_secs(60), read_by_the_library(judged.passed));
    compare(&plain, &seen);
}

/// A request as the HTTP library reads it.
struct Seen {
    request: http1::Request,
    path: Option<String>,
    /// Whether its body ended with an error.
    broken: bool,
}

async fn read_by_the_library(bytes: Vec<u8>) -> Vec<Seen> {
    let (near, far) = duplex(64 * 1024);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&seen);
    let service = service_fn(move |request: Request<Incoming>| {
        let kept = Arc::clone(&kept);
        async move {
            let one = seen_of(request).await;
            kept.lock().expect("nobody panics").push(one);
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::new())))
        }
    });
    let builder = http(&OPTIONS);
    let serving = builder.serve_connection(TokioIo::new(far), service);
    let client = async {
        let (mut reader, mut writer) = tokio::io::split(near);
        let writing = async {
            // The library may have closed the connection, as it may after the last request.
            let _ = writer.write_all(&bytes).await;
            // A request is not answered if its client closes its side first.
            tokio::time::sleep(Duration::from_secs(1)).await;
            let _ = writer.shutdown().await;
        };
        let mut answers = Vec::new();
        let _ = tokio::join!(writing, reader.read_to_end(&mut answers));
    };
    let _ = tokio::join!(serving, client);
    let mut seen = seen.lock().expect("nobody panics");
    std::mem::take(&mut *seen)
}

async fn seen_of(request: Request<Incoming>) -> Seen {
    let (parts, mut body) = request.into_parts();
    let fields = parts
        .headers
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()));
    let mut request = http1::Request {
        method: parts.method.to_string(),
        version: if parts.version == Version::HTTP_10 { "HTTP/1.0" } else { "HTTP/1.1" }.to_owned(),
        target: parts.uri.to_string(),
        fields: fields.collect(),
        ..http1::Request::default()
    };
    let mut broken = false;
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => request.body.extend_from_slice(frame.data_ref().map_or(b"", |data| data)),
            Err(_) => broken = true,
        }
    }
    request.whole = !broken;
    Seen { path: parts.uri.path_and_query().map(ToString::to_string), request, broken }
}

fn compare(plain: &[http1::Request], seen: &[Seen]) {
    assert!(
        seen.len() <= plain.len(),
        "the library sees a request that is none: {:?}",
        seen.last().map(|seen| &seen.request)
    );
    for (plain, Seen { request, path, broken }) in plain.iter().zip(seen) {
        assert_eq!((&plain.method, &plain.version), (&request.method, &request.version));
        if plain.target.starts_with('/') {
            let target = plain.target.split('#').next().unwrap_or_default();
            assert_eq!(Some(target), path.as_deref());
        }
        let sorted = |request: &http1::Request| {
            let mut fields = request.fields.clone();
            fields.sort();
            fields
        };
        assert_eq!(sorted(plain), sorted(request));
        if *broken {
            assert!(plain.body.starts_with(&request.body));
        } else {
            assert!(plain.whole, "the library takes a body for whole that is not");
            assert_eq!(plain.body, request.body);
        }
    }
    if let (Some(last), true) = (seen.last(), seen.len() < plain.len()) {
        assert!(
            last.broken || last.request.is_last(),
            "the library stops after {:?}",
            last.request
        );
    } else {
        assert_eq!(seen.is_empty(), plain.is_empty(), "the library refuses {:?}", plain.first());
    }
}
