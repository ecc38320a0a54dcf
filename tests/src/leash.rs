//! Ends everything that the tests started when the test process ends in any way: by a panic in a
//! destructor, an interrupt, or SIGKILL.

use std::{
    fs::File,
    io::Write,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{LazyLock, Mutex, PoisonError},
};

/// Reads what to hold (`+p PID`, `+d DIRECTORY`) and what to release (`-p`, `-d`). At the end of
/// its input, when the process at the other end of the pipe is gone, it kills and removes what it
/// still holds.
const SCRIPT: &str = r#"
trap '' INT TERM HUP
declare -A processes directories
while read -r operation value; do
    case $operation in
        +p) processes[$value]=1 ;;
        -p) unset "processes[$value]" ;;
        +d) directories[$value]=1 ;;
        -d) unset "directories[$value]" ;;
    esac
done
for process in "${!processes[@]}"; do kill -KILL "$process"; done
sleep 0.2
for directory in "${!directories[@]}"; do rm -rf -- "$directory"; done
"#;

struct Leash {
    input: ChildStdin,
    _child: Child,
}

static LEASH: LazyLock<Mutex<Leash>> = LazyLock::new(|| {
    let mut child = Command::new("bash")
        .args(["-c", SCRIPT])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the harness needs bash");
    let input = child.stdin.take().expect("the input is piped");
    Mutex::new(Leash { input, _child: child })
});

fn say(operation: &str, value: &str) {
    let mut leash = LEASH.lock().unwrap_or_else(PoisonError::into_inner);
    // Without the leash, destructors still clean up. Only a killed test process would leave
    // something behind.
    if let Err(error) = writeln!(leash.input, "{operation} {value}") {
        eprintln!("the leash is gone: {error}");
    }
}

/// Holds a process.
pub fn hold_process(pid: u32) {
    say("+p", &pid.to_string());
}

/// Releases a process that has been waited for.
pub fn release_process(pid: u32) {
    say("-p", &pid.to_string());
}

/// A directory of the harness, removed with it.
#[derive(Debug)]
pub struct Directory(tempfile::TempDir);

impl Directory {
    /// Creates an empty directory.
    pub fn create() -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("outrider-test-").tempdir()?;
        say("+d", &directory.path().display().to_string());
        Ok(Self(directory))
    }

    /// Returns its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Opens a file in it for appending.
    pub fn append(&self, name: &str) -> anyhow::Result<File> {
        Ok(File::options().create(true).append(true).open(self.path().join(name))?)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        say("-d", &self.path().display().to_string());
    }
}
