//! Outrider under test: the real binary, in one process or as six.

mod binary;
mod config;

pub use binary::binary;
pub use config::Options;

use std::{
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

/// The roles, in the order in which they are started.
pub const ROLES: [&str; 6] = ["egress", "dispatch", "admin", "ingest", "worker", "gateway"];

/// On which backends, and in how many processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Shape {
    /// SQLite and the embedded queue in one process.
    Sqlite,
    /// PostgreSQL and Redis, all roles in one process.
    Postgres,
    /// PostgreSQL and Redis, six processes.
    Mesh,
}

/// One running process of Outrider.
#[derive(Debug)]
struct Member {
    /// The role, or `all`.
    role: &'static str,
    operations: u16,
    process: Process,
}

/// What `outrider bootstrap` makes.
#[derive(Debug, Clone)]
pub struct First {
    /// The organisation.
    pub organization_id: String,
    /// A project in it.
    pub project_id: String,
    /// The id of a key, which may do everything in the organisation.
    pub api_key_id: String,
    /// Its token.
    pub token: String,
}

impl First {
    fn of(command: Command) -> Result<Self> {
        let made = run(command).context("bootstrap")?;
        let made: Value = serde_json::from_str(&made).with_context(|| format!("bootstrap wrote no JSON: {made}"))?;
        let text = |key: &str| made[key].as_str().map(str::to_owned).with_context(|| format!("bootstrap lacks {key}: {made}"));
        Ok(Self {
            organization_id: text("organization_id")?,
            project_id: text("project_id")?,
            api_key_id: text("api_key_id")?,
            token: text("token")?,
        })
    }
}

/// The process whose configuration commands take.
fn configured(shape: Shape) -> &'static str {
    if shape == Shape::Mesh { "admin" } else { "all" }
}

/// A running Outrider; its processes end when dropped.
#[derive(Debug)]
pub struct Outrider {
    shape: Shape,
    members: Vec<Member>,
    plan: Plan,
    binary: PathBuf,
    /// The first organisation.
    pub organization_id: String,
    /// The first project.
    pub project_id: String,
    /// The id of the first key, which may do everything in the organisation.
    pub api_key_id: String,
    /// Its token.
    pub token: String,
    directory: Directory,
}

impl Outrider {
    /// Migrates, bootstraps and starts; ready when this returns. The servers are for every shape but `Sqlite`.
    pub fn start(shape: Shape, options: &Options, postgres: Option<&Postgres>, redis: Option<&Redis>) -> Result<Self> {
        let directory = Directory::create()?;
        let binary = binary()?;
        let database = match (shape, postgres) {
            (Shape::Sqlite, _) => format!("sqlite://{}", directory.path().join("outrider.db").display()),
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
            command.args(arguments).arg("--config").arg(plan.file(&directory, configured(shape))).current_dir(directory.path());
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
            let process = self.launch(role)?;
            self.members.push(Member { role, operations: self.plan.operations(role), process });
        }
        self.ready()
    }

    /// Starts one more process with all roles beside the one there is, on ports of its own; ready when this gives the address of its
    /// public port. Only where all roles are in one process, on servers.
    pub fn start_replica(&mut self) -> Result<String> {
        ensure!(self.shape == Shape::Postgres, "no replicas of {:?}", self.shape);
        let (public, operations) = (format!("127.0.0.1:{}", ports::free()), ports::free());
        let mut command = Command::new(&self.binary);
        command.args(["serve", "--config"]).arg(self.plan.file(&self.directory, "all"));
        command.args([
            "--set",
            &format!("gateway.listen={public}"),
            "--set",
            &format!("operations.listen=127.0.0.1:{operations}"),
        ]);
        command.current_dir(self.directory.path()).env("RUST_BACKTRACE", "1");
        let process = Process::start("replica", command, &self.directory)?;
        self.members.push(Member { role: "replica", operations, process });
        self.ready()?;
        Ok(public)
    }

    /// Starts one more worker beside the one there is; ready when this returns. Only where roles are apart.
    pub fn start_another_worker(&mut self) -> Result<()> {
        ensure!(self.shape == Shape::Mesh, "no worker of its own in {:?}", self.shape);
        let operations = ports::free();
        let mut command = Command::new(&self.binary);
        command.args(["serve", "--role", "worker", "--config"]).arg(self.plan.file(&self.directory, "worker"));
        command.args(["--set", &format!("operations.listen=127.0.0.1:{operations}")]);
        command.current_dir(self.directory.path()).env("RUST_BACKTRACE", "1");
        let process = Process::start("another-worker", command, &self.directory)?;
        self.members.push(Member { role: "another-worker", operations, process });
        self.ready()
    }

