//! Certificates and keys from files, which are read again when they change.

use std::{
    fmt, io,
    io::Read as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;
use ring::digest::{Context, SHA256};
use tokio_rustls::rustls::{
    self, ClientConfig, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring as provider},
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
    server::WebPkiClientVerifier,
};

use super::{
    explain::{Peer, explain},
    protocol::Protocol,
};

/// Maximum size of a file, in bytes.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// The PEM files of a TLS configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate chain of this side: its own certificate first, then those up to an
    /// authority.
    pub certificate: PathBuf,
    /// The private key of the first certificate: PKCS#8, PKCS#1 or SEC1, not encrypted.
    pub private_key: PathBuf,
    /// The authorities that verify the other side, which then must present a certificate, whether
    /// it is a client or a server. `None` for a listener that serves all clients.
    pub authorities: Option<PathBuf>,
}

/// Why files are not a valid TLS configuration. The texts name files, never their contents.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or is larger than 1 MiB.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file contains no certificate or no key in PEM.
    #[error("{path} holds no {what} in PEM: {why}")]
    Pem {
        /// The file.
        path: PathBuf,
        /// What the file must contain.
        what: &'static str,
        /// Why it does not.
        why: &'static str,
    },
    /// The certificate or the key cannot be used, alone or together.
    #[error("{path} cannot be used: {message}")]
    Unusable {
        /// The file of the certificate or of the authorities.
        path: PathBuf,
        /// The cause.
        message: String,
    },
}

/// TLS from files. Open connections keep the configuration that they began with. New connections
/// use the configuration that was read last.
pub struct Tls {
    files: TlsFiles,
    current: ArcSwap<Configs>,
    seen: Mutex<Seen>,
}

/// The contents that were read last, usable or not.
struct Seen {
    digest: [u8; 32],
    /// The fault that was logged last. It is logged again only if it changes.
    fault: Option<String>,
}

struct Configs {
    server: ServerConfig,
    /// `None` without authorities that verify servers.
    client: Option<ClientConfig>,
}

impl fmt::Debug for Tls {
    /// Shows the files, never their contents.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tls").field(&self.files).finish()
    }
}

impl Tls {
    /// Reads the files.
    pub fn load(files: TlsFiles) -> Result<Arc<Self>, TlsError> {
        let contents = Contents::read(&files)?;
        let current = ArcSwap::from_pointee(contents.configs(&files)?);
        let seen = Mutex::new(Seen { digest: contents.digest(), fault: None });
        Ok(Arc::new(Self { files, current, seen }))
    }

    /// Reads the files again and, if they changed, uses their contents for new connections.
    /// Contents that cannot be used are refused with one error in the log, and the previous
    /// configuration stays in use. Blocks while it reads. Returns whether a new configuration is in
    /// use.
    pub fn refresh(&self) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let configs = Contents::read(&self.files).and_then(|contents| {
            let digest = contents.digest();
            if digest == seen.digest {
                return Ok(None);
            }
            let configs = contents.configs(&self.files)?;
            seen.digest = digest;
            Ok(Some(configs))
        });
        match configs {
            Ok(None) => {
                seen.fault = None;
                false
            }
            Ok(Some(configs)) => {
                seen.fault = None;
                self.current.store(Arc::new(configs));
                let certificate = self.files.certificate.display();
                tracing::info!(%certificate, "new certificates are in use");
                true
            }
            Err(error) => {
                let fault = error.to_string();
                if seen.fault.as_ref() != Some(&fault) {
                    tracing::error!(
                        error = fault,
                        "new certificates are refused; the old ones stay in use"
                    );
                    seen.fault = Some(fault);
                }
                false
            }
        }
    }

    /// Returns the configuration for a new connection of a listener.
    pub(super) fn server(&self, protocol: Protocol) -> Arc<ServerConfig> {
        let mut config = self.current.load().server.clone();
        config.alpn_protocols = protocol.names();
        Arc::new(config)
    }

    /// Returns the configuration for a new connection to a listener, or `None` without authorities.
    pub(super) fn client(&self, protocol: Protocol) -> Option<Arc<ClientConfig>> {
        let mut config = self.current.load().client.clone()?;
        config.alpn_protocols = protocol.names();
        Some(Arc::new(config))
    }
}

