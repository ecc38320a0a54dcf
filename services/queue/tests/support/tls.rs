//! A Redis server with TLS, and certificates for both sides.

use std::{fs, path::PathBuf, time::Duration};

use outrider_queue::{Options, RedisTls};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use super::server::{Server, free_port};

/// An authority, and one certificate that the server and its clients use.
pub struct Certificates {
    directory: TempDir,
}

impl Certificates {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mut authority = CertificateParams::new(Vec::new()).expect("names");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.distinguished_name.push(DnType::CommonName, "authority");
        let authority_key = KeyPair::generate().expect("a key");
        let certificate = authority.self_signed(&authority_key).expect("a certificate");
        let (key, mut params) = (
            KeyPair::generate().expect("a key"),
            CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("names"),
        );
        params.distinguished_name.push(DnType::CommonName, "redis");
        let signed =
            params.signed_by(&key, &Issuer::new(authority, authority_key)).expect("a certificate");
        for (name, pem) in
            [("ca", certificate.pem()), ("crt", signed.pem()), ("key", key.serialize_pem())]
        {
            fs::write(directory.path().join(name), pem).expect("to write");
        }
        Self { directory }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Starts a server that accepts clients with a certificate of the authority.
    pub fn server(&self) -> Option<Server> {
        let (port, file) = (free_port(), |name: &str| self.file(name).display().to_string());
        let (number, certificate, key, authority) =
            (port.to_string(), file("crt"), file("key"), file("ca"));
        let mut server = Server::with(&[
            "--appendonly",
            "no",
            "--tls-port",
            &number,
            "--tls-cert-file",
            &certificate,
            "--tls-key-file",
            &key,
            "--tls-ca-cert-file",
            &authority,
            "--tls-auth-clients",
            "yes",
        ])?;
        server.tls_port = Some(port);
        Some(server)
    }

    /// Returns the TLS settings of a client.
    pub fn tls(&self) -> RedisTls {
        let read = |name: &str| fs::read(self.file(name)).expect("to read");
        RedisTls { authorities: Some(read("ca")), identity: Some((read("crt"), read("key"))) }
    }

    pub fn options(&self, server: &Server) -> Options {
        Options {
            url: format!("rediss://127.0.0.1:{}", server.tls_port.expect("a server by TLS")).into(),
            command_timeout: Duration::from_secs(10),
            ..Options::default()
        }
    }
}
