//! Writing to standard output, which whoever reads it may close early: `outrider events list | head -1`.

use std::io::{ErrorKind, Write as _};

use anyhow::{Context, Result};

/// Writes the text. That nobody reads it any more is no error.
pub fn write(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("cannot write to standard output"),
        _ => Ok(()),
    }
}
