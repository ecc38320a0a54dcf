//! A PostgreSQL server of this process. It is started from an installed version, and stopped when
//! the process ends, however it ends.

use std::{
    fs,
    net::TcpListener,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// Where distributions install the programs, in a directory per version.
const INSTALLED: &str = "/usr/lib/postgresql";
/// Number of attempts, each with another port: another process may take a free port before the
/// server does.
const TRIES: usize = 5;

pub(super) struct Server {
    url: String,
    /// Waits for the end of its standard input, which comes when this process ends. Then stops the
    /// server and removes its data.
    _watchdog: Child,
}

impl Server {
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Starts a server with its own directory and port. It listens only on 127.0.0.1 and trusts
    /// every client.
    pub fn start() -> Result<Self, String> {
        let programs = programs()?;
        let directory = run(&mut as_user("mktemp", &["-d", "-t", "outrider-postgres-XXXXXX"])?)?;
        let directory = PathBuf::from(directory.trim());
        let data = directory.join("data");
        // From here on, the directory is removed with this process.
        let watchdog = watchdog(&programs.join("pg_ctl"), &data, &directory)?;
        let initdb = programs.join("initdb");
        let arguments = [
            "-D",
            text(&data)?,
            "-U",
            "outrider",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
            "--no-sync",
        ];
        run(&mut as_user(text(&initdb)?, &arguments)?)?;
        let port = start_on_free_port(&programs.join("pg_ctl"), &data, &directory)?;
        Ok(Self {
            url: format!("postgres://outrider@127.0.0.1:{port}/postgres"),
            _watchdog: watchdog,
        })
    }
}

/// The programs of the newest installed version.
fn programs() -> Result<PathBuf, String> {
    let versions = fs::read_dir(INSTALLED).map_err(|_| format!("{INSTALLED} does not exist"))?;
    let newest = versions
        .flatten()
        .filter_map(|entry| {
            Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path().join("bin")))
        })
        .filter(|(_, programs)| programs.join("initdb").is_file())
        .max();
    newest.map(|(_, programs)| programs).ok_or_else(|| format!("{INSTALLED} holds no server"))
}

fn start_on_free_port(pg_ctl: &Path, data: &Path, directory: &Path) -> Result<u16, String> {
    let mut failure = String::new();
    for _ in 0..TRIES {
        let free = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .map_err(|error| error.to_string())?;
        let port = free.port();
        let settings = format!(
            "-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' \
             -c max_connections=400 -c fsync=off -c full_page_writes=off \
             -c shared_buffers=64MB -c max_locks_per_transaction=256"
        );
        let log = directory.join("log");
        let arguments =
            ["-D", text(data)?, "-l", text(&log)?, "-w", "-t", "60", "-o", &settings, "start"];
        match run(&mut as_user(text(pg_ctl)?, &arguments)?) {
            Ok(_) => return Ok(port),
            Err(error) => {
                failure = format!("{error}; {}", fs::read_to_string(&log).unwrap_or_default())
            }
        }
    }
    Err(failure)
}

fn watchdog(pg_ctl: &Path, data: &Path, directory: &Path) -> Result<Child, String> {
    const WAIT_AND_STOP: &str = r#"read -r _; "$1" -D "$2" -m immediate stop; rm -rf "$3""#;
    let arguments = ["-c", WAIT_AND_STOP, "sh", text(pg_ctl)?, text(data)?, text(directory)?];
    as_user("sh", &arguments)?
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // An interrupt from the terminal must end only the tests: this process must outlive them.
        .process_group(0)
        .spawn()
        .map_err(|error| format!("sh does not start: {error}"))
}

/// The command, run as the user `postgres` if this process is root, because the server refuses
/// root.
pub(super) fn as_user(program: &str, arguments: &[&str]) -> Result<Command, String> {
    let mut command = if is_root()? {
        let mut command = Command::new("setpriv");
        command.args([
            "--reuid",
            "postgres",
            "--regid",
            "postgres",
            "--init-groups",
            "--",
            program,
        ]);
        command
    } else {
        Command::new(program)
    };
    command.args(arguments).current_dir(std::env::temp_dir());
    Ok(command)
}

fn is_root() -> Result<bool, String> {
    Ok(run(Command::new("id").arg("-u"))?.trim() == "0")
}

/// Runs a command to its end. Its output goes to files, because a server that it starts would keep
/// pipes open.
fn run(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let failed = |error: std::io::Error| format!("{name}: {error}");
    let (output, errors) = (
        tempfile::NamedTempFile::new().map_err(failed)?,
        tempfile::NamedTempFile::new().map_err(failed)?,
    );
    let status = command
        .stdin(Stdio::null())
        .stdout(output.reopen().map_err(failed)?)
        .stderr(errors.reopen().map_err(failed)?)
        .status()
        .map_err(failed)?;
    let read = |file: &tempfile::NamedTempFile| fs::read_to_string(file.path()).unwrap_or_default();
    if status.success() {
        Ok(read(&output))
    } else {
        Err(format!("{name} ended with {status}: {}{}", read(&output), read(&errors)))
    }
}

fn text(path: &Path) -> Result<&str, String> {
    path.to_str().ok_or_else(|| format!("{} is not UTF-8", path.display()))
}
