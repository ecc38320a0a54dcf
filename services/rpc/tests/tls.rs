//! TLS with certificates created by the tests: what is accepted, what is refused, and what a reload
//! changes.
// The lint knows tests, but not their shared functions.
#![allow(clippy::unwrap_used)]

use std::{fs, io, path::Path, sync::Arc, time::Duration};

use outrider_rpc::{
    Acceptor, Socket, Tls, TlsFiles, cause,
    tls::{NotAnAddress, Protocol, connect, host_and_port},
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

/// Nothing here takes this long unless it hangs.
const LONG: Duration = Duration::from_secs(20);

/// A certificate authority and the files of the certificates that it signs.
struct Pki {
    directory: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Pki {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // A unique name, so that two authorities are not confused.
        params.distinguished_name.push(DnType::CommonName, directory.path().display().to_string());
        let key = KeyPair::generate().unwrap();
        fs::write(directory.path().join("ca.pem"), params.self_signed(&key).unwrap().pem())
            .unwrap();
        Self { directory, issuer: Issuer::new(params, key) }
    }

    /// Writes files with a new certificate for a host and a PKCS#8 key.
    fn write(&self, name: &str, host: &str) -> (TlsFiles, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![host.to_owned()])
            .unwrap()
            .signed_by(&key, &self.issuer)
            .unwrap();
        let file = |end: &str| self.directory.path().join(format!("{name}.{end}"));
        fs::write(file("crt"), certificate.pem()).unwrap();
        fs::write(file("key"), key.serialize_pem()).unwrap();
        let authorities = Some(self.directory.path().join("ca.pem"));
        (TlsFiles { certificate: file("crt"), private_key: file("key"), authorities }, key)
    }

    fn tls(&self, name: &str, host: &str) -> Arc<Tls> {
        Tls::load(self.write(name, host).0).unwrap()
    }
}

/// Accepts one connection and echoes four bytes.
async fn serve_one(
    acceptor: Acceptor,
) -> (std::net::SocketAddr, tokio::task::JoinHandle<io::Result<()>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = tokio::spawn(async move {
        let (stream, _) = listener.accept().await?;
        let mut socket = acceptor.accept(stream).await?;
        let mut bytes = [0; 4];
        socket.read_exact(&mut bytes).await?;
        socket.write_all(&bytes).await?;
        socket.shutdown().await
    });
    (address, served)
}

async fn echo(mut socket: Socket) -> io::Result<String> {
    socket.write_all(b"ping").await?;
    let mut text = String::new();
    socket.read_to_string(&mut text).await?;
    Ok(text)
}

/// One exchange of a client with a server.
async fn exchange(server: &Arc<Tls>, client: &Tls) -> io::Result<String> {
    let acceptor = Acceptor::new(Arc::clone(server), Protocol::Grpc, LONG);
    let (address, _served) = serve_one(acceptor).await;
    let talk = async {
        echo(connect(Some(client), Protocol::Grpc, "localhost", address.port()).await?).await
    };
    timeout(LONG, talk).await.expect("nothing hangs")
}

#[tokio::test]
async fn both_sides_must_be_known_and_the_server_named() {
    let (pki, other_pki) = (Pki::new(), Pki::new());
    let server = pki.tls("server", "localhost");
    assert_eq!(exchange(&server, &pki.tls("client", "client")).await.unwrap(), "ping");
    // Another authority on either side, or another name: each error says so.
    let refused = async |server: Arc<Tls>, client: Arc<Tls>| {
        cause::of_io(&exchange(&server, &client).await.unwrap_err())
    };
    let unknown = "the certificate is of an authority that is not known here";
    assert_eq!(refused(server.clone(), other_pki.tls("client", "client")).await, unknown);
    assert_eq!(
        refused(other_pki.tls("server", "localhost"), pki.tls("client", "client")).await,
        unknown
    );
    let other = refused(pki.tls("other", "other"), pki.tls("client", "client")).await;
    assert_eq!(other, "the certificate is not for localhost; it is for other");
}

#[tokio::test]
async fn a_client_without_a_certificate_is_not_served() {
    use tokio_rustls::{TlsConnector, TlsStream, rustls};
    let pki = Pki::new();
    let (address, served) =
        serve_one(Acceptor::new(pki.tls("server", "localhost"), Protocol::Grpc, LONG)).await;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(pem(&pki.directory.path().join("ca.pem"))).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap();
    let config = Arc::new(config.with_root_certificates(roots).with_no_client_auth());
    let stream = TcpStream::connect(address).await.unwrap();
    let talk = async {
        let stream =
            TlsConnector::from(config).connect("localhost".try_into().unwrap(), stream).await?;
        echo(Socket::from(TlsStream::Client(stream))).await
    };
    assert!(timeout(LONG, talk).await.unwrap().is_err());
    assert_eq!(
        cause::of_client(&served.await.unwrap().unwrap_err()),
        "the client presented no certificate"
    );
}

fn pem(path: &Path) -> tokio_rustls::rustls::pki_types::CertificateDer<'static> {
    use tokio_rustls::rustls::pki_types::pem::PemObject;
    PemObject::from_pem_file(path).unwrap()
}

