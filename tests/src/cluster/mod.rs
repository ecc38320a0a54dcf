//! Outrider under test: the real binary, in one process or in six.

mod binary;
mod config;
mod shape;

pub use binary::binary;
pub use config::Options;
pub use shape::{ROLES, Shape};

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::{
    leash::Directory,
    logs, ports,
    process::{Process, Signal},
    servers::{Postgres, Redis, run},
    wait::wait_blocking,
};
use config::Plan;

/// One process of Outrider.
#[derive(Debug)]
struct Member {
    /// The role, or `all`. Further processes of the role have `-2` and so on after it.
    name: String,
    operations: u16,
    launch: Launch,
    process: Process,
}

/// How to start and restart a process.
#[derive(Debug, Clone)]
struct Launch {
    /// The role, or `all`.
    role: &'static str,
    /// Settings that override those of the file.
    settings: Vec<String>,
    environment: Vec<(String, String)>,
}

/// The results of `outrider bootstrap`.
#[derive(Debug, Clone)]
pub struct First {
    /// The organization.
    pub organization_id: String,
    /// A project in it.
    pub project_id: String,
    /// The id of a key that has all scopes in the organization.
    pub api_key_id: String,
    /// Its token.
    pub token: String,
}

impl First {
    fn of(command: Command) -> Result<Self> {
        let made = run(command).context("bootstrap")?;
        let made: Value = serde_json::from_str(&made)
            .with_context(|| format!("bootstrap wrote no JSON: {made}"))?;
        let text = |key: &str| {
            made[key]
                .as_str()
                .map(str::to_owned)
                .with_context(|| format!("bootstrap lacks {key}: {made}"))
        };
        Ok(Self {
            organization_id: text("organization_id")?,
            project_id: text("project_id")?,
            api_key_id: text("api_key_id")?,
            token: text("token")?,
        })
    }
}

/// Limits the file descriptors of a process to those below this number.
fn limit_files(process: u32, most: u32) -> Result<()> {
    let mut prlimit = Command::new("prlimit");
    prlimit.args(["--pid", &process.to_string(), &format!("--nofile={most}:")]);
    run(prlimit).map(drop)
}

/// Returns the process whose configuration commands use.
fn configured(shape: Shape) -> &'static str {
    if shape == Shape::Mesh { "admin" } else { "all" }
}

/// A running Outrider. Dropping it ends its processes.
#[derive(Debug)]
pub struct Outrider {
    shape: Shape,
    members: Vec<Member>,
    plan: Plan,
    binary: PathBuf,
    /// The first organization.
    pub organization_id: String,
    /// The first project.
    pub project_id: String,
    /// The id of the first key, which has all scopes in the organization.
    pub api_key_id: String,
    /// Its token.
    pub token: String,
    directory: Directory,
}

impl Outrider {
    /// Migrates, bootstraps and starts. Outrider is ready when this returns. Every shape but
    /// `Sqlite` uses the servers.
    pub fn start(
        shape: Shape,
        options: &Options,
        postgres: Option<&Postgres>,
        redis: Option<&Redis>,
    ) -> Result<Self> {
        let directory = Directory::create()?;
        let binary = binary()?;
        let database = match (shape, postgres) {
            (Shape::Sqlite, _) => {
                format!("sqlite://{}", directory.path().join("outrider.db").display())
            }
            (_, Some(postgres)) => postgres.create_database()?,
            _ => bail!("{shape:?} needs PostgreSQL"),
        };
        let queue = match (shape, redis) {
            (Shape::Sqlite, _) => "embedded".to_owned(),
            (_, Some(redis)) => redis.url(),
            _ => bail!("{shape:?} needs Redis"),
        };
        let plan = Plan::new(&database, &queue, options);
        plan.write(&directory, if shape == Shape::Mesh { &ROLES } else { &["all"] })?;
        let command = |arguments: &[&str]| {
            let mut command = Command::new(&binary);
            command
                .args(arguments)
                .arg("--config")
                .arg(plan.file(&directory, configured(shape)))
                .current_dir(directory.path());
            command
        };
        run(command(&["migrate", "up"])).context("migrate up")?;
        let first = First::of(command(&["bootstrap", "--json"]))?;
        let mut outrider = Self {
            shape,
            members: Vec::new(),
            organization_id: first.organization_id,
            project_id: first.project_id,
            api_key_id: first.api_key_id,
            token: first.token,
            plan,
            binary,
            directory,
        };
        outrider.start_all()?;
        Ok(outrider)
    }

