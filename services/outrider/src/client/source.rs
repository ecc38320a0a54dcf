//! The source of the data that a command sends: a file, or standard input.

use std::{io::Read, path::Path};

use super::Failure;

/// Opens a file, or standard input for `-`.
pub fn source(path: &Path) -> Result<Box<dyn Read + Send>, Failure> {
    if path == Path::new("-") {
        return Ok(Box::new(std::io::stdin()));
    }
    match std::fs::File::open(path) {
        Ok(file) => Ok(Box::new(file)),
        Err(error) => Err(Failure::Usage(format!("cannot open {}: {error}", path.display()))),
    }
}
