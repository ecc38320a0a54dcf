//! Writes to standard error, whose reader may be gone: `outrider publish --lines - 2>&1 | head -1`.
//! Commands write through this module only, because `eprintln!` panics then. There is nobody left
//! to report a failed write to, so it is ignored.

use std::{fmt::Arguments, io::Write as _};

/// Writes the text, such as a progress line.
pub fn write(text: Arguments<'_>) {
    let mut stderr = std::io::stderr().lock();
    let _ = stderr.write_fmt(text).and_then(|()| stderr.flush());
}

/// Writes a line, formatted like `eprintln!`.
macro_rules! note {
    ($($text:tt)*) => {
        $crate::stderr::write(format_args!("{}\n", format_args!($($text)*)))
    };
}

pub(crate) use note;