#[tokio::test]
async fn a_connection_without_a_handshake_is_closed_and_a_browser_gets_an_error() {
    let pki = Pki::new();
    let say = async |acceptor: &Acceptor, bytes: &[u8]| {
        let (address, served) = serve_one(acceptor.clone()).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        // The connection may also end with a reset.
        let _ = timeout(LONG, stream.read_to_end(&mut answer)).await.expect("it is closed");
        assert!(served.await.unwrap().is_err());
        String::from_utf8_lossy(&answer).into_owned()
    };
    let acceptor = Acceptor::new(pki.tls("server", "localhost"), Protocol::Web, LONG);
    let plain = say(&acceptor, b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert!(
        plain.starts_with("HTTP/1.1 400 ")
            && plain.contains("https:// instead")
            && plain.contains("\"reason\":\"MALFORMED_REQUEST\""),
        "{plain}"
    );
    assert_eq!(say(&acceptor, b"\0\0\0").await, "");
    // A handshake that does not end is cut.
    let impatient =
        Acceptor::new(pki.tls("server", "localhost"), Protocol::Web, Duration::from_millis(50));
    for begin in [b"".as_slice(), b"\x16", b"\x16\x03\x01\x00\xff"] {
        assert_eq!(say(&impatient, begin).await, "");
    }
}

#[tokio::test]
async fn new_files_are_used_and_bad_ones_refused() {
    let pki = Pki::new();
    let (files, _) = pki.write("server", "localhost");
    let (server, client) = (Tls::load(files.clone()).unwrap(), pki.tls("client", "client"));
    assert!(!server.refresh(), "nothing changed");
    // A certificate whose key is not written yet, and then files that contain no key.
    let old_key = fs::read(&files.private_key).unwrap();
    pki.write("server", "elsewhere");
    let new_key = fs::read(&files.private_key).unwrap();
    for bad in [old_key.as_slice(), b"", b"no key"] {
        fs::write(&files.private_key, bad).unwrap();
        assert!(!server.refresh());
        assert_eq!(exchange(&server, &client).await.unwrap(), "ping");
    }
    fs::write(&files.private_key, new_key).unwrap();
    assert!(server.refresh() && !server.refresh());
    assert!(exchange(&server, &client).await.is_err(), "the new certificate names another host");
    fs::remove_file(&files.certificate).unwrap();
    assert!(!server.refresh());
    pki.write("server", "localhost");
    assert!(server.refresh());
    assert_eq!(exchange(&server, &client).await.unwrap(), "ping");
    // The authority of the client is no longer trusted.
    let other = Pki::new();
    fs::copy(other.directory.path().join("ca.pem"), files.authorities.unwrap()).unwrap();
    assert!(server.refresh());
    assert!(exchange(&server, &client).await.is_err());
}

#[test]
fn keys_come_in_three_forms_and_must_be_those_of_the_certificate() {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let pki = Pki::new();
    let (files, key) = pki.write("server", "localhost");
    // The PKCS#8 form of a P-256 key contains the SEC1 key after a header of fixed length.
    let sec1 = STANDARD.encode(&key.serialize_der()[29..]);
    fs::write(
        &files.private_key,
        format!("-----BEGIN EC PRIVATE KEY-----\n{sec1}\n-----END EC PRIVATE KEY-----\n"),
    )
    .unwrap();
    Tls::load(files.clone()).unwrap();

    let testdata = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/testdata");
    let pkcs1 = TlsFiles {
        certificate: testdata.join("rsa.crt"),
        private_key: testdata.join("rsa.key"),
        authorities: None,
    };
    Tls::load(pkcs1.clone()).unwrap();

    let error = |files: TlsFiles| Tls::load(files).unwrap_err().to_string();
    let mixed = error(TlsFiles { private_key: pkcs1.private_key, ..files.clone() });
    assert!(
        mixed.ends_with(
            "server.crt cannot be used: the private key does not belong to the certificate"
        ),
        "{mixed}"
    );
    let none = error(TlsFiles { private_key: files.certificate.clone(), ..files.clone() });
    assert!(
        none.ends_with(
            "private key (PKCS#8, PKCS#1 or SEC1) in PEM: no section of that kind is in it"
        ),
        "{none}"
    );
    let whole = fs::read_to_string(&files.certificate).unwrap();
    let cut = files.certificate.with_extension("cut");
    fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
    let cut = error(TlsFiles { certificate: cut, ..files.clone() });
    assert!(
        cut.ends_with("certificate in PEM: a section has no END line: the file is cut off"),
        "{cut}"
    );
    let missing = error(TlsFiles { authorities: Some("/nonexistent/ca.pem".into()), ..files });
    assert!(missing.contains("cannot read /nonexistent/ca.pem"), "{missing}");
}

#[test]
fn addresses_are_taken_apart() {
    assert_eq!(host_and_port("egress:8084"), Ok(("egress", 8084)));
    assert_eq!(host_and_port("[::1]:8084"), Ok(("::1", 8084)));
    for bad in ["egress", ":1", "egress:", "egress:0", "egress:65536", "::1:80", "[::1]"] {
        assert_eq!(host_and_port(bad), Err(NotAnAddress), "{bad}");
    }
}