struct Contents {
    certificate: Vec<u8>,
    private_key: Vec<u8>,
    authorities: Option<Vec<u8>>,
}

impl Contents {
    fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        Ok(Self {
            certificate: read(&files.certificate)?,
            private_key: read(&files.private_key)?,
            authorities: files.authorities.as_deref().map(read).transpose()?,
        })
    }

    fn digest(&self) -> [u8; 32] {
        let mut context = Context::new(&SHA256);
        for part in
            [&self.certificate, &self.private_key, self.authorities.as_deref().unwrap_or_default()]
        {
            context.update(&part.len().to_be_bytes());
            context.update(part);
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(context.finish().as_ref());
        digest
    }

    fn configs(&self, files: &TlsFiles) -> Result<Configs, TlsError> {
        let unusable = |path: &Path| {
            let path = path.to_owned();
            move |error: rustls::Error| TlsError::Unusable { path, message: unusable_words(&error) }
        };
        let chain = certificates(&files.certificate, &self.certificate)?;
        let key = || {
            let wrong = |error| TlsError::Pem {
                path: files.private_key.clone(),
                what: "private key (PKCS#8, PKCS#1 or SEC1)",
                why: pem_words(&error),
            };
            PrivateKeyDer::from_pem_slice(&self.private_key).map_err(wrong)
        };
        let provider: Arc<CryptoProvider> = Arc::new(provider::default_provider());
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(unusable(&files.certificate))?;
        let (Some(path), Some(pem)) = (&files.authorities, &self.authorities) else {
            let server = server
                .with_no_client_auth()
                .with_single_cert(chain, key()?)
                .map_err(unusable(&files.certificate))?;
            return Ok(Configs { server, client: None });
        };
        let mut roots = RootCertStore::empty();
        for authority in certificates(path, pem)? {
            roots.add(authority).map_err(unusable(path))?;
        }
        let roots = Arc::new(roots);
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
                .build();
        let verifier = verifier.map_err(|error| TlsError::Unusable {
            path: path.clone(),
            message: error.to_string(),
        })?;
        let server =
            server.with_client_cert_verifier(verifier).with_single_cert(chain.clone(), key()?);
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(unusable(&files.certificate))?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key()?);
        Ok(Configs {
            server: server.map_err(unusable(&files.certificate))?,
            client: Some(client.map_err(unusable(&files.certificate))?),
        })
    }
}

/// Reads the certificates in a PEM file; at least one.
pub fn read_certificates(path: impl AsRef<Path>) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    certificates(path.as_ref(), &read(&path)?)
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |error| TlsError::Pem {
        path: path.to_owned(),
        what: "certificate",
        why: pem_words(&error),
    };
    let found: Vec<_> =
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(wrong)?;
    if found.is_empty() { Err(wrong(pem::Error::NoItemsFound)) } else { Ok(found) }
}

/// Describes a fault of PEM. The library's own texts may quote the file.
fn pem_words(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::MissingSectionEnd { .. } => "a section has no END line: the file is cut off",
        pem::Error::IllegalSectionStart { .. } => "a BEGIN line is malformed",
        pem::Error::Base64Decode(_) => "a section is not base64",
        pem::Error::SectionTooLarge => "a section is too large",
        pem::Error::NoItemsFound => "no section of that kind is in it",
        _ => "it cannot be read",
    }
}

/// Describes why a certificate or a key cannot be used.
fn unusable_words(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch) => {
            "the private key does not belong to the certificate".to_owned()
        }
        rustls::Error::InconsistentKeys(_) => {
            "cannot determine whether the private key belongs to the certificate".to_owned()
        }
        rustls::Error::General(why) => why.clone(),
        other => explain(other, Peer::Server),
    }
}

fn read(path: impl AsRef<Path>) -> Result<Vec<u8>, TlsError> {
    let path = path.as_ref();
    let read_all = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        std::fs::File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 1 MiB"));
        }
        Ok(bytes)
    };
    read_all().map_err(|source| TlsError::Unreadable { path: path.to_owned(), source })
}
