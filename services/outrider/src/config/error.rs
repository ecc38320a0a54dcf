//! The error of an invalid configuration.

use std::path::PathBuf;

use outrider_settings::Invalid;

/// An error about a key or a file of the configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read the configuration file {path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("{path} is not TOML: {message}")]
    Syntax { path: PathBuf, message: String },
    #[error("{origin}: {key}: {message}")]
    Value { origin: String, key: String, message: String },
    #[error(transparent)]
    Invalid(#[from] Invalid),
}
