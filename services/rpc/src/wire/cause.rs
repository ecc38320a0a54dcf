//! Finds out why a connection or a call failed, in words: for logs and terminals, never for callers
//! of the API, because the texts of the system may name hosts.
//!
//! The errors of the libraries in between say only that a transport failed. The cause is at the end
//! of their chain of sources. A TLS error is not in that chain: an IO error does not return the
//! error that it wraps as its source.

use std::{error::Error, io};

use tokio_rustls::rustls;
use tonic::Status;

use crate::tls::{Peer, explain};

/// Texts of library errors whose sources say more.
const EMPTY: [&str; 6] = [
    "transport error",
    "tcp connect error",
    "dns error",
    "error trying to connect",
    "client error (Connect)",
    "client error (SendRequest)",
];

/// Returns the cause at the end of a chain of errors of a call to one of our servers.
#[must_use]
pub fn words(error: &(dyn Error + 'static)) -> String {
    of(error, Peer::Server)
}

/// Like [`words`], for an IO error.
#[must_use]
pub fn of_io(error: &io::Error) -> String {
    of(error, Peer::Server)
}

/// Returns the cause of an IO error of a connection from a client.
#[must_use]
pub fn of_client(error: &io::Error) -> String {
    of(error, Peer::Client)
}

/// Returns why a call ended: the cause of the transport's failure, or else the status message.
#[must_use]
pub fn of_status(status: &Status) -> String {
    match (status.source(), status.message()) {
        (Some(source), _) => words(source),
        (None, "") => status.code().description().to_owned(),
        (None, message) => message.to_owned(),
    }
}

fn of(error: &(dyn Error + 'static), peer: Peer) -> String {
    let (mut known, mut texts) = (None, Vec::new());
    let mut next = Some(error);
    while let Some(error) = next {
        // The deeper an error is, the more it says.
        known = known_words(error, peer).or(known);
        let text = error.to_string();
        if !EMPTY.contains(&text.as_str())
            && !texts.iter().any(|known: &String| known.contains(&text))
        {
            texts.push(text);
        }
        next = error.source();
    }
    known.unwrap_or_else(|| if texts.is_empty() { error.to_string() } else { texts.join(": ") })
}

fn known_words(error: &(dyn Error + 'static), peer: Peer) -> Option<String> {
    if let Some(error) = error.downcast_ref::<io::Error>() {
        return Some(io_words(error, peer));
    }
    if let Some(error) = error.downcast_ref::<rustls::Error>() {
        return Some(explain(error, peer));
    }
    if let Some(error) = error.downcast_ref::<h2::Error>() {
        return Some(h2_words(error, peer));
    }
    None
}

fn io_words(error: &io::Error, peer: Peer) -> String {
    let text = error.to_string();
    if let Some(why) = text.strip_prefix("failed to lookup address information: ") {
        return format!("the name does not resolve ({why})");
    }
    if let Some(inner) = error.get_ref() {
        let inner: &(dyn Error + 'static) = inner;
        if error.kind() != io::ErrorKind::TimedOut {
            return of(inner, peer);
        }
    }
    if let Some(words) = kind_words(error.kind()) {
        return words.to_owned();
    }
    // The error number says the same as the words, and most readers do not know it.
    text.split(" (os error ").next().unwrap_or_default().to_owned()
}

fn kind_words(kind: io::ErrorKind) -> Option<&'static str> {
    use io::ErrorKind as K;
    Some(match kind {
        K::ConnectionRefused => "connection refused",
        K::ConnectionReset => "the connection was reset",
        K::ConnectionAborted | K::BrokenPipe | K::UnexpectedEof | K::NotConnected => {
            "the connection was closed"
        }
        K::TimedOut => "no answer in time",
        K::HostUnreachable => "the host is not reachable",
        K::NetworkUnreachable => "the network is not reachable",
        _ => return None,
    })
}

fn h2_words(error: &h2::Error, peer: Peer) -> String {
    if let Some(error) = error.get_io() {
        return io_words(error, peer);
    }
    let by = if error.is_remote() { "the other side" } else { "this side" };
    match error.reason() {
        Some(reason) if error.is_go_away() => {
            format!("{by} ended the connection ({})", reason.description())
        }
        Some(reason) => format!("{by} ended the call ({})", reason.description()),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use outrider_proto::internal::{ResolveKeyRequest, key_service_client::KeyServiceClient};
    use tokio::{io::AsyncWriteExt, net::TcpListener};
    use tonic::transport::Endpoint;

    use super::*;

    async fn connecting(url: String) -> String {
        let endpoint = Endpoint::from_shared(url).unwrap().connect_timeout(Duration::from_secs(10));
        words(&endpoint.connect().await.unwrap_err())
    }

    #[tokio::test]
    async fn a_transport_that_fails_says_why() {
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        assert_eq!(connecting(format!("http://{closed}")).await, "connection refused");
        // A resolver refuses a label that is too long without a query.
        let unknown = connecting(format!("http://{}:1", "a".repeat(64))).await;
        assert!(
            unknown.starts_with("the name does not resolve (") && !unknown.contains("os error"),
            "{unknown}"
        );
    }

    #[tokio::test]
    async fn a_call_that_breaks_off_says_why() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let channel = Endpoint::from_shared(format!("http://{}", listener.local_addr().unwrap()))
            .unwrap()
            .connect_lazy();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        });
        let status = KeyServiceClient::new(channel)
            .resolve_key(ResolveKeyRequest::default())
            .await
            .unwrap_err();
        let why = of_status(&status);
        assert!(!why.contains("transport error") && !why.is_empty(), "{why}");
        server.await.unwrap();
    }

    #[test]
    fn tls_errors_are_found_although_they_are_not_a_source() {
        let error = io::Error::other(rustls::Error::NoCertificatesPresented);
        assert!(error.source().is_none());
        assert_eq!(of_io(&error), "the server presented no certificate");
        assert_eq!(of_client(&error), "the client presented no certificate");
        let unknown = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        assert_eq!(
            of_io(&io::Error::other(unknown)),
            "the certificate is of an authority that is not known here"
        );
    }

    #[test]
    fn our_texts_and_those_of_the_system_have_no_error_numbers() {
        assert_eq!(
            of_io(&io::Error::other("no certificate authorities to verify the server with")),
            "no certificate authorities to verify the server with"
        );
        assert_eq!(of_io(&io::Error::from_raw_os_error(24)), "Too many open files");
        assert_eq!(of_io(&io::ErrorKind::TimedOut.into()), "no answer in time");
        assert_eq!(of_status(&Status::unavailable("later")), "later");
        assert_eq!(of_status(&Status::unavailable("")), tonic::Code::Unavailable.description());
    }
}
