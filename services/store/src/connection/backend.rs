//! The kind of database that a `database.url` leads to.

use sea_orm::DbBackend;

use super::target::{self, Target};

/// The kind of database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// PostgreSQL 15 or later.
    Postgres,
    /// SQLite, in a file or in memory.
    Sqlite,
}

impl Backend {
    /// The kind of database of a `database.url`. None if it is neither.
    #[must_use]
    pub fn of(url: &str) -> Option<Self> {
        if target::is_postgres(url) {
            return Some(Self::Postgres);
        }
        url.starts_with("sqlite:").then_some(Self::Sqlite)
    }
}

impl From<Backend> for DbBackend {
    fn from(backend: Backend) -> Self {
        match backend {
            Backend::Postgres => Self::Postgres,
            Backend::Sqlite => Self::Sqlite,
        }
    }
}

/// Checks the form of a `database.url`. Dials nothing and reads no file. The error never contains a
/// value.
pub fn check_url(url: &str) -> Result<(), String> {
    if target::is_postgres(url) {
        return Target::parse(url).map(drop);
    }
    let Some(file) = url.strip_prefix("sqlite:") else {
        return Err(
            "must begin with sqlite: or postgres://, or be HOST=… pairs as of libpq".to_owned()
        );
    };
    check_file(file.strip_prefix("//").unwrap_or(file)).map_err(str::to_owned)
}

/// A SQLite database without a name could never be found again, and this crate sets the parameters
/// of its URL.
fn check_file(file: &str) -> Result<(), &'static str> {
    if file.is_empty() {
        Err("must name a file, as in sqlite://outrider.db")
    } else if file.contains('?') {
        Err("must have nothing after the file: it is created if missing, and is read and \
             written (write ? in a name as %3F)")
    } else {
        Ok(())
    }
}
