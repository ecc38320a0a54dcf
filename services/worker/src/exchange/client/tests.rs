use std::sync::atomic::Ordering;

use bytes::Bytes;
use http_body_util::Full;

use outrider_rpc::DialError;

use super::*;
use crate::{
    exchange::destination::Destinations,
    tests::{
        bench::{PATIENCE, entry, quick},
        fakes::Loopback,
        receiver::{Receiver, Reply},
    },
};

fn request() -> Request<Body> {
    Request::post("/")
        .header("content-length", 2)
        .body(Full::new(Bytes::from_static(b"{}")))
        .unwrap()
}

// On one thread, so that nothing else runs between the end of the idle connection and the exchange
// that takes it.
#[tokio::test]
async fn a_request_that_was_never_sent_goes_out_on_a_new_connection() {
    let receiver = Receiver::start(Reply::status("200 OK")).await;
    let dialer = Arc::new(Loopback::default());
    let client = Client::new(&quick(), &Given::default(), dialer.clone()).unwrap();
    let entry = Arc::new(entry(&format!("http://hooks.example:{}/", receiver.port), |_| {}));
    let destination =
        Destinations::new(1, http::HeaderValue::from_static("t")).get(&entry).unwrap();
    let (near, far) = tokio::io::duplex(1024);
    let mut idle = client.open(near, Watch::default()).await.unwrap();
    idle.sender.ready().await.unwrap();
    client.pool.put(destination.met(), idle, None);

    drop(far);
    let exchanged = client.exchange(&destination, Instant::now() + PATIENCE, request).await;
    assert_eq!((exchanged.result.unwrap().status, exchanged.resent), (200, false));
    assert_eq!((receiver.count(), dialer.dials.load(Ordering::SeqCst)), (1, 1));
}

/// Returns a client with an idle connection. Its other side reads a byte of the request, sends
/// these bytes and closes. Its destination has this port.
async fn reused(answer: &'static [u8], port: u16) -> (Client, Arc<Loopback>, Arc<Destination>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let dialer = Arc::new(Loopback::default());
    let client = Client::new(&quick(), &Given::default(), dialer.clone()).unwrap();
    let entry = Arc::new(entry(&format!("http://hooks.example:{port}/"), |_| {}));
    let destination =
        Destinations::new(1, http::HeaderValue::from_static("t")).get(&entry).unwrap();
    let (near, mut far) = tokio::io::duplex(1024);
    let mut idle = client.open(near, Watch::default()).await.unwrap();
    idle.sender.ready().await.unwrap();
    client.pool.put(destination.met(), idle, None);
    tokio::spawn(async move {
        assert_eq!(far.read_u8().await.unwrap(), b'P');
        far.write_all(answer).await.unwrap();
    });
    (client, dialer, destination)
}

#[tokio::test]
async fn a_request_on_a_reused_connection_that_ends_without_a_byte_is_sent_once_more() {
    let receiver = Receiver::start(Reply::status("200 OK")).await;
    let (client, dialer, destination) = reused(b"", receiver.port).await;
    let signed = std::sync::atomic::AtomicUsize::new(0);
    let request = || {
        signed.fetch_add(1, Ordering::SeqCst);
        request()
    };
    let exchanged = client.exchange(&destination, Instant::now() + PATIENCE, request).await;
    assert_eq!((exchanged.result.unwrap().status, exchanged.resent), (200, true));
    assert_eq!(
        (receiver.count(), dialer.dials.load(Ordering::SeqCst), signed.load(Ordering::SeqCst)),
        (1, 1, 2)
    );
}

#[tokio::test]
async fn it_is_not_sent_again_when_a_byte_has_come() {
    let receiver = Receiver::start(Reply::status("200 OK")).await;
    for (answer, outcome) in [
        ("H", AttemptOutcome::ConnectionFailed),
        ("HTTP/1.1 100 Continue\r\n\r\n", AttemptOutcome::ConnectionFailed),
        ("SSH", AttemptOutcome::BadResponse),
    ] {
        let (client, dialer, destination) = reused(answer.as_bytes(), receiver.port).await;
        let exchanged = client.exchange(&destination, Instant::now() + PATIENCE, request).await;
        assert!(
            matches!(&exchanged.result, Err(Failure::Attempt(known, _)) if *known == outcome),
            "{exchanged:?}"
        );
        assert_eq!((exchanged.resent, dialer.dials.load(Ordering::SeqCst)), (false, 0), "{answer}");
    }
    let (client, ..) = reused(b"HTTP/1.1 201 A\r\n", receiver.port).await;
    let destination = Destinations::new(1, http::HeaderValue::from_static("t"));
    let entry = Arc::new(entry(&format!("http://hooks.example:{}/", receiver.port), |_| {}));
    let exchanged = client
        .exchange(&destination.get(&entry).unwrap(), Instant::now() + PATIENCE, request)
        .await;
    assert_eq!((exchanged.result.unwrap().status, exchanged.resent), (201, false));
    assert_eq!(receiver.count(), 0);
}

#[tokio::test]
async fn the_second_sending_decides_and_is_the_last() {
    let receiver = Receiver::start(Reply::Close(String::new())).await;
    let (client, dialer, destination) = reused(b"", receiver.port).await;
    let exchanged = client.exchange(&destination, Instant::now() + PATIENCE, request).await;
    assert!(
        matches!(exchanged.result, Err(Failure::Attempt(AttemptOutcome::ConnectionFailed, _)))
            && exchanged.resent
    );
    assert_eq!((receiver.count(), dialer.dials.load(Ordering::SeqCst)), (1, 1));

    let receiver = Receiver::start(Reply::Hang).await;
    let (client, _, destination) = reused(b"", receiver.port).await;
    let exchanged =
        client.exchange(&destination, Instant::now() + Duration::from_millis(300), request).await;
    assert!(matches!(exchanged.result, Err(Failure::TimedOut(_))) && exchanged.resent);
}

#[tokio::test]
async fn without_an_egress_for_the_second_sending_the_first_was_the_attempt() {
    let (client, dialer, destination) = reused(b"", 1).await;
    *dialer.error.lock().unwrap() = Some(DialError::EgressUnavailable);
    let exchanged = client.exchange(&destination, Instant::now() + PATIENCE, request).await;
    assert!(
        matches!(exchanged.result, Err(Failure::Attempt(AttemptOutcome::ConnectionFailed, _))),
        "{exchanged:?}"
    );
    assert!(!exchanged.resent, "it went out once");
}