    fn start_all(&mut self) -> Result<()> {
        let roles: &[&'static str] = if self.shape == Shape::Mesh { &ROLES } else { &["all"] };
        for role in roles {
            let launch = Launch { role, settings: Vec::new(), environment: Vec::new() };
            self.add((*role).to_owned(), self.plan.operations(role), launch)?;
        }
        self.ready()
    }

    fn add(&mut self, name: String, operations: u16, launch: Launch) -> Result<()> {
        let process = self.launch(&name, &launch)?;
        self.members.push(Member { name, operations, launch, process });
        Ok(())
    }

    /// Starts one more process with a role, or with `all` roles, on its own ports. Its name is the
    /// role with `-2`, `-3` and so on. It is ready when this returns the address of its listener
    /// (with `all`, the public one; a worker has none).
    pub fn start_another(&mut self, role: &'static str) -> Result<String> {
        ensure!(
            (self.shape == Shape::Mesh) == (role != "all") && self.shape != Shape::Sqlite,
            "no other {role} of {:?}",
            self.shape
        );
        let (address, operations) = (format!("127.0.0.1:{}", ports::free()), ports::free());
        let mut settings = vec![format!("operations.listen=127.0.0.1:{operations}")];
        match role {
            "worker" => {}
            "all" => settings.push(format!("gateway.listen={address}")),
            role => settings.push(format!("{role}.listen={address}")),
        }
        let number = self.members.iter().filter(|member| member.launch.role == role).count() + 1;
        self.add(
            format!("{role}-{number}"),
            operations,
            Launch { role, settings, environment: Vec::new() },
        )?;
        self.ready()?;
        Ok(address)
    }

    fn launch(&self, name: &str, launch: &Launch) -> Result<Process> {
        let mut command = Command::new(&self.binary);
        command
            .args(["serve", "--role", launch.role, "--config"])
            .arg(self.plan.file(&self.directory, launch.role));
        for setting in &launch.settings {
            command.args(["--set", setting]);
        }
        command
            .current_dir(self.directory.path())
            .env("RUST_BACKTRACE", "1")
            .envs(launch.environment.iter().cloned());
        Process::start(name, command, &self.directory)
    }

    /// Creates another organization while the processes run.
    pub fn another_organization(&self) -> Result<First> {
        let mut command = Command::new(&self.binary);
        command.args(["bootstrap", "--force", "--json", "--organization", "Another", "--config"]);
        command
            .arg(self.plan.file(&self.directory, configured(self.shape)))
            .current_dir(self.directory.path());
        First::of(command)
    }

    /// Runs `outrider verify-ledger --json` while the processes run. Returns its exit code and its
    /// output, if any.
    pub fn verify_ledger(&self, more: &[&str]) -> Result<(Option<i32>, Value)> {
        let mut command = Command::new(&self.binary);
        command
            .args(["verify-ledger", "--json", "--config"])
            .arg(self.plan.file(&self.directory, configured(self.shape)));
        let output = command
            .args(more)
            .current_dir(self.directory.path())
            .output()
            .context("verify-ledger")?;
        let told = serde_json::from_slice(&output.stdout);
        let told = told.with_context(|| {
            format!("verify-ledger: {}", String::from_utf8_lossy(&output.stderr))
        })?;
        Ok((output.status.code(), told))
    }

    /// The URL of its database.
    #[must_use]
    pub fn database(&self) -> &str {
        self.plan.database()
    }

    /// Waits until every process is ready.
    pub fn ready(&mut self) -> Result<()> {
        for member in &mut self.members {
            let what = format!("{} is ready", member.name);
            let alive = wait_blocking(&what, Duration::from_secs(60), || {
                if member.process.ended().is_some() {
                    return Some(false);
                }
                binary::answers_ok(member.operations, "/readyz").then_some(true)
            });
            if !matches!(alive, Ok(true)) {
                let log = logs::tail(member.process.log(), 40);
                bail!("{} does not become ready:\n{log}", member.name);
            }
        }
        Ok(())
    }

    /// The shape.
    #[must_use]
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The base URL of the public port.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.authority().is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address())
    }

    /// The authority of the public certificate, where the public port has TLS.
    #[must_use]
    pub fn authority(&self) -> Option<&Path> {
        self.plan.authority()
    }

    /// The address of the public port.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.plan.port("gateway"))
    }

    /// Returns the host and port of a role's listener, if roles have their own processes.
    #[must_use]
    pub fn role_address(&self, role: &str) -> String {
        format!("127.0.0.1:{}", self.plan.port(role))
    }

    /// Returns the hosts and ports of the operations listeners.
    #[must_use]
    pub fn operations(&self) -> Vec<String> {
        self.members.iter().map(|member| format!("127.0.0.1:{}", member.operations)).collect()
    }

    /// The process ids.
    #[must_use]
    pub fn process_ids(&self) -> Vec<u32> {
        self.members.iter().map(|member| member.process.id()).collect()
    }

    /// Returns the process ids with their names: the role, with `-2` and so on for further
    /// processes.
    #[must_use]
    pub fn processes(&self) -> Vec<(&str, u32)> {
        self.members.iter().map(|member| (member.name.as_str(), member.process.id())).collect()
    }

    /// Returns the last lines of every process's log.
    #[must_use]
    pub fn logs(&self, lines: usize) -> String {
        logs::tails(self.members.iter().map(|member| member.process.log()), lines)
    }

    /// Fails if a new line in the log of any process looks like the output of Debug.
    pub fn check_words(&self) -> Result<()> {
        self.members.iter().try_for_each(|member| member.process.check_words())
    }

    /// Returns the process of this name. For a role, if all are in one process, returns that one.
    fn member(&mut self, name: &str) -> Result<&mut Member> {
        let mut members = self.members.iter_mut();
        members
            .find(|member| member.name == name || member.name == "all")
            .with_context(|| format!("no process is {name}"))
    }

    /// Sets the environment of a process for its next start.
    pub fn set_environment(&mut self, name: &str, variables: &[(&str, String)]) -> Result<()> {
        let variables =
            variables.iter().map(|(variable, value)| ((*variable).to_owned(), value.clone()));
        self.member(name)?.launch.environment = variables.collect();
        Ok(())
    }

    /// Prevents a process from opening further files. Open files stay open. If the process keeps a
    /// spare one (the last that is /dev/null), it can open one in its place.
    pub fn take_files(&mut self, name: &str) -> Result<()> {
        const LEAST: u32 = 8;
        let id = self.member(name)?.process.id();
        let mut most = LEAST;
        for file in fs::read_dir(format!("/proc/{id}/fd"))? {
            let file = file?;
            if fs::read_link(file.path()).is_ok_and(|to| to == Path::new("/dev/null")) {
                most = most.max(file.file_name().to_string_lossy().parse::<u32>()? + 1);
            }
        }
        limit_files(id, most)
    }

    /// Permits the process to open files again.
    pub fn give_files(&mut self, name: &str) -> Result<()> {
        limit_files(self.member(name)?.process.id(), 1_024)
    }

    /// Waits until a process has ended.
    pub fn wait_for_end(&mut self, name: &str, bound: Duration) -> Result<ExitStatus> {
        self.member(name)?.process.wait(bound)
    }

    /// Returns the id of a process.
    pub fn process_id(&mut self, name: &str) -> Result<u32> {
        Ok(self.member(name)?.process.id())
    }

    /// Returns the directory of the processes' files.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Overrides settings in the file of a role, or of `all`. null removes a key. A process reads
    /// the file when it does so by itself.
    pub fn rewrite(&self, role: &str, more: &Value) -> Result<()> {
        self.plan.rewrite(&self.directory, role, more)
    }

    /// Ends a process by SIGKILL.
    pub fn kill(&mut self, role: &str) -> Result<()> {
        self.member(role)?.process.kill()
    }

    /// Sends a signal to a process.
    pub fn signal(&mut self, role: &str, signal: Signal) -> Result<()> {
        self.member(role)?.process.signal(signal)
    }

    /// Asks a process to end, and returns its exit status.
    pub fn terminate(&mut self, role: &str, bound: Duration) -> Result<ExitStatus> {
        let member = self.member(role)?;
        member.process.signal(Signal::Terminate)?;
        member.process.wait(bound)
    }

    /// Restarts a process, without waiting until it is ready.
    pub fn restart(&mut self, name: &str) -> Result<()> {
        let member = self.member(name)?;
        ensure!(member.process.ended().is_some(), "{name} still runs");
        let (name, launch) = (member.name.clone(), member.launch.clone());
        self.member(&name)?.process = self.launch(&name, &launch)?;
        Ok(())
    }
}

/// Every test checks the logs of its processes.
impl Drop for Outrider {
    fn drop(&mut self) {
        match self.check_words() {
            // A test that already fails reports its own error.
            Err(error) if !std::thread::panicking() => panic!("{error:#}"),
            _ => {}
        }
    }
}
