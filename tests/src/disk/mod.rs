//! A disk that is full or refuses writes, for selected processes.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use crate::{leash::Directory, servers::run};

/// A disk that can be filled. While it is full, processes with its environment cannot extend any
/// file.
#[derive(Debug)]
pub struct FullDisk {
    shim: PathBuf,
    full: PathBuf,
    read_only: PathBuf,
    _directory: Directory,
}

impl FullDisk {
    /// Creates a disk that is not full. This needs a C compiler.
    pub fn create() -> Result<Self> {
        let directory = Directory::create()?;
        // Servers run as other users.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
        let [shim, full, read_only] =
            ["full.so", "full", "read-only"].map(|name| directory.path().join(name));
        let mut compile = Command::new("cc");
        compile.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]).arg(&shim);
        compile.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/src/disk/full.c")).arg("-ldl");
        run(compile)?;
        Ok(Self { shim, full, read_only, _directory: directory })
    }

    /// Returns the environment that puts a process on this disk.
    #[must_use]
    pub fn environment(&self) -> [(&'static str, String); 3] {
        let path = |path: &Path| path.display().to_string();
        [
            ("LD_PRELOAD", path(&self.shim)),
            ("FULL_DISK", path(&self.full)),
            ("READ_ONLY_DISK", path(&self.read_only)),
        ]
    }

    /// Fills the disk.
    pub fn fill(&self) -> Result<()> {
        Ok(fs::write(&self.full, "")?)
    }

    /// Frees room on the disk.
    pub fn free(&self) -> Result<()> {
        Ok(fs::remove_file(&self.full)?)
    }

    /// Refuses all writes, as after an error of the disk or of its network.
    pub fn refuse_writes(&self) -> Result<()> {
        Ok(fs::write(&self.read_only, "")?)
    }

    /// Accepts writes again.
    pub fn take_writes(&self) -> Result<()> {
        Ok(fs::remove_file(&self.read_only)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_takes_what_has_its_place_and_nothing_more() {
        let disk = FullDisk::create().unwrap();
        let files = Directory::create().unwrap();
        // The C library's own streams would bypass the library; those of Python do not.
        let write = |mode: &str, text: &str| {
            let mut python = Command::new("python3");
            let script = format!("import os; os.write(os.open('file', {mode}, 0o600), b'{text}')");
            python.args(["-c", &script]).current_dir(files.path()).envs(disk.environment());
            run(python)
        };
        let (append, overwrite) = ("os.O_CREAT | os.O_WRONLY | os.O_APPEND", "os.O_WRONLY");
        write(append, "one").unwrap();
        disk.fill().unwrap();
        let refused = write(append, "two").unwrap_err();
        assert!(refused.to_string().contains("No space left on device"), "{refused}");
        write(overwrite, "ONE").unwrap();
        assert!(write(overwrite, "long").is_err());
        disk.free().unwrap();
        disk.refuse_writes().unwrap();
        let refused = write(overwrite, "One").unwrap_err();
        assert!(refused.to_string().contains("Read-only file system"), "{refused}");
        disk.take_writes().unwrap();
        write(append, "two").unwrap();
        assert_eq!(fs::read(files.path().join("file")).unwrap(), b"ONEtwo");
    }
}
