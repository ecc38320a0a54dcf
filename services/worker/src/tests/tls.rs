//! TLS certificates are always verified.

use std::sync::Arc;

use outrider_model::AttemptOutcome;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer},
        server::WebPkiClientVerifier,
        version::{TLS12, TLS13},
    },
};

use super::{
    bench::{Bench, Shown, quick},
    receiver::{Receiver, Reply},
};

/// An authority, with a certificate for `hooks.example`.
pub(super) struct Authority {
    pub(super) root: CertificateDer<'static>,
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl Authority {
    /// Returns a server with the certificate and a configuration that `change` changes.
    pub(super) fn acceptor(&self, change: impl FnOnce(&mut ServerConfig)) -> TlsAcceptor {
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.clone()], self.key.clone_key())
            .unwrap();
        // A server that would rather speak HTTP/2 is not let.
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        change(&mut config);
        TlsAcceptor::from(Arc::new(config))
    }
}

pub(super) fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["hooks.example".to_owned()]).unwrap();
    // With the name of its issuer it would look as if it had signed itself.
    params.distinguished_name.push(DnType::CommonName, "hooks");
    let certificate = params.signed_by(&key, &authority).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    Authority {
        root: authority.as_ref().der().clone(),
        certificate: certificate.der().clone(),
        key,
    }
}

async fn receiver() -> (CertificateDer<'static>, Receiver) {
    let authority = authority();
    let receiver = Receiver::start_tls(Reply::status("200 OK"), authority.acceptor(|_| {})).await;
    (authority.root, receiver)
}

#[tokio::test]
async fn a_certificate_of_a_trusted_authority_for_the_host_is_accepted() {
    let (root, receiver) = receiver().await;
    let bench = Bench::trusting(vec![root]);
    let endpoint = bench.endpoint(&format!("https://hooks.example:{}/", receiver.port));
    bench.push(endpoint);
    assert_eq!(bench.attempt().await.outcome, AttemptOutcome::Succeeded);
    bench.push(endpoint);
    bench.reports(2).await;
    assert_eq!(receiver.connections.load(std::sync::atomic::Ordering::SeqCst), 1);
}

#[tokio::test]
async fn another_host_an_unknown_authority_and_no_tls_at_all_are_refused() {
    let (root, receiver) = receiver().await;
    let plain = Receiver::start(Reply::Hang).await;
    for (roots, host, port, message) in [
        (
            vec![root.clone()],
            "other.example",
            receiver.port,
            "the certificate is not for other.example; it is for hooks.example",
        ),
        (
            vec![root.clone()],
            "127.0.0.1",
            receiver.port,
            "the certificate is not for 127.0.0.1; it is for hooks.example",
        ),
        (
            vec![],
            "hooks.example",
            receiver.port,
            "the certificate is of an authority that is not known here",
        ),
        (vec![root], "hooks.example", plain.port, ""),
    ] {
        let bench = Bench::trusting(roots);
        let url = format!("https://{host}:{port}/");
        bench.push(bench.endpoint_with(&url, |endpoint| {
            endpoint.spec.limits.timeout = std::time::Duration::from_secs(2)
        }));
        let result = bench.attempt().await;
        if port == plain.port {
            // It waits for an HTTP request that never ends.
            assert_eq!(result.outcome, AttemptOutcome::TimedOut);
        } else {
            assert_eq!(result.outcome, AttemptOutcome::TlsFailed, "{host}");
            let told = result.error();
            assert!(told.starts_with(&format!("the TLS handshake failed: {message}")), "{told}");
        }
    }
    assert_eq!((receiver.count(), plain.count()), (0, 0));
}

/// A self-signed certificate, whatever it says of itself.
fn self_signed(is_ca: bool) -> Authority {
    let mut params = CertificateParams::new(vec!["hooks.example".to_owned()]).unwrap();
    if is_ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap().der().clone();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    Authority { root: certificate.clone(), certificate, key }
}

#[tokio::test]
async fn a_certificate_in_the_trust_file_is_trusted_itself() {
    for is_ca in [false, true] {
        let server = self_signed(is_ca);
        let receiver = Receiver::start_tls(Reply::status("200 OK"), server.acceptor(|_| {})).await;
        for (roots, host, expected) in [
            (vec![server.root.clone()], "hooks.example", ""),
            (
                vec![server.root.clone()],
                "other.example",
                "the certificate is not for other.example; it is for hooks.example",
            ),
            (
                vec![self_signed(is_ca).root],
                "hooks.example",
                "the certificate is self-signed; use one of a public authority",
            ),
        ] {
            let bench = Bench::trusting(roots);
            bench.push(bench.endpoint(&format!("https://{host}:{}/", receiver.port)));
            let result = bench.attempt().await;
            match expected {
                "" => assert_eq!(result.outcome, AttemptOutcome::Succeeded, "{result:?}"),
                _ => assert!(result.error().contains(expected), "{result:?}"),
            }
        }
    }
}

/// In TLS 1.3 the handshake is over for the client before the server has judged it.
#[tokio::test]
async fn an_endpoint_that_wants_a_client_certificate_is_told_apart() {
    let authority = authority();
    for version in [&TLS12, &TLS13] {
        let mut roots = RootCertStore::empty();
        roots.add(authority.root.clone()).unwrap();
        let provider = Arc::new(ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .build()
                .unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![authority.certificate.clone()], authority.key.clone_key())
            .unwrap();
        let receiver =
            Receiver::start_tls(Reply::status("200 OK"), TlsAcceptor::from(Arc::new(config))).await;
        let bench = Bench::trusting(vec![authority.root.clone()]);
        bench.push(bench.endpoint(&format!("https://hooks.example:{}/", receiver.port)));
        let result = bench.attempt().await;
        assert_eq!(
            (result.outcome, receiver.count()),
            (AttemptOutcome::TlsFailed, 0),
            "{result:?}"
        );
        assert!(
            result.error().contains("asks for a client certificate"),
            "{version:?}: {}",
            result.error()
        );
    }
}

#[tokio::test]
async fn a_port_that_speaks_no_tls_is_told() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    for (answer, text) in [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n".as_slice(), "does not speak TLS on this port"),
        (b"SSH-2.0-x\r\n", "does not speak TLS on this port"),
        (&[21, 3, 3, 0, 2, 2, 112], "serves no host of this name (unrecognized_name)"),
        (b"", "closed the connection during it"),
    ] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            // The whole hello, or the close would be a reset.
            assert!(stream.read(&mut [0; 4096]).await.unwrap() > 100);
            stream.write_all(answer).await.unwrap();
        });
        let bench = Bench::start(quick());
        bench.push(bench.endpoint(&format!("https://hooks.example:{port}/")));
        let result = bench.attempt().await;
        assert_eq!(result.outcome, AttemptOutcome::TlsFailed, "{result:?}");
        assert!(result.error().contains(text), "{}", result.error());
    }
}