    fn launch(&self, role: &str) -> Result<Process> {
        let mut command = Command::new(&self.binary);
        command.args(["serve", "--role", role, "--config"]).arg(self.plan.file(&self.directory, role));
        command.current_dir(self.directory.path()).env("RUST_BACKTRACE", "1");
        Process::start(role, command, &self.directory)
    }

    /// Makes another organisation, while the processes run.
    pub fn another_organization(&self) -> Result<First> {
        let mut command = Command::new(&self.binary);
        command.args(["bootstrap", "--json", "--organization", "Another", "--config"]);
        command.arg(self.plan.file(&self.directory, configured(self.shape))).current_dir(self.directory.path());
        First::of(command)
    }

    /// Runs `outrider verify-ledger --json` beside the processes: its exit code and what it tells, if anything.
    pub fn verify_ledger(&self, more: &[&str]) -> Result<(Option<i32>, Value)> {
        let mut command = Command::new(&self.binary);
        command.args(["verify-ledger", "--json", "--config"]).arg(self.plan.file(&self.directory, configured(self.shape)));
        let output = command.args(more).current_dir(self.directory.path()).output().context("verify-ledger")?;
        let told = serde_json::from_slice(&output.stdout);
        let told = told.with_context(|| format!("verify-ledger: {}", String::from_utf8_lossy(&output.stderr)))?;
        Ok((output.status.code(), told))
    }

    /// The URL of its database.
    #[must_use]
    pub fn database(&self) -> &str {
        self.plan.database()
    }

    /// Waits until every process says that it is ready.
    pub fn ready(&mut self) -> Result<()> {
        for member in &mut self.members {
            let what = format!("{} is ready", member.role);
            let alive = wait_blocking(&what, Duration::from_secs(60), || {
                if member.process.ended().is_some() {
                    return Some(false);
                }
                binary::answers_ok(member.operations, "/readyz").then_some(true)
            });
            if !matches!(alive, Ok(true)) {
                let log = logs::tail(member.process.log(), 40);
                bail!("{} does not become ready:\n{log}", member.role);
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

    /// The host and port of a role's listener; only where roles are apart.
    #[must_use]
    pub fn role_address(&self, role: &str) -> String {
        format!("127.0.0.1:{}", self.plan.port(role))
    }

    /// The hosts and ports of the listeners for operators.
    #[must_use]
    pub fn operations(&self) -> Vec<String> {
        self.members.iter().map(|member| format!("127.0.0.1:{}", member.operations)).collect()
    }

    /// The process ids.
    #[must_use]
    pub fn process_ids(&self) -> Vec<u32> {
        self.members.iter().map(|member| member.process.id()).collect()
    }

    /// The process ids, each with its role.
    #[must_use]
    pub fn processes(&self) -> Vec<(&'static str, u32)> {
        self.members.iter().map(|member| (member.role, member.process.id())).collect()
    }

    /// The last lines of every process's log.
    #[must_use]
    pub fn logs(&self, lines: usize) -> String {
        logs::tails(self.members.iter().map(|member| member.process.log()), lines)
    }

    /// The process with a role: in one process, that one.
    fn member(&mut self, role: &str) -> Result<&mut Member> {
        let mut members = self.members.iter_mut();
        members.find(|member| member.role == role || member.role == "all").with_context(|| format!("no process is {role}"))
    }

    /// Ends the process with a role by SIGKILL.
    pub fn kill(&mut self, role: &str) -> Result<()> {
        self.member(role)?.process.kill()
    }

    /// Sends a signal to the process with a role.
    pub fn signal(&mut self, role: &str, signal: Signal) -> Result<()> {
        self.member(role)?.process.signal(signal)
    }

    /// Asks the process with a role to end, and gives its exit status.
    pub fn terminate(&mut self, role: &str, bound: Duration) -> Result<ExitStatus> {
        let member = self.member(role)?;
        member.process.signal(Signal::Terminate)?;
        member.process.wait(bound)
    }

    /// Starts the process with a role again, without waiting until it is ready.
    pub fn restart(&mut self, role: &str) -> Result<()> {
        let role = self.member(role)?.role;
        let process = self.launch(role)?;
        let member = self.member(role)?;
        ensure!(member.process.ended().is_some(), "{role} still runs");
        member.process = process;
        Ok(())
    }
}
