//! TLS: verified, always.

use std::sync::Arc;

use outrider_proto::dispatch::AttemptOutcome;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer},
    },
};

use super::{
    bench::{Bench, quick},
    receiver::{Receiver, Reply},
};
use crate::Options;

/// An authority, with a certificate for `hooks.example`.
pub(super) struct Authority {
    pub(super) root: CertificateDer<'static>,
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl Authority {
    /// A server with the certificate, whose configuration is changed by `change`.
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
    let certificate = CertificateParams::new(vec!["hooks.example".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    Authority { root: authority.as_ref().der().clone(), certificate: certificate.der().clone(), key }
}

async fn receiver() -> (CertificateDer<'static>, Receiver) {
    let authority = authority();
    let receiver = Receiver::start_tls(Reply::status("200 OK"), authority.acceptor(|_| {})).await;
    (authority.root, receiver)
}

#[tokio::test]
async fn a_certificate_of_a_trusted_authority_for_the_host_is_accepted() {
    let (root, receiver) = receiver().await;
    let bench = Bench::start(Options { extra_roots: vec![root], ..quick() });
    let endpoint = bench.endpoint(&format!("https://hooks.example:{}/", receiver.port));
    bench.push(endpoint);
    assert_eq!(bench.attempt().await.outcome(), AttemptOutcome::Succeeded);
    bench.push(endpoint);
    bench.reports(2).await;
    assert_eq!(receiver.connections.load(std::sync::atomic::Ordering::SeqCst), 1);
}

#[tokio::test]
async fn another_host_an_unknown_authority_and_no_tls_at_all_are_refused() {
    let (root, receiver) = receiver().await;
    let plain = Receiver::start(Reply::Hang).await;
    for (roots, host, port) in [
        (vec![root.clone()], "other.example", receiver.port),
        (vec![root.clone()], "127.0.0.1", receiver.port),
        (vec![], "hooks.example", receiver.port),
        (vec![root], "hooks.example", plain.port),
    ] {
        let bench = Bench::start(Options { extra_roots: roots, ..quick() });
        let url = format!("https://{host}:{port}/");
        bench.push(bench.endpoint_with(&url, |endpoint| endpoint.timeout = std::time::Duration::from_secs(2)));
        let result = bench.attempt().await;
        if port == plain.port {
            // It waits for an HTTP request that never ends.
            assert_eq!(result.outcome(), AttemptOutcome::TimedOut);
        } else {
            assert_eq!(result.outcome(), AttemptOutcome::TlsFailed, "{host}");
            let message = result.error_message;
            assert!(message.starts_with("the TLS handshake failed: invalid peer certificate"), "{message}");
        }
    }
    assert_eq!((receiver.count(), plain.count()), (0, 0));
}
