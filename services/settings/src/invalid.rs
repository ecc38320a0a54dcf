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
