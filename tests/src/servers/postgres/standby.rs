//! A standby, which can replace a server that is gone.

use std::{sync::atomic::AtomicU32, time::Duration};

use anyhow::Result;

use super::{Postgres, command, run, server};
use crate::{leash::Directory, ports, process::Process, wait::wait_blocking};

impl Postgres {
    /// Starts a standby of this server on another port. From then on, every commit waits until the
    /// standby has it on its disk.
    pub fn start_standby(&self) -> Result<Self> {
        let (directory, port) = (Directory::create()?, ports::free());
        if let Some(user) = self.user {
            std::os::unix::fs::chown(directory.path(), Some(user.id), Some(user.group))?;
        }
        let mut copy = command(&self.binaries.join("pg_basebackup"), self.user, &directory);
        copy.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", "postgres"]);
        copy.args([
            "--checkpoint=fast",
            "--wal-method=stream",
            "--write-recovery-conf",
            "--no-sync",
            "-D",
        ]);
        copy.arg(directory.path().join("data"));
        run(copy)?;
        let process = Process::start(
            "postgres",
            server(&self.binaries, self.user, &directory, port, &self.settings),
            &directory,
        )?;
        let (settings, binaries) = (self.settings.clone(), self.binaries.clone());
        let mut standby = Self {
            process,
            port,
            settings,
            environment: Vec::new(),
            authority: None,
            binaries,
            user: self.user,
            databases: AtomicU32::new(0),
            front: None,
            parameters: Vec::new(),
            directory,
        };
        standby.ready()?;
        self.query("postgres", "ALTER SYSTEM SET synchronous_standby_names = '*'")?;
        self.query("postgres", "SELECT pg_reload_conf()")?;
        wait_blocking("the standby is synchronous", Duration::from_secs(30), || {
            let count = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
            self.query("postgres", count).is_ok_and(|count| count.trim() == "1").then_some(())
        })?;
        Ok(standby)
    }

    /// Promotes a standby. It accepts writes when this returns.
    pub fn promote(&self) -> Result<()> {
        self.query("postgres", "SELECT pg_promote(TRUE, 60)").map(drop)
    }
}
