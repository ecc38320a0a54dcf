//! The conditions of the image, without a container engine: a read-only root directory that
//! contains only the binary and its libraries, and a user without a name and without rights.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use anyhow::{Context, Result, ensure};
use outrider_tests::{cluster::binary, leash::Directory};

/// Mounts the root directory as the engine does, in a mount namespace of its own, and executes the
/// program in it.
const SCRIPT: &str = r#"
mount --bind "$ROOT" "$ROOT"
mount --bind "$BINARY" "$ROOT/usr/local/bin/outrider"
mount --bind /proc "$ROOT/proc"
[ -z "$SCRATCH" ] || mount -t tmpfs -o mode=1777 tmpfs "$ROOT/tmp"
mount -o remount,bind,ro "$ROOT/usr/local/bin/outrider"
mount -o remount,bind,ro "$ROOT"
exec setpriv --no-new-privs --clear-groups chroot --userspec=65532:65532 "$ROOT" "$@"
"#;

/// The root directory of the image, with the secrets of the service.
pub struct Jail {
    root: Directory,
    variables: BTreeMap<String, String>,
    scratch: bool,
}

impl Jail {
    /// Creates it. If this process may not create one, prints that the test is skipped and returns
    /// `None`.
    pub fn new(variables: BTreeMap<String, String>) -> Result<Option<Self>> {
        let allowed = Command::new("unshare").args(["--mount", "true"]).output()?.status.success();
        if !allowed {
            anyhow::ensure!(
                std::env::var_os("CI").is_none(),
                "only root can make the file system of a container"
            );
            eprintln!("SKIPPED: only root can make the file system of a container");
            return Ok(None);
        }
        let root = Directory::create()?;
        let at = |path: &str| root.path().join(path.trim_start_matches('/'));
        for directory in ["proc", "tmp", "etc/outrider", "usr/local/bin", "var/lib/outrider"] {
            fs::create_dir_all(at(directory))?;
        }
        fs::write(at("usr/local/bin/outrider"), "")?;
        // The engine creates these, too.
        for file in ["/etc/hosts", "/etc/resolv.conf"] {
            fs::copy(file, at(file)).with_context(|| file.to_owned())?;
        }
        for library in libraries(&binary()?)? {
            fs::create_dir_all(at(&library).parent().context("a library is in a directory")?)?;
            fs::copy(&library, at(&library)).with_context(|| library.clone())?;
        }
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755))?;
        Ok(Some(Self { root, variables, scratch: false }))
    }

    /// Mounts a file system in memory at /tmp.
    pub fn give_scratch(&mut self) {
        self.scratch = true;
    }

    /// Returns the path, outside the image, of one of its files.
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path.trim_start_matches('/'))
    }

    /// Sets a variable for every command in it.
    pub fn set(&mut self, name: &str, value: String) {
        self.variables.insert(name.to_owned(), value);
    }

    /// Returns a command that runs the binary.
    pub fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new("unshare");
        command.args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-euc",
            SCRIPT,
            "jail",
            "/usr/local/bin/outrider",
        ]);
        command
            .args(arguments)
            .env_clear()
            .envs(&self.variables)
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("ROOT", self.root.path()).env("BINARY", binary()?);
        command.env("SCRATCH", if self.scratch { "yes" } else { "" });
        Ok(command)
    }

    pub fn run(&self, arguments: &[&str]) -> Result<Output> {
        Ok(self.command(arguments)?.output()?)
    }

    /// Runs a command that must succeed, and returns what it printed.
    pub fn text(&self, arguments: &[&str]) -> Result<String> {
        let output = self.run(arguments)?;
        ensure!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?)
    }
}

/// Returns the files that the dynamic linker loads for a program, including the linker itself. The
/// image has the C library and the library of the compiler.
fn libraries(program: &Path) -> Result<Vec<String>> {
    let output = Command::new("ldd").arg(program).output()?;
    ensure!(output.status.success(), "ldd: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    let paths =
        text.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    let paths: Vec<String> = paths.map(str::to_owned).collect();
    let known = [
        "ld-linux-x86-64.so.2",
        "ld-linux-aarch64.so.1",
        "libc.so.6",
        "libgcc_s.so.1",
        "libm.so.6",
    ];
    for path in &paths {
        let name = path.rsplit('/').next().unwrap_or(path);
        ensure!(known.contains(&name), "the binary loads {path}, which the image has not");
    }
    Ok(paths)
}
