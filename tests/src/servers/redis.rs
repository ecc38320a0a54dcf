//! A Redis server.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::Command,
    time::Duration,
};

use anyhow::{Result, ensure};

use crate::{
    leash::Directory,
    logs,
    pki::Identity,
    ports,
    process::{Process, Signal},
    wait::wait_blocking,
};

/// A Redis server. Dropping it ends and removes it.
#[derive(Debug)]
pub struct Redis {
    process: Process,
    port: u16,
    /// The port for TLS, if there is one.
    tls: Option<u16>,
    arguments: Vec<String>,
    environment: Vec<(&'static str, String)>,
    /// The address in its URL, if it is not its own.
    front: Option<String>,
    directory: Directory,
}

impl Redis {
    /// Starts a server that stores nothing on disk, so it is empty after `kill` and `restart`.
    pub fn start() -> Result<Self> {
        Self::launch(&["--appendonly", "no"], None)
    }

    /// Starts a server with an append-only file that is synced every second, as in production.
    pub fn start_persistent() -> Result<Self> {
        Self::launch(&["--appendonly", "yes", "--appendfsync", "everysec"], None)
    }

    /// Starts a server that stores nothing on disk and whose URL requires TLS. Clients need a
    /// certificate of the same authority.
    pub fn start_tls(identity: &Identity) -> Result<Self> {
        let file = |path: &Path| path.display().to_string();
        let port = ports::free();
        let arguments = [
            ("--tls-port", port.to_string()),
            ("--tls-cert-file", file(&identity.certificate)),
            ("--tls-key-file", file(&identity.private_key)),
            ("--tls-ca-cert-file", file(&identity.authority)),
        ];
        let arguments: Vec<&str> =
            arguments.iter().flat_map(|(name, value)| [*name, value.as_str()]).collect();
        Self::launch(
            &[&["--appendonly", "no", "--tls-auth-clients", "yes"], arguments.as_slice()].concat(),
            Some(port),
        )
    }

    fn launch(arguments: &[&str], tls: Option<u16>) -> Result<Self> {
        let directory = Directory::create()?;
        let port = ports::free();
        let arguments: Vec<_> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let process = Process::start("redis", command(port, &arguments, &directory), &directory)?;
        let mut server =
            Self { process, port, tls, arguments, environment: Vec::new(), front: None, directory };
        server.ready()?;
        Ok(server)
    }

    /// Returns its URL, with database 0.
    #[must_use]
    pub fn url(&self) -> String {
        match self.tls {
            Some(port) => format!("rediss://127.0.0.1:{port}/0"),
            None => format!("redis://{}/0", self.front.clone().unwrap_or_else(|| self.address())),
        }
    }

    /// Returns host and port.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Makes its URL name this address, such as a proxy.
    pub fn stands_behind(&mut self, front: String) {
        self.front = Some(front);
    }

    /// Returns its process id.
    #[must_use]
    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// Ends it by SIGKILL.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Restarts it on the same port.
    pub fn restart(&mut self) -> Result<()> {
        self.process.kill()?;
        let mut command = command(self.port, &self.arguments, &self.directory);
        command.envs(self.environment.iter().cloned());
        self.process = Process::start("redis", command, &self.directory)?;
        self.ready()
    }

    /// Sets its environment for the next start.
    pub fn set_environment(&mut self, variables: &[(&'static str, String)]) {
        self.environment = variables.to_vec();
    }

    /// Copies the files of a server with an append-only file, for [`Redis::restart_with`].
    pub fn copy_data(&self) -> Result<Directory> {
        let copy = Directory::create()?;
        copy_files(&self.directory.path().join(APPENDED), &copy.path().join(APPENDED))?;
        Ok(copy)
    }

    /// Restarts it on the same port with the data of such a copy, like a promoted replica that had
    /// fallen behind.
    pub fn restart_with(&mut self, copy: &Directory) -> Result<()> {
        self.process.kill()?;
        fs::remove_dir_all(self.directory.path().join(APPENDED))?;
        copy_files(&copy.path().join(APPENDED), &self.directory.path().join(APPENDED))?;
        self.restart()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Removes everything.
    pub fn flush_all(&self) -> Result<()> {
        let answer = self.ask("FLUSHALL")?;
        ensure!(answer.starts_with("+OK"), "FLUSHALL: {answer}");
        Ok(())
    }

    /// Runs an inline command, and returns its reply, which must be a line or a text.
    pub fn ask(&self, command: &str) -> Result<String> {
        let connection = TcpStream::connect(("127.0.0.1", self.port))?;
        connection.set_read_timeout(Some(Duration::from_secs(5)))?;
        (&connection).write_all(format!("{command}\r\n").as_bytes())?;
        let mut reader = BufReader::new(connection);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        // The reply is a line, or the length of a text, which is -1 if there is none.
        let Some(length) = line.trim_end().strip_prefix('$').and_then(|length| length.parse().ok())
        else {
            return Ok(line);
        };
        let mut text = vec![0; length];
        reader.read_exact(&mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    fn ready(&mut self) -> Result<()> {
        let answers = wait_blocking("Redis answers", Duration::from_secs(20), || {
            if self.process.ended().is_some() {
                return Some(false);
            }
            self.ask("PING").is_ok_and(|answer| answer.starts_with("+PONG")).then_some(true)
        })?;
        ensure!(answers, "Redis ended: {}", logs::tail(self.process.log(), 20));
        Ok(())
    }
}

/// The directory of a server's append-only file.
const APPENDED: &str = "appendonlydir";

fn copy_files(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

fn command(port: u16, arguments: &[String], directory: &Directory) -> Command {
    let mut command = Command::new("redis-server");
    command.args([
        "--port",
        &port.to_string(),
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--daemonize",
        "no",
    ]);
    command.arg("--dir").arg(directory.path()).args(arguments);
    command
}
