//! Writes to standard output, which its reader may close early: `outrider events list | head -1`.
//! Commands write through this module only, because `println!` panics then.

use std::{
    fmt::Display,
    io::{ErrorKind, Write as _},
};

use anyhow::{Context, Result};

/// Writes the text. It is not an error if standard output is closed.
pub fn write(text: &str) -> Result<()> {
    write_while_read(text).map(|_| ())
}

/// Writes a line. It is not an error if standard output is closed.
pub fn line(text: impl Display) -> Result<()> {
    write(&format!("{text}\n"))
}

/// Writes the text, and returns whether standard output is still open.
pub fn write_while_read(text: &str) -> Result<bool> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("cannot write to standard output"),
    }
}
