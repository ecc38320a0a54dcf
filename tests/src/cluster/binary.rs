//! Finds the binary under test.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::Command,
    sync::OnceLock,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

static BINARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();

/// Returns the binary in OUTRIDER_BIN. Without it, has cargo build the binary now, so that it is
/// never stale.
pub fn binary() -> Result<PathBuf> {
    BINARY
        .get_or_init(|| locate().map_err(|error| format!("{error:#}")))
        .clone()
        .map_err(anyhow::Error::msg)
}

fn locate() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("OUTRIDER_BIN") {
        let path = PathBuf::from(path);
        ensure!(path.is_file(), "OUTRIDER_BIN names {}, which is no file", path.display());
        return Ok(path.canonicalize()?);
    }
    let release = !cfg!(debug_assertions);
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR")).args([
        "build",
        "--quiet",
        "--package",
        "outrider",
        "--bin",
        "outrider",
    ]);
    if release {
        cargo.arg("--release");
    } else {
        cargo.args(["--features", "failpoints"]);
    }
    ensure!(cargo.status().context("cannot run cargo")?.success(), "the binary does not build");
    // This program is TARGET/PROFILE/deps/NAME, or TARGET/PROFILE/NAME.
    let here = std::env::current_exe()?;
    let mut folders = here.ancestors().skip(1);
    let found =
        folders.by_ref().take(3).map(|folder| folder.join("outrider")).find(|path| path.is_file());
    found.with_context(|| format!("no binary beside {}", here.display()))
}

/// Whether a GET on a port of the loopback returns 200.
pub(super) fn answers_ok(port: u16, path: &str) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(
            &SocketAddr::from(([127, 0, 0, 1], port)),
            Duration::from_secs(1),
        )?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut begin = [0; 12];
        stream.read_exact(&mut begin)?;
        Ok(&begin == b"HTTP/1.1 200")
    };
    ask().unwrap_or(false)
}
