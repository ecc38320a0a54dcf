//! A PostgreSQL server.

mod standby;

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

use super::run;
use crate::{
    leash::Directory,
    logs,
    pki::Identity,
    ports,
    process::{self, Process, Signal},
    usage,
    wait::wait_blocking,
};

/// A PostgreSQL server. Dropping it ends and removes it.
#[derive(Debug)]
pub struct Postgres {
    process: Process,
    port: u16,
    settings: Vec<String>,
    environment: Vec<(&'static str, String)>,
    /// The authority of its certificate, if it has TLS.
    authority: Option<PathBuf>,
    binaries: PathBuf,
    user: Option<User>,
    databases: AtomicU32,
    /// The address in its URLs, if it is not its own.
    front: Option<String>,
    /// Parameters of its URLs.
    parameters: Vec<String>,
    directory: Directory,
}

/// The user that the server runs as, because it refuses to run as root.
#[derive(Debug, Clone, Copy)]
struct User {
    id: u32,
    group: u32,
}

impl Postgres {
    /// Starts a server that does not wait for the disk. It is fast, and loses nothing when its
    /// process ends.
    pub fn start() -> Result<Self> {
        Self::launch(Vec::new(), None)
    }

    /// Starts a server that syncs every commit, as in production, with further settings
    /// (`name=value`).
    pub fn start_durable(settings: &[&str]) -> Result<Self> {
        Self::launch(
            DURABLE.iter().chain(settings).map(|setting| (*setting).to_owned()).collect(),
            None,
        )
    }

    /// Starts a server like `start` that accepts this many connections, including those of
    /// superusers.
    pub fn start_with_connections(most: u32) -> Result<Self> {
        Self::launch(vec![format!("max_connections={most}")], None)
    }

    /// Starts a server like `start`, whose URLs require verified TLS.
    pub fn start_tls(identity: &Identity) -> Result<Self> {
        Self::launch(Vec::new(), Some(identity))
    }

    fn launch(mut settings: Vec<String>, identity: Option<&Identity>) -> Result<Self> {
        let (binaries, user, directory, port) =
            (binaries()?, user()?, Directory::create()?, ports::free());
        if let Some(user) = user {
            std::os::unix::fs::chown(directory.path(), Some(user.id), Some(user.group))?;
        }
        let mut initdb = command(&binaries.join("initdb"), user, &directory);
        initdb.args([
            "--username=postgres",
            "--auth=trust",
            "--encoding=UTF8",
            "--no-locale",
            "--no-sync",
            "-D",
        ]);
        initdb.arg(directory.path().join("data"));
        run(initdb)?;
        if let Some(identity) = identity {
            settings.extend(tls_settings(identity, user, &directory)?);
        }
        let authority = identity.map(|identity| identity.authority.clone());
        let process = Process::start(
            "postgres",
            server(&binaries, user, &directory, port, &settings),
            &directory,
        )?;
        let mut server = Self {
            process,
            port,
            settings,
            environment: Vec::new(),
            authority,
            binaries,
            user,
            databases: AtomicU32::new(0),
            front: None,
            parameters: Vec::new(),
            directory,
        };
        server.ready()?;
        Ok(server)
    }

