//! The data directory of `outrider dev`. `dev.json` is written first. So the files beside it are
//! known to be ours to remove, and an interrupted first start begins again.

use std::{
    fs::{self, File, TryLockError},
    io::{ErrorKind, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// The database's file.
pub const DATABASE: &str = "outrider.db";
/// The file of the master key.
pub const MASTER_KEY: &str = "master.key";
const KNOWN: &str = "dev.json";
const LOCK: &str = "dev.lock";
/// The files beside `dev.json`.
const MADE: [&str; 4] = [DATABASE, "outrider.db-wal", "outrider.db-shm", MASTER_KEY];

/// The objects that the first start created, which later ones print again.
#[derive(Serialize, Deserialize)]
pub struct Known {
    pub organization_id: String,
    pub project_id: String,
    pub api_key_id: String,
    /// The API key, a secret.
    pub token: String,
}

/// The directory, which only this process uses.
pub struct Data {
    directory: PathBuf,
    _lock: File,
}

impl Data {
    /// Creates the directory if necessary, and locks it.
    pub fn open(directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory)
            .with_context(|| format!("--data: cannot make {}", directory.display()))?;
        let path = directory.join(LOCK);
        let mut options = File::options();
        let lock = options.create(true).truncate(false).write(true).mode(0o600).open(&path);
        let lock = lock.with_context(|| format!("--data: cannot write {}", path.display()))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { directory: directory.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => {
                bail!("--data: another `outrider dev` runs on {}", directory.display())
            }
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("--data: cannot lock {}", path.display()))
            }
        }
    }

    /// Returns the path of a file in the directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Returns what an earlier start created. `None` if there was none, or if it was interrupted.
    pub fn known(&self) -> Result<Option<Known>> {
        let path = self.path(KNOWN);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.refuse_foreign()?;
                return Ok(None);
            }
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        if text.trim() == "{}" {
            self.remove_made()?;
            return Ok(None);
        }
        let known = serde_json::from_str(&text)
            .with_context(|| format!("{} is damaged; --reset begins anew", path.display()))?;
        // It contains a secret. Whatever changed its mode, only its owner may read it.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        for name in [DATABASE, MASTER_KEY] {
            if !self.path(name).exists() {
                bail!(
                    "{} is gone, and what was made with it; --reset begins anew",
                    self.path(name).display()
                );
            }
        }
        Ok(Some(known))
    }

    /// Records that the files that will be created here are ours.
    pub fn begin(&self) -> Result<()> {
        self.write("{}\n")
    }

    /// Records what was created.
    pub fn remember(&self, known: &Known) -> Result<()> {
        self.write(&format!("{}\n", serde_json::to_string_pretty(known)?))
    }

    /// Removes our files, and nothing else. `dev.json` comes last, so that an interrupted reset can
    /// be repeated.
    pub fn reset(&self) -> Result<()> {
        if !self.path(KNOWN).exists() {
            return self.refuse_foreign();
        }
        self.remove_made()?;
        remove(&self.path(KNOWN))
    }

    fn remove_made(&self) -> Result<()> {
        MADE.iter().try_for_each(|name| remove(&self.path(name)))
    }

    fn refuse_foreign(&self) -> Result<()> {
        match MADE.iter().map(|name| self.path(name)).find(|path| path.exists()) {
            Some(path) => bail!(
                "--data: {} is there, but {KNOWN} is not: it was not made by `outrider dev`, which \
                    leaves it alone; name another directory",
                path.display()
            ),
            None => Ok(()),
        }
    }

    /// Writes the file completely or not at all. Only its owner can read it.
    fn write(&self, text: &str) -> Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(&self.directory)?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(self.path(KNOWN))
            .with_context(|| format!("cannot write {}", self.path(KNOWN).display()))?;
        Ok(())
    }
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(directory: &Path) -> Data {
        let data = Data::open(directory).unwrap();
        data.begin().unwrap();
        fs::write(data.path(DATABASE), "x").unwrap();
        fs::write(data.path(MASTER_KEY), "x").unwrap();
        let text = |text: &str| text.to_owned();
        let known = Known {
            organization_id: text("o"),
            project_id: text("p"),
            api_key_id: text("k"),
            token: text("t"),
        };
        data.remember(&known).unwrap();
        data
    }

    #[test]
    fn reset_removes_what_was_made_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let data = made(directory.path());
        fs::write(data.path("mine.txt"), "x").unwrap();
        assert_eq!(data.known().unwrap().unwrap().token, "t");
        assert_eq!(fs::metadata(data.path(KNOWN)).unwrap().permissions().mode() & 0o777, 0o600);
        data.reset().unwrap();
        assert!(data.known().unwrap().is_none());
        let mut left: Vec<_> = fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        left.sort();
        assert_eq!(left, [LOCK, "mine.txt"]);
    }

    #[test]
    fn what_others_made_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let data = Data::open(directory.path()).unwrap();
        fs::write(data.path(DATABASE), "x").unwrap();
        assert!(data.reset().unwrap_err().to_string().contains(KNOWN));
        assert!(data.known().is_err());
        assert!(data.path(DATABASE).exists());
    }

    #[test]
    fn a_start_that_was_cut_short_begins_again_and_a_second_process_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let data = Data::open(directory.path()).unwrap();
        assert!(data.known().unwrap().is_none());
        data.begin().unwrap();
        fs::write(data.path(DATABASE), "half").unwrap();
        assert!(data.known().unwrap().is_none());
        assert!(!data.path(DATABASE).exists());
        assert!(Data::open(directory.path()).err().unwrap().to_string().contains("another"));
    }

    #[test]
    fn a_lost_database_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let data = made(directory.path());
        fs::remove_file(data.path(DATABASE)).unwrap();
        assert!(data.known().err().unwrap().to_string().contains("--reset"));
    }
}
