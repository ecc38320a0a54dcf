//! The output of processes, for people who examine a failed test.

use std::{fs, path::Path};

/// Returns the last lines of a file, or a line that says that it cannot be read.
#[must_use]
pub fn tail(path: &Path, lines: usize) -> String {
    match fs::read(path) {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            let all: Vec<&str> = text.lines().collect();
            all[all.len().saturating_sub(lines)..].join("\n")
        }
        Err(error) => format!("({}: {error})", path.display()),
    }
}

/// Removes the lines of libraries at levels for programmers.
#[must_use]
pub fn for_people(text: &str) -> String {
    let is_chatty = |line: &str| {
        [" DEBUG ", " TRACE ", "\"DEBUG\"", "\"TRACE\""].iter().any(|level| line.contains(level))
    };
    let is_ours =
        |line: &str| [" outrider", "\"outrider"].iter().any(|target| line.contains(target));
    text.lines()
        .filter(|line| !is_chatty(line) || is_ours(line))
        .fold(String::new(), |text, line| text + line + "\n")
}

/// Returns the last lines of several files, each under its name.
#[must_use]
pub fn tails<'a>(paths: impl IntoIterator<Item = &'a Path>, lines: usize) -> String {
    paths
        .into_iter()
        .map(|path| {
            format!(
                "--- {}\n{}\n",
                path.file_name().unwrap_or_default().to_string_lossy(),
                tail(path, lines)
            )
        })
        .collect()
}
