//! A server process of the harness: signals, waiting, and its log.

use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

use crate::{leash, leash::Directory, logs, shapes::debug_shape, wait::wait_blocking};

/// A signal that `kill` can send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM asks the process to end.
    Terminate,
    /// SIGSTOP freezes it.
    Stop,
    /// SIGCONT continues it after `Stop`.
    Continue,
    /// SIGHUP asks it to read its files again.
    HangUp,
    /// SIGKILL ends it at once.
    Kill,
}

impl Signal {
    fn name(self) -> &'static str {
        match self {
            Self::Terminate => "TERM",
            Self::Stop => "STOP",
            Self::Continue => "CONT",
            Self::HangUp => "HUP",
            Self::Kill => "KILL",
        }
    }
}

/// Sends a signal to a process that the harness started, or to a child of one.
pub fn signal_to(id: u32, signal: Signal) -> Result<()> {
    let status = Command::new("kill").args(["-s", signal.name(), &id.to_string()]).status()?;
    ensure!(status.success(), "cannot signal {id}");
    Ok(())
}

/// A running process. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    /// How many bytes of the log were checked.
    looked_at: Mutex<u64>,
    ended: bool,
}

impl Process {
    /// Starts a command, whose output goes to `NAME.log` in the directory.
    pub fn start(name: &str, mut command: Command, directory: &Directory) -> Result<Self> {
        let file = format!("{name}.log");
        let output = directory.append(&file)?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = command.spawn().with_context(|| format!("cannot start {name}: {command:?}"))?;
        leash::hold_process(child.id());
        Ok(Self {
            name: name.to_owned(),
            child,
            log: directory.path().join(file),
            looked_at: Mutex::default(),
            ended: false,
        })
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns the file with its output.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Fails if a line of its log looks like the output of Debug. Lines that were checked before
    /// are not checked again.
    pub fn check_words(&self) -> Result<()> {
        let mut looked_at = self.looked_at.lock().unwrap_or_else(PoisonError::into_inner);
        let Ok(mut file) = File::open(&self.log) else { return Ok(()) };
        file.seek(SeekFrom::Start(*looked_at))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        // The last line may be incomplete.
        bytes.truncate(bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1));
        *looked_at += bytes.len() as u64;
        match debug_shape(&logs::for_people(&String::from_utf8_lossy(&bytes))) {
            Some(line) => {
                bail!("the log of {} has a line that is no text for people: {line}", self.name)
            }
            None => Ok(()),
        }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        ensure!(!self.ended, "{} has ended", self.name);
        signal_to(self.id(), signal).with_context(|| format!("cannot signal {}", self.name))
    }

    /// Returns its exit status if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait().ok().flatten()?;
        if !self.ended {
            self.ended = true;
            leash::release_process(self.child.id());
        }
        Some(status)
    }

    /// Waits until it has ended.
    pub fn wait(&mut self, bound: Duration) -> Result<ExitStatus> {
        let what = format!("{} ends", self.name);
        wait_blocking(&what, bound, || self.ended())
    }

    /// Kills it and waits until it has ended.
    pub fn kill(&mut self) -> Result<()> {
        if self.ended().is_none() {
            self.signal(Signal::Kill)?;
            self.wait(Duration::from_secs(10))?;
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("cannot end {}: {error:#}", self.name);
        }
    }
}