    /// Creates an empty database, and returns its URL.
    pub fn create_database(&self) -> Result<String> {
        let name = format!("outrider_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.query("postgres", &format!("CREATE DATABASE {name}"))?;
        let tls = self
            .authority
            .as_ref()
            .map(|path| format!("sslmode=verify-full&sslrootcert={}", path.display()));
        let parameters: Vec<String> = self.parameters.iter().cloned().chain(tls).collect();
        let query = if parameters.is_empty() {
            String::new()
        } else {
            format!("?{}", parameters.join("&"))
        };
        let address = self.front.clone().unwrap_or_else(|| self.address());
        Ok(format!("postgres://postgres@{address}/{name}{query}"))
    }

    /// Makes the URLs of new databases name both servers, the other first, so that clients use the
    /// one that accepts writes.
    pub fn has_another(&mut self, other: &Self) {
        self.front = Some(format!("{},{}", other.address(), self.address()));
        self.parameters = vec!["target_session_attrs=read-write".to_owned()];
    }

    /// Adds a setting (`name=value`) for the next start.
    pub fn set(&mut self, setting: &str) {
        self.settings.push(setting.to_owned());
    }

    /// Makes the URLs of new databases name this address, such as a proxy.
    pub fn stands_behind(&mut self, front: String) {
        self.front = Some(front);
    }

    /// Runs a statement with psql, and returns its bare output.
    pub fn query(&self, database: &str, sql: &str) -> Result<String> {
        let mut psql = Command::new(self.binaries.join("psql"));
        psql.args([
            "-h",
            "127.0.0.1",
            "-p",
            &self.port.to_string(),
            "-U",
            "postgres",
            "-d",
            database,
        ]);
        psql.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-c", sql]);
        run(psql)
    }

    /// Returns the id of the parent of all its processes.
    #[must_use]
    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// Ends it by SIGKILL. Its other processes notice this and end.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Restarts it with the same data on the same port.
    pub fn restart(&mut self) -> Result<()> {
        self.process.kill()?;
        // The other processes of the killed server hold the shared memory until they notice, and a
        // new server refuses to start before that.
        let limit = Duration::from_secs(30);
        wait_blocking("PostgreSQL starts again", limit, || {
            let mut command =
                server(&self.binaries, self.user, &self.directory, self.port, &self.settings);
            command.envs(self.environment.iter().cloned());
            self.process = Process::start("postgres", command, &self.directory).ok()?;
            self.ready().ok()
        })
    }

    /// Sets its environment for the next start.
    pub fn set_environment(&mut self, variables: &[(&'static str, String)]) {
        self.environment = variables.to_vec();
    }

    /// Sends a signal to the parent process.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Sends a signal to all its processes. A stopped process does not fork, so none is missed
    /// after the first.
    pub fn signal_all(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)?;
        for child in usage::children(self.process.id()) {
            // A process may have ended in the meantime.
            let _ = process::signal_to(child, signal);
        }
        Ok(())
    }

    /// Returns host and port.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn ready(&mut self) -> Result<()> {
        let answers = wait_blocking("PostgreSQL answers", Duration::from_secs(60), || {
            if self.process.ended().is_some() {
                return Some(false);
            }
            self.query("postgres", "SELECT 1").is_ok().then_some(true)
        })?;
        ensure!(answers, "PostgreSQL ended: {}", logs::tail(self.process.log(), 20));
        Ok(())
    }
}

/// Copies the files to where the server may read them. Nobody else may read the key.
fn tls_settings(
    identity: &Identity,
    user: Option<User>,
    directory: &Directory,
) -> Result<Vec<String>> {
    let mut settings = vec!["ssl=on".to_owned()];
    for (name, from) in
        [("ssl_cert_file", &identity.certificate), ("ssl_key_file", &identity.private_key)]
    {
        let to = directory.path().join(name);
        fs::copy(from, &to)?;
        fs::set_permissions(&to, fs::Permissions::from_mode(0o600))?;
        if let Some(user) = user {
            std::os::unix::fs::chown(&to, Some(user.id), Some(user.group))?;
        }
        settings.push(format!("{name}={}", to.display()));
    }
    Ok(settings)
}

/// Settings that override those of a server that does not wait for the disk.
const DURABLE: [&str; 2] = ["fsync=on", "full_page_writes=on"];

fn server(
    binaries: &Path,
    user: Option<User>,
    directory: &Directory,
    port: u16,
    settings: &[String],
) -> Command {
    let mut server = command(&binaries.join("postgres"), user, directory);
    server.arg("-D").arg(directory.path().join("data")).arg("-k").arg(directory.path());
    server.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-c", "max_connections=400"]);
    server.args(["-c", "max_wal_size=2GB", "-c", "shared_buffers=256MB"]);
    server.args(["-c", "fsync=off", "-c", "full_page_writes=off"]);
    for setting in settings {
        server.args(["-c", setting]);
    }
    server
}

fn command(program: &Path, user: Option<User>, directory: &Directory) -> Command {
    let mut command = Command::new(program);
    command.current_dir(directory.path());
    if let Some(user) = user {
        command.uid(user.id).gid(user.group);
    }
    command
}

/// Returns the directory of initdb and postgres: the newest of Debian's packages, or that on the
/// path.
fn binaries() -> Result<PathBuf> {
    let mut installed: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin")))
        })
        .filter(|(_, path): &(u32, PathBuf)| path.join("initdb").exists())
        .collect();
    installed.sort();
    if let Some((_, path)) = installed.pop() {
        return Ok(path);
    }
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).find(|path| path.join("initdb").exists()).context(
        "PostgreSQL's initdb is neither under /usr/lib/postgresql nor on the path; \
            tests/run installs it",
    )
}

/// Returns the user postgres if this process runs as root.
fn user() -> Result<Option<User>> {
    if number("id", &["-u"])? != 0 {
        return Ok(None);
    }
    match (number("id", &["-u", "postgres"]), number("id", &["-g", "postgres"])) {
        (Ok(id), Ok(group)) => Ok(Some(User { id, group })),
        _ => {
            bail!(
                "root cannot run PostgreSQL and there is no user named postgres; tests/run \
                    installs the package that makes it"
            )
        }
    }
}

fn number(program: &str, arguments: &[&str]) -> Result<u32> {
    let mut command = Command::new(program);
    command.args(arguments);
    Ok(run(command)?.trim().parse()?)
}
