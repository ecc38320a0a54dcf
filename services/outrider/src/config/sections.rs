//! The sections of the configuration that belong to the process, not to a role.

use std::time::Duration;

use outrider_settings::{
    Hidden, Invalid, listen_address, millis, or_empty, seconds, section, together,
};

section! {
    /// The keys that encrypt secrets in the database.
    pub struct Secrets in "secrets" {
        /// `ID:BASE64` of 32 random bytes, followed by former keys after commas; `ID:lost` is a
        /// former key that is lost. It is safer in a file.
        pub master_key: Hidden = Hidden::default();
        /// A file that contains the master key, read when `master_key` is empty.
        pub master_key_file: String = "outrider-data/master.key".into();
    }
}

section! {
    /// How roles in different processes authenticate each other.
    pub struct Internal in "internal" {
        /// The token that they present to each other: 32 to 512 visible characters, the same in all
        /// processes. The token or TLS is required where a listener between roles is not on
        /// loopback. It is safer in a file (`token_file`).
        pub token: Hidden = Hidden::default();
        /// A PEM file of this process's certificate, followed by those that lead to the authority.
        /// With it, every listener between roles (ingest, dispatch, admin, egress) uses TLS and
        /// serves only clients that present a certificate of the same authority, and this process
        /// presents its own. URLs of roles must begin with `https://` then. Empty for no TLS.
        pub tls_certificate_file: String = String::new();
        /// A PEM file of its private key: PKCS#8, PKCS#1 or SEC1.
        pub tls_private_key_file: String = String::new();
        /// A PEM file of the authorities whose certificates are trusted between roles. No others
        /// are trusted.
        pub tls_ca_file: String = String::new();
        /// How often these files are checked. They are read again when they changed, and at SIGHUP
        /// at once.
        pub tls_reload_interval: Duration = seconds(30), millis(100)..;
    }
    with internal_rules;
}

fn internal_rules(options: &Internal) -> Result<(), Invalid> {
    together(&[
        ("internal.tls_certificate_file", &options.tls_certificate_file),
        ("internal.tls_private_key_file", &options.tls_private_key_file),
        ("internal.tls_ca_file", &options.tls_ca_file),
    ])
}

section! {
    /// The listener for operators: `/healthz`, `/readyz` and `/metrics`.
    pub struct Operations in "operations" {
        /// Address and port; empty for none.
        pub listen: String = "127.0.0.1:9090".into(), or_empty(listen_address());
    }
}
