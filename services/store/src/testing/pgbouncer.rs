//! PgBouncer with the settings of its package, in front of a test database.

use std::{
    net::TcpListener,
    path::Path,
    process::{Child, Stdio},
    time::Duration,
};

use tempfile::TempDir;

use super::server::as_user;

/// Where Debian's package installs it.
const INSTALLED: &str = "/usr/sbin/pgbouncer";

/// `OUTRIDER_TEST_PGBOUNCER` may name another program, such as a newer version.
fn program() -> String {
    std::env::var("OUTRIDER_TEST_PGBOUNCER").unwrap_or_else(|_| INSTALLED.to_owned())
}

/// A pooler. It ends when dropped, and with this process.
pub struct PgBouncer {
    url: String,
    /// Waits for the end of its standard input, and then stops the pooler.
    watchdog: Child,
    _directory: TempDir,
}

impl PgBouncer {
    /// Starts a pooler in front of the server of a URL. Apart from its address and its users, only
    /// `settings` are set. None if it is not installed and the run is not strict, which is reported
    /// on standard error.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn start(server: &str, settings: &str) -> Option<Self> {
        if !Path::new(&program()).exists() && std::env::var_os("OUTRIDER_TEST_STRICT").is_none() {
            eprintln!("SKIPPED with PgBouncer: it is not installed");
            return None;
        }
        let (user, rest) = server
            .strip_prefix("postgres://")
            .and_then(|rest| rest.split_once('@'))
            .expect("a URL with a user");
        let (address, database) = rest.split_once('/').expect("a URL with a database");
        let (host, port) = address.split_once(':').expect("a URL with a port");
        let directory = TempDir::new().expect("there is room for temporary files");
        let free = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a free port")
            .port();
        let users = directory.path().join("users.txt");
        std::fs::write(&users, format!("\"{user}\" \"\"\n")).expect("a file is written");
        let text = format!(
            "[databases]\n* = host={host} port={port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {free}\nauth_type = trust\nauth_file = {}\nunix_socket_dir =\n\
             {settings}\n",
            users.display()
        );
        let file = directory.path().join("pgbouncer.ini");
        std::fs::write(&file, text).expect("a file is written");
        open_to_all(directory.path());
        let watchdog = watchdog(&file);
        wait_for(free).await;
        Some(Self {
            url: format!("postgres://{user}@127.0.0.1:{free}/{database}"),
            watchdog,
            _directory: directory,
        })
    }

    /// The URL of the same database through the pooler.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        drop(self.watchdog.stdin.take());
        let _ = self.watchdog.wait();
    }
}

/// The pooler runs as another user if this process is root.
fn open_to_all(directory: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755))
        .expect("the directory is ours");
}

fn watchdog(file: &Path) -> Child {
    const RUN: &str = r#""$1" -q "$2" & pooler=$!; read -r _; kill -KILL "$pooler""#;
    let file = file.to_str().expect("a temporary path is UTF-8");
    let mut command = as_user("sh", &["-c", RUN, "sh", &program(), file]).expect("a user for it");
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("sh starts")
}

async fn wait_for(port: u16) {
    for _ in 0..500 {
        if tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("PgBouncer does not listen on {port}");
}
