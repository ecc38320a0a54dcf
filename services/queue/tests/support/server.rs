//! Redis servers that live as long as a test.

use std::{
    io::ErrorKind,
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use redis::{FromRedisValue, Value};
use tempfile::TempDir;

use super::BOUND;

/// If set to 1, tests that need a Redis server are skipped where none is installed.
const SKIP: &str = "OUTRIDER_TEST_SKIP_REDIS";
/// Selects another program than `redis-server`, such as that of Valkey.
const PROGRAM: &str = "OUTRIDER_TEST_REDIS_SERVER";

/// A server with its own port and directory. It is killed when dropped.
pub struct Server {
    child: Child,
    pub port: u16,
    /// The port for TLS, if there is one.
    pub tls_port: Option<u16>,
    directory: TempDir,
    arguments: Vec<String>,
}

impl Server {
    /// Starts a server that stores nothing on disk. Returns `None` if there is no program and the
    /// tests may be skipped.
    pub fn start() -> Option<Self> {
        Self::with(&["--appendonly", "no"])
    }

    /// Starts a server with these arguments in addition to port, address and directory.
    pub fn with(arguments: &[&str]) -> Option<Self> {
        let arguments: Vec<_> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        // Another process may take the port between the check and the start.
        for _ in 0..10 {
            let port = free_port();
            let directory = tempfile::tempdir().expect("a directory");
            let child = spawn(port, &directory, &arguments)?;
            let mut server =
                Self { child, port, tls_port: None, directory, arguments: arguments.clone() };
            if server.wait() {
                return Some(server);
            }
        }
        panic!("redis-server did not start on any of ten ports");
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Ends the process without warning and starts it again in the same place.
    pub fn restart(&mut self) {
        self.kill();
        self.child = spawn(self.port, &self.directory, &self.arguments)
            .expect("the program was there before");
        assert!(self.wait(), "redis-server did not start again");
    }

    pub fn kill(&mut self) {
        self.child.kill().expect("to end it");
        self.child.wait().expect("its end");
    }

    /// Stops the process. Connections stay open without an answer.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill")
            .arg(signal)
            .arg(self.child.id().to_string())
            .status()
            .expect("kill");
        assert!(status.success());
    }

    /// Runs a command as an operator.
    pub fn run<T: FromRedisValue>(&self, arguments: &[&str]) -> T {
        self.try_run(arguments).unwrap_or_else(|error| panic!("{arguments:?}: {error}"))
    }

    pub fn try_run<T: FromRedisValue>(&self, arguments: &[&str]) -> redis::RedisResult<T> {
        let client = redis::Client::open(self.url())?;
        let mut connection = client.get_connection_with_timeout(Duration::from_secs(5))?;
        let mut command = redis::cmd(arguments[0]);
        for argument in &arguments[1..] {
            command.arg(argument);
        }
        command.query(&mut connection)
    }

    /// Waits until it answers. Returns false if it ended instead.
    fn wait(&mut self) -> bool {
        let begin = Instant::now();
        while begin.elapsed() < BOUND {
            if self.try_run::<Value>(&["PING"]).is_ok() {
                return true;
            }
            if self.child.try_wait().expect("its state").is_some() {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("redis-server does not answer");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A cluster of three nodes.
pub struct Cluster {
    pub nodes: Vec<Server>,
}

impl Cluster {
    pub fn start() -> Option<Self> {
        let arguments = [
            "--appendonly",
            "no",
            "--cluster-enabled",
            "yes",
            "--cluster-config-file",
            "nodes.conf",
        ];
        let nodes = (0..3).map(|_| Server::with(&arguments)).collect::<Option<Vec<_>>>()?;
        for (index, node) in nodes.iter().enumerate() {
            let slots = (index * 16_384 / 3)..((index + 1) * 16_384 / 3);
            let slots: Vec<_> = slots.map(|slot| slot.to_string()).collect();
            let command: Vec<_> = ["CLUSTER", "ADDSLOTS"]
                .into_iter()
                .chain(slots.iter().map(String::as_str))
                .collect();
            node.run::<Value>(&command);
            if index > 0 {
                node.run::<Value>(&["CLUSTER", "MEET", "127.0.0.1", &nodes[0].port.to_string()]);
            }
        }
        let begin = Instant::now();
        while !nodes.iter().all(joined) {
            assert!(begin.elapsed() < BOUND, "the cluster did not form");
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(Self { nodes })
    }

    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(Server::url).collect()
    }
}

fn joined(node: &Server) -> bool {
    let about: String = node.run(&["CLUSTER", "INFO"]);
    about.contains("cluster_state:ok")
        && about.contains("cluster_known_nodes:3")
        && about.contains("cluster_slots_ok:16384")
}

fn spawn(port: u16, directory: &TempDir, arguments: &[String]) -> Option<Child> {
    let program = std::env::var(PROGRAM).unwrap_or_else(|_| "redis-server".to_owned());
    let started = Command::new(&program)
        .args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--daemonize",
            "no",
            "--dir",
        ])
        .arg(directory.path())
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    match started {
        Ok(child) => Some(child),
        Err(error)
            if error.kind() == ErrorKind::NotFound
                && std::env::var(SKIP).is_ok_and(|skip| skip == "1") =>
        {
            eprintln!("SKIPPED: {program} is not installed and {SKIP}=1");
            None
        }
        Err(error) => {
            panic!(
                "{program} cannot be started ({error}): install Redis 6.0 or later, or set \
                    {SKIP}=1 to skip this test"
            )
        }
    }
}

/// Returns a free port. The port of the cluster bus (10,000 above) is also free.
pub fn free_port() -> u16 {
    loop {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("its address").port();
        if port < 55_000 && TcpListener::bind(("127.0.0.1", port + 10_000)).is_ok() {
            return port;
        }
    }
}
