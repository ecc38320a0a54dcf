//! A certificate authority and the certificates that it issues, in files.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use crate::leash::Directory;

/// An authority with its own directory, which is removed with it.
#[derive(Debug)]
pub struct Pki {
    directory: Directory,
    issuer: Issuer<'static, KeyPair>,
}

/// The files of an issued certificate.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The certificate, in PEM.
    pub certificate: PathBuf,
    /// Its private key, in PEM.
    pub private_key: PathBuf,
    /// The certificate of the authority, in PEM.
    pub authority: PathBuf,
}

impl Pki {
    /// Creates an authority.
    pub fn create() -> Result<Self> {
        let directory = Directory::create()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "The tests' authority");
        let key = KeyPair::generate()?;
        fs::write(directory.path().join("authority.pem"), params.self_signed(&key)?.pem())?;
        Ok(Self { directory, issuer: Issuer::new(params, key) })
    }

    /// Writes a new certificate for 127.0.0.1 and localhost under a name. It replaces an earlier
    /// one of that name.
    pub fn issue(&self, name: &str) -> Result<Identity> {
        let key = KeyPair::generate()?;
        let hosts = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let mut params = CertificateParams::new(hosts)?;
        // With the name of its issuer, it would look self-signed.
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &self.issuer)?;
        let identity = Identity {
            certificate: self.path(&format!("{name}.crt")),
            private_key: self.path(&format!("{name}.key")),
            authority: self.authority(),
        };
        fs::write(&identity.certificate, certificate.pem())?;
        fs::write(&identity.private_key, key.serialize_pem())?;
        Ok(identity)
    }

    /// Writes a self-signed certificate for 127.0.0.1, of an authority or of a server.
    pub fn self_signed(&self, name: &str, is_authority: bool) -> Result<Identity> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()])?;
        params.distinguished_name.push(DnType::CommonName, name);
        if is_authority {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        let certificate = self.path(&format!("{name}.crt"));
        fs::write(&certificate, params.self_signed(&key)?.pem())?;
        let private_key = self.path(&format!("{name}.key"));
        fs::write(&private_key, key.serialize_pem())?;
        Ok(Identity { authority: certificate.clone(), certificate, private_key })
    }

    /// Returns the file of the authority's certificate.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.path("authority.pem")
    }

    fn path(&self, file: &str) -> PathBuf {
        Path::join(self.directory.path(), file)
    }
}
