//! A disk that is full, for the processes that are told so.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, process::Command};

use anyhow::Result;

use crate::{leash::Directory, servers::run};

/// A disk that can be filled: processes with its environment can make no file longer while it is.
#[derive(Debug)]
pub struct FullDisk {
    library: PathBuf,
    flag: PathBuf,
    _directory: Directory,
}

impl FullDisk {
    /// One that is not full. Takes a compiler for C.
    pub fn create() -> Result<Self> {
        let directory = Directory::create()?;
        // Servers run as others.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
        let (library, flag) = (directory.path().join("full.so"), directory.path().join("full"));
        let mut compile = Command::new("cc");
        compile.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]).arg(&library);
        compile.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/src/disk/full.c")).arg("-ldl");
        run(compile)?;
        Ok(Self { library, flag, _directory: directory })
    }

    /// What a process must find in its environment to be on this disk.
    #[must_use]
    pub fn environment(&self) -> [(&'static str, String); 2] {
        [("LD_PRELOAD", self.library.display().to_string()), ("FULL_DISK", self.flag.display().to_string())]
    }

    /// No room is left.
    pub fn fill(&self) -> Result<()> {
        Ok(fs::write(&self.flag, "")?)
    }

    /// There is room again.
    pub fn free(&self) -> Result<()> {
        Ok(fs::remove_file(&self.flag)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_takes_what_has_its_place_and_nothing_more() {
        let disk = FullDisk::create().unwrap();
        let files = Directory::create().unwrap();
        // The C library's own streams would write past it; those of Python do not.
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
        write(append, "two").unwrap();
        assert_eq!(fs::read(files.path().join("file")).unwrap(), b"ONEtwo");
    }
}
