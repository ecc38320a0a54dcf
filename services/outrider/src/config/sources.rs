//! Where a configuration comes from.

use std::{fmt, path::PathBuf};

/// The sources of values besides the defaults.
#[derive(Debug, Default)]
pub struct Sources {
    /// A TOML file.
    pub file: Option<PathBuf>,
    /// Variables; those that begin with OUTRIDER_ count.
    pub environment: Vec<(String, String)>,
    /// `section.key=value`, strongest.
    pub flags: Vec<String>,
}

/// The origin of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueOrigin {
    Default,
    File(PathBuf),
    Variable(String),
    Flag,
    /// A file with the one value, named by `KEY_file`.
    SecretFile(PathBuf),
}

impl fmt::Display for ValueOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Variable(name) => write!(f, "variable {name}"),
            Self::Flag => f.write_str("flag --set"),
            Self::SecretFile(path) => write!(f, "from file {}", path.display()),
        }
    }
}

impl Sources {
    /// The file and flags of the command line, with this process's environment.
    #[must_use]
    pub fn with_environment(file: Option<PathBuf>, flags: Vec<String>) -> Self {
        // Other variables may contain anything. In ours, the replacement for a byte that is not
        // UTF-8 is refused later.
        let variables = std::env::vars_os().filter_map(|(name, value)| {
            let name = name.into_string().ok()?;
            Some((name, value.to_string_lossy().into_owned()))
        });
        Self { file, environment: variables.collect(), flags }
    }
}
