//! Runs the real binary without any configuration of this machine.

use std::{
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

#[path = "../../../../tests/src/shapes.rs"]
mod shapes;

/// Everything that a test waits for must happen within this time.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Returns a command with its own home directory and without Outrider's variables.
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

/// Runs a command to its end, with this input.
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

/// Returns the standard output of a command that must have succeeded.
pub fn succeeded(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    in_words(&output);
    String::from_utf8(output.stdout).unwrap()
}

/// Returns the exit code and standard error of a command that must have failed.
pub fn failed(output: Output) -> (i32, String) {
    in_words(&output);
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Asserts that nothing in the output looks like Rust's debug format.
fn in_words(output: &Output) {
    for text in [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes)) {
        assert_eq!(shapes::debug_shape(&text), None, "no text for people: {text}");
    }
}

/// A command that runs until it is told to end. Dropping it kills it.
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

    /// Starts a command and collects the lines of its log.
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

    /// Returns the next line that contains `text`.
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

    /// Sends SIGTERM, and waits for an orderly end.
    pub fn stop(self) {
        self.signal("-TERM");
    }

    /// Sends SIGINT, like Ctrl-C, and waits for the end.
    pub fn interrupt(self) {
        self.signal("-INT");
    }

    /// Sends SIGHUP, like a terminal that is closed, and waits for the end.
    pub fn hang_up(self) {
        self.signal("-HUP");
    }

    /// Sends a signal that must not end the process.
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
