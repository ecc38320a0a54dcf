//! Runs the real binary, with nothing of this machine's configuration.

use std::{
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

#[path = "../../../../tests/src/shapes.rs"]
mod shapes;

/// Everything waited for must happen within this time.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The binary with a home directory of its own and no variables of ours.
pub fn outrider(home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outrider"));
    for (name, _) in std::env::vars()
        .filter(|(name, _)| name.starts_with("OUTRIDER_") || name == "XDG_CONFIG_HOME")
    {
        command.env_remove(name);
    }
    command.env("HOME", home).current_dir(home).args(arguments).stdin(Stdio::null());
    command
}

/// A command that ends, with what it is given to read.
pub fn run_with(mut command: Command, input: &str) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// Its standard output, which must be that of a success.
pub fn succeeded(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    in_words(&output);
    String::from_utf8(output.stdout).unwrap()
}

/// Its exit code and standard error.
pub fn failed(output: Output) -> (i32, String) {
    in_words(&output);
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Nothing that a command writes looks as if Debug had written it.
fn in_words(output: &Output) {
    for text in [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes)) {
        assert_eq!(shapes::debug_shape(&text), None, "no text for people: {text}");
    }
}

/// A command that runs until it is told to end; killed when dropped.
pub struct Running {
    child: Child,
    lines: Receiver<String>,
}

impl Running {
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let output = child.stdout.take().unwrap();
        Self::reading(child, output)
    }

    /// The same, with the lines of its log.
    pub fn start_logged(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let output = child.stderr.take().unwrap();
        Self::reading(child, output)
    }

    fn reading(child: Child, output: impl Read + Send + 'static) -> Self {
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self { child, lines }
    }

    /// The first line from now on that holds `text`.
    pub fn line(&self, text: &str) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let line = self
                .lines
                .recv_timeout(left)
                .unwrap_or_else(|error| panic!("no line with \"{text}\": {error}"));
            assert_eq!(shapes::debug_shape(&line), None, "no text for people");
            if line.contains(text) {
                return line;
            }
        }
    }

    /// SIGTERM, and its end, which must be orderly.
    pub fn stop(self) {
        self.signal("-TERM");
    }

    /// SIGINT, as of Ctrl-C, and its end.
    pub fn interrupt(self) {
        self.signal("-INT");
    }

    /// SIGHUP, as of a terminal that is closed, and its end.
    pub fn hang_up(self) {
        self.signal("-HUP");
    }

    /// A signal that must not end it.
    pub fn send(&self, signal: &str) {
        let killed =
            Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(killed.success());
    }

    fn signal(mut self, signal: &str) {
        self.send(signal);
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
