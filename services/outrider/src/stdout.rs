//! Writing to standard output, which whoever reads it may close early: `outrider events list | head
//! -1`.

use std::io::{ErrorKind, Write as _};

use anyhow::{Context, Result};

/// Writes the text. That nobody reads it any more is no error.
pub fn write(text: &str) -> Result<()> {
    write_while_read(text).map(|_| ())
}

/// The same; whether anybody still reads it.
pub fn write_while_read(text: &str) -> Result<bool> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("cannot write to standard output"),
    }
}
