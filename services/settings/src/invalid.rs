//! Why a value is refused.

use std::fmt;

/// A value that a section refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// The key, with its section: `gateway.listen`.
    pub key: String,
    /// What the value must be.
    pub message: String,
}

impl Invalid {
    /// An error about a key.
    #[must_use]
    pub fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { key: key.into(), message: message.into() }
    }

    /// Fails with this message unless `good`.
    pub fn unless(good: bool, key: &str, message: impl Into<String>) -> Result<(), Self> {
        if good { Ok(()) } else { Err(Self::new(key, message)) }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.message)
    }
}

impl std::error::Error for Invalid {}

/// Refuses files of which only some are given: they are used together, or not at all. Each is a
/// key and a path, which is empty when the file is not given.
pub fn together(files: &[(&str, &String)]) -> Result<(), Invalid> {
    let Some((given, _)) = files.iter().find(|(_, path)| !path.is_empty()) else { return Ok(()) };
    let missing = files.iter().find(|(_, path)| path.is_empty());
    missing.map_or(Ok(()), |(key, _)| Err(Invalid::new(*key, format!("is required with {given}"))))
}
